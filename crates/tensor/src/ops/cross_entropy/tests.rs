//! Cross-entropies compared with their compositions and with torch.

use super::*;
use crate::conformance::{assert_same_with_gradients, normal};
use crate::device::Device;

#[test]
fn fused_equals_composed() {
    assert_same_with_gradients(
        &[normal(&[2, 9])],
        |x| x[0].cross_entropy(&[4, 0]),
        |x| {
            let y = x[0].log_softmax()?;
            let picked = y.narrow(0, 0, 1)?.narrow(1, 4, 1)?.add(&y.narrow(0, 1, 1)?.narrow(1, 0, 1)?)?;
            picked.reshape(&[])?.mul_scalar(-0.5)
        },
    );
    assert_same_with_gradients(
        &[normal(&[4, 9]), normal(&[4, 9])],
        |x| x[0].soft_cross_entropy(&x[1]),
        |x| x[0].log_softmax()?.mul(&x[1])?.sum(1)?.mean_all()?.mul_scalar(-1.0),
    );
}

const LOGITS: [[f64; 3]; 4] = [[0.5, -1.25, 2.0], [1.5, 0.25, -0.75], [-2.0, 0.125, 1.0], [3.0, -0.5, 0.0]];

/// Expected values from torch 2.15, in f64: `cross_entropy(logits, tensor([2, 0, -100, 1]), weight=weight,
/// label_smoothing=smoothing, reduction=...)` and its gradient in the logits.
#[test]
fn weights_and_smoothing_are_those_of_torch() -> Result<()> {
    let expected = [
        (
            None,
            0.1,
            1.427302635,
            4.281907904,
            [
                0.047828950,
                -0.000868864,
                -0.046960085,
                -0.071630997,
                0.057501090,
                0.014129907,
                0.000000000,
                0.000000000,
                0.000000000,
                0.297535308,
                -0.301790797,
                0.004255489,
            ],
        ),
        (
            Some(vec![0.5, 2.0, 1.25]),
            0.0,
            2.029335219,
            7.610007073,
            [
                0.058940061,
                0.010242247,
                -0.069182307,
                -0.037541288,
                0.027444881,
                0.010096407,
                0.000000000,
                0.000000000,
                0.000000000,
                0.493834270,
                -0.518420831,
                0.024586561,
            ],
        ),
        (
            Some(vec![0.5, 2.0, 1.25]),
            0.1,
            2.054965294,
            7.706119853,
            [
                0.054495616,
                -0.007535531,
                -0.046960085,
                -0.014283592,
                0.013783835,
                0.000499757,
                0.000000000,
                0.000000000,
                0.000000000,
                0.470871040,
                -0.483424494,
                0.012553453,
            ],
        ),
    ];
    for (class_weights, label_smoothing, mean, sum, gradient) in expected {
        for (reduction, expected) in [(Reduction::Mean, mean), (Reduction::Sum, sum)] {
            let class_weights = class_weights.clone();
            let settings = CrossEntropy { class_weights, label_smoothing, reduction, ..CrossEntropy::default() };
            let logits = Tensor::new(LOGITS, &Device::Cpu)?.requires_grad();
            let loss = logits.cross_entropy_with(&[2, 0, -100, 1], &settings)?;
            assert!((loss.item()? - expected).abs() < 1e-8, "{settings:?}: {}, not {expected}", loss.item()?);
            let factor = expected / mean;
            let Some(found) = loss.backward()?.get(&logits) else { panic!("no gradient") };
            for (found, expected) in found.to_vec::<f64>()?.into_iter().zip(gradient) {
                assert!((found - factor * expected).abs() < 1e-8, "{settings:?}: {found}, not {expected}");
            }
        }
    }
    Ok(())
}

#[test]
fn settings_that_make_no_sense_are_errors() -> Result<()> {
    let logits = Tensor::new(LOGITS, &Device::Cpu)?;
    let said = |targets: &[i64], class_weights: Option<&[f32]>, label_smoothing: f64| {
        let class_weights = class_weights.map(<[f32]>::to_vec);
        let settings = CrossEntropy { class_weights, label_smoothing, ..CrossEntropy::default() };
        logits.cross_entropy_with(targets, &settings).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let targets = [0, 1, 2, 0];
    assert!(said(&targets, Some(&[1.0; 2]), 0.0).contains("2 class weights given for 3 classes"));
    for weight in [-1.0, f32::NAN, f32::INFINITY] {
        let error = said(&targets, Some(&[1.0, weight, 1.0]), 0.0);
        assert!(
            error.contains(&format!("the weight of class 1 is {weight}, must be finite and at least 0")),
            "{error}"
        );
    }
    for smoothing in [-0.1, 1.5, f64::NAN] {
        let error = said(&targets, None, smoothing);
        assert!(error.contains(&format!("label_smoothing is {smoothing}, must be from 0 to 1")), "{error}");
    }
    let error = said(&[1, 1, -100, 1], Some(&[1.0, 0.0, 1.0]), 0.0);
    assert!(error.contains("the class weights of all 3 targets are 0, so there is no mean"), "{error}");
    Ok(())
}

#[test]
fn the_loss_of_half_logits_is_f32() -> Result<()> {
    let logits = Tensor::new([[0.5f32, -1.0, 2.25]], &Device::Cpu)?;
    let half = logits.to_dtype(DType::BF16)?.requires_grad();
    let loss = half.cross_entropy(&[1])?;
    assert_eq!(loss.dtype(), DType::F32);
    assert_eq!(loss.item()?, logits.cross_entropy(&[1])?.item()?);
    assert_eq!(loss.backward()?.get(&half).map(|gradient| gradient.dtype()), Some(DType::BF16));
    assert_eq!(half.detach().soft_cross_entropy(&half.detach().softmax()?)?.dtype(), DType::F32);
    Ok(())
}

#[test]
fn labels_out_of_range_are_named() -> Result<()> {
    let logits = Tensor::zeros(&[2, 3], DType::F32, &Device::Cpu)?;
    for label in [3, -1, i64::MIN] {
        let Err(error) = logits.cross_entropy(&[0, label]) else { panic!("{label} is out of range") };
        assert!(error.to_string().contains(&label.to_string()), "{error}");
    }
    Ok(())
}
