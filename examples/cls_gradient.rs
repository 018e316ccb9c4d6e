//! How the vector of [CLS] is updated in fine-tuning: the course's numeric example, by the library's own
//! autograd. One sentence of two classes with W h + b as logits, its loss, gradients, and one step of
//! gradient descent.

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use common::{DeviceArgument, Result};
use serde_json::json;

/// The course's example of the gradient at [CLS].
#[derive(Parser)]
struct Arguments {
    /// Learning rate of the one step.
    #[arg(long, default_value_t = 0.5)]
    lr: f64,
    #[command(flatten)]
    device: DeviceArgument,
    /// Also write what is printed to this file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    common::exit::code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    if !arguments.lr.is_finite() {
        return Err(format!("--lr is {}: must be finite", arguments.lr).into());
    }
    let device = arguments.device.device.clone();
    let h = Tensor::new([0.2f32, 0.1, 0.4], &device)?.requires_grad(); // h_[CLS]: [H]
    let w = Tensor::new([[0.5f32, -0.3, 0.1], [-0.2, 0.4, 0.6]], &device)?.requires_grad(); // [classes, H]
    let b = Tensor::zeros(&[2], DType::F32, &device)?; // [classes], fixed
    let target = 1;

    let logits = h.linear(&w, &b)?;
    let loss = logits.cross_entropy(&[target])?;
    let gradients = loss.backward()?;
    let gradient = |of: &Tensor| gradients.get(of).ok_or("every leaf has a gradient");
    let (dh, dw) = (gradient(&h)?, gradient(&w)?);

    let step = |x: &Tensor, dx: &Tensor| x.sub(&dx.mul_scalar(arguments.lr)?);
    let after = no_grad(|| step(&h, &dh)?.linear(&step(&w, &dw)?, &b)?.softmax())?;

    let probabilities = logits.softmax()?.to_vec::<f32>()?;
    println!("probabilities   {probabilities:?}");
    println!("loss            {:.8}", loss.item()?);
    println!("d loss / d h    {dh}");
    println!("d loss / d W    {dw}");
    println!("after one step  {:?}", after.to_vec::<f32>()?);
    let values = |x: &Tensor| x.to_vec::<f32>();
    let report = json!({
        "probs": probabilities, "loss": loss.item()?, "grad_h": values(&dh)?,
        "grad_W": [values(&dw.narrow(0, 0, 1)?)?, values(&dw.narrow(0, 1, 1)?)?],
        "probs_after": values(&after)?,
    });
    common::write_json(arguments.json.as_deref(), &report)
}
