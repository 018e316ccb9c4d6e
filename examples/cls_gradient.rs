//! The gradient at `[CLS]` in fine-tuning: the numeric example of the course, computed by the library's autograd. A
//! sentence is classified with the logits W h + b; the example prints its loss, the gradients, and the result of one
//! step of gradient descent.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze_examples::{DeviceArgument, Result};
use serde_json::json;

/// Computes the course's example of the gradient at [CLS].
#[derive(Parser)]
struct Arguments {
    /// Learning rate of the gradient descent step
    #[arg(long, default_value_t = 0.5)]
    lr: f64,
    #[command(flatten)]
    device: DeviceArgument,
    /// Also write the results to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    if !arguments.lr.is_finite() {
        return Err(format!("--lr is {}: must be finite", arguments.lr).into());
    }
    let device = arguments.device.open()?.clone();
    let h = Tensor::new([0.2f32, 0.1, 0.4], &device)?.requires_grad(); // h_[CLS]: [H]
    let w = Tensor::new([[0.5f32, -0.3, 0.1], [-0.2, 0.4, 0.6]], &device)?.requires_grad(); // [classes, H]
    let b = Tensor::zeros(&[2], DType::F32, &device)?; // [classes], fixed
    let target = 1;

    let logits = h.linear(&w, &b)?;
    let loss = logits.cross_entropy(&[target])?;
    let gradients = loss.backward()?;
    let gradient = |leaf: &Tensor| gradients.get(leaf).ok_or("a leaf has no gradient");
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
    cloze_examples::write_json(arguments.json.as_deref(), &report)
}
