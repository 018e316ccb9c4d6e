//! Numbers at the edges, through the public interface: gradients of 0 and of 1e38, products of rows of zeros and of huge numbers
//! in every precision, vectors of zeros, and sequences of one token and of 512.
//!
//! The operations themselves are tested in `crates/tensor/src/conformance/extremes.rs`. `CLOZE_TEST_DEVICE=cuda` runs these on
//! the GPU.

use cloze::bert::cosine_similarity;
use cloze::prelude::*;
use cloze::tensor::{Gradients, Sequences};
use cloze::train::Optimizer;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn device() -> Result<Device> {
    Ok(std::env::var("CLOZE_TEST_DEVICE").unwrap_or_else(|_| "cpu".into()).parse()?)
}

/// AdamW in f64 over steps with these gradients, for a parameter that begins at 1: learning rate 1e-3, no weight decay.
fn adamw(gradients: &[f64]) -> f64 {
    let (mut p, mut m, mut v) = (1.0, 0.0, 0.0);
    for (step, g) in (1..).zip(gradients) {
        m += 0.1 * (g - m);
        v += 0.001 * (g * g - v);
        let corrected: f64 = v / (1.0 - 0.999f64.powi(step));
        p -= 1e-3 / (1.0 - 0.9f64.powi(step)) * m / (corrected.sqrt() + 1e-8);
    }
    p
}

/// The norm of the gradients is that of f64, even above the range of f32, and the step is AdamW's.
#[test]
fn steps_with_gradients_of_any_size() -> Result {
    let device = device()?;
    const COUNT: usize = 1000;
    // Without clipping, the squares of gradients must be in the range of f32, as in PyTorch.
    let cases = [
        (0.0, None),
        (0.0, Some(1.0)),
        (1e-30, None),
        (1e-30, Some(1.0)),
        (1e-12, None),
        (1.0, Some(1.0)),
        (1e10, None),
        (1e19, None),
        (1e20, Some(1.0)),
        (1e30, Some(1.0)),
        (3e38, Some(1.0)),
        (3e38, Some(1e10)),
    ];
    for (size, clip) in cases {
        let mut model = vec![Tensor::full(1.0, &[COUNT], cloze::tensor::DType::F32, &device)?];
        let settings = AdamW::new(1e-3).weight_decay(0.0);
        let mut optimizer = Optimizer::new(settings, &mut model, |_| true)?;
        let signs: Vec<f64> = (0..COUNT).map(|at| if at % 3 == 0 { -size } else { size }).collect();
        let factors = Tensor::from_vec(signs.iter().map(|&x| x as f32).collect(), &[COUNT], &device)?;
        let mut seen = Vec::new();
        for _ in 0..3 {
            // The gradient of the sum of the products is the other factor.
            optimizer.backward(&model[0].mul(&factors)?.sum_all()?)?;
            let norm = optimizer.step_at(&mut model, 1e-3, clip)?;
            let expected = (size as f32 as f64) * (COUNT as f64).sqrt();
            assert!((norm - expected).abs() <= 1e-6 * expected, "{size:e}: norm {norm:e}, not {expected:e}");
            seen.push(size as f32 as f64 * clip.map_or(1.0, |clip: f64| (clip / (norm + 1e-6)).min(1.0)));
        }
        let expected = adamw(&seen);
        for (at, p) in model[0].to_vec::<f32>()?.into_iter().enumerate() {
            let expected = if at % 3 == 0 { 2.0 - expected } else { expected };
            assert!((f64::from(p) - expected).abs() < 3e-7, "{size:e}, clipped to {clip:?}: {p}, not {expected}");
        }
    }
    Ok(())
}

/// Gradients that are not finite change nothing, and the error names the parameter.
#[test]
fn an_infinite_gradient_is_refused() -> Result {
    let device = device()?;
    let mut model = vec![Tensor::full(1.0, &[8], cloze::tensor::DType::F32, &device)?];
    let mut optimizer = Optimizer::new(AdamW::new(1e-3), &mut model, |_| true)?;
    let infinite = Tensor::full(f64::INFINITY, &[8], cloze::tensor::DType::F32, &device)?;
    optimizer.backward(&model[0].mul(&infinite)?.sum_all()?)?;
    let error = optimizer.step_at(&mut model, 1e-3, Some(1.0)).unwrap_err().to_string();
    assert!(error.contains("their norm is inf in optimizer step 1, first at 0: lower the learning rate"), "{error}");
    assert_eq!(model[0].to_vec::<f32>()?, [1.0; 8]);
    Ok(())
}

/// Rows of zeros, of tiny and of huge numbers: each row of a product is right relative to its own size.
#[test]
fn products_of_extreme_rows() -> Result {
    const WIDTH: usize = 192;
    let sizes = [0.0, 1e-3, 1.0, 1e3, 3e4, 0.0, 1e-1, 7.0];
    let number = |at: usize| ((at * 7919 % 1009) as f64 / 504.5 - 1.0) as f32;
    let x: Vec<f32> = (0..sizes.len() * WIDTH).map(|at| number(at) * sizes[at / WIDTH] as f32).collect();
    // A row of zeros and one large number among the weights too.
    let outputs = 40;
    let weight = |at: usize| match (at / WIDTH, at % WIDTH) {
        (3, _) => 0.0,
        (5, 7) => 1.0,
        _ => number(at + 5) / 16.0,
    };
    let w: Vec<f32> = (0..outputs * WIDTH).map(weight).collect();
    let dot = |row: usize, output: usize| -> f64 {
        (0..WIDTH).map(|k| f64::from(x[row * WIDTH + k]) * f64::from(w[output * WIDTH + k])).sum()
    };
    let device = device()?;
    let tensor = |values: &[f32], rows: usize| Tensor::from_slice(values, &[rows, WIDTH], &device);
    let (input, weights) = (tensor(&x, sizes.len())?, tensor(&w, outputs)?);
    let bias = Tensor::zeros(&[outputs], cloze::tensor::DType::F32, &device)?;
    // On a GPU, f16 products of f32 are scaled as a whole, so that the rows of 1e-3 beside those of 3e4 lose digits.
    for (precision, tolerance) in
        [(Precision::F32, 2e-6), (Precision::Bf16, 1e-2), (Precision::F16, 2e-2), (Precision::Int8, 5e-2)]
    {
        if !device.supports(precision) || (precision == Precision::Int8 && !device.is_cpu()) {
            continue;
        }
        let y = no_grad(|| precision.scope(|| input.linear(&weights, &bias)))?.to_vec::<f32>()?;
        for (row, size) in sizes.iter().enumerate() {
            let expected: Vec<f64> = (0..outputs).map(|output| dot(row, output)).collect();
            let largest = expected.iter().fold(0f64, |largest, y| largest.max(y.abs()));
            for (y, expected) in y[row * outputs..][..outputs].iter().zip(expected) {
                let difference = (f64::from(*y) - expected).abs();
                assert!(difference <= tolerance * largest, "{precision}, row of {size:e}: {y}, not {expected}");
            }
        }
    }
    Ok(())
}

/// The cosine with a vector of zeros is 0, and its gradient is finite.
#[test]
fn vectors_of_zeros() -> Result {
    assert_eq!(cosine_similarity(&[0.0; 4], &[1.0, 2.0, 3.0, 4.0]), 0.0);
    assert_eq!(cosine_similarity(&[0.0; 4], &[0.0; 4]), 0.0);
    assert_eq!(cosine_similarity(&[1e-30; 4], &[1e30; 4]), 1.0);
    assert_eq!(cosine_similarity(&[3e38; 4], &[-3e38; 4]), -1.0);
    Ok(())
}

/// One token, 512 tokens, and both in one batch, in every precision that trains: finite, and a sequence has the same vectors
/// whatever is beside it.
#[test]
fn sequences_of_one_token_and_of_512() -> Result {
    let device = device()?;
    let config = BertConfig { hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0, ..BertConfig::tiny(300) };
    let config = BertConfig { max_position_embeddings: 512, ..config };
    let model = BertModel::new(&config, &device, 5)?;
    let ids = |length: usize| (0..length).map(|at| (at * 7919 % 300) as u32).collect::<Vec<u32>>();
    let batch = |lengths: &[usize]| -> Result<Batch> {
        let all: Vec<u32> = lengths.iter().flat_map(|&length| ids(length)).collect();
        let types = vec![0; all.len()];
        Ok(Batch::packed(all, types, Sequences::new(lengths)?)?)
    };
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        if !device.supports(precision) {
            continue;
        }
        let vectors = |lengths: &[usize]| -> Result<Vec<f32>> {
            let batch = batch(lengths)?;
            let hidden = precision.scope(|| model.forward(&batch, Mode::Train { seed: 1, step: 0 }))?;
            let mut gradients = Gradients::new();
            precision.scope(|| hidden.mul(&hidden)?.mean_all()?.backward_into(&mut gradients))?;
            let mut parameters = 0;
            model.visit("", &mut |name, parameter| {
                if let Some(gradient) = gradients.get(parameter) {
                    parameters += 1;
                    let values = gradient.to_vec::<f32>().unwrap_or_default();
                    assert!(
                        !values.is_empty() && values.iter().all(|x| x.is_finite()),
                        "{precision}, {lengths:?}: {name}"
                    );
                }
            });
            assert!(parameters > 20, "{parameters} parameters have a gradient");
            Ok(hidden.to_vec::<f32>()?)
        };
        let (one, long, both) = (vectors(&[1])?, vectors(&[512])?, vectors(&[1, 512, 1])?);
        let together = [&one[..], &long, &one].concat();
        assert_eq!(both.len(), together.len());
        let worst = both.iter().zip(&together).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(both.iter().all(|x| x.is_finite()) && worst < 2e-5, "{precision}: {worst}");
    }
    Ok(())
}
