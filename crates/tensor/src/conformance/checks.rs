//! The checks of a case.

use super::{Case, Input};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::gradcheck::{check_gradients, weights};
use crate::gradients::Gradients;
use crate::tensor::Tensor;

/// Output values and the gradient of each input.
struct Outcome {
    output: Vec<f64>,
    gradients: Vec<Vec<f64>>,
}

fn run(function: &dyn Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) -> Result<Outcome> {
    let leaves: Vec<Tensor> = inputs.iter().map(|input| input.clone().requires_grad()).collect();
    let output = function(&leaves)?;
    let direction = Tensor::from_vec(weights(output.elements()), output.shape(), &Device::Cpu)?;
    let mut gradients = Gradients::new();
    output.backward_with(&direction.to_dtype(output.dtype())?.to_device(&output.device())?, &mut gradients)?;
    let values = |tensor: &Tensor| tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec::<f64>();
    let gradient = |leaf: &Tensor| match gradients.get(leaf) {
        Some(gradient) => values(&gradient),
        None => Ok(vec![0.0; leaf.elements()]),
    };
    Ok(Outcome { output: values(&output)?, gradients: leaves.iter().map(gradient).collect::<Result<_>>()? })
}

/// Returns the inputs, changed so that they differ from each other.
fn varied(inputs: &[Input]) -> Vec<Input> {
    inputs.iter().enumerate().map(|(index, input)| input.varied(index)).collect()
}

fn tensors(inputs: &[Input], dtype: DType) -> Vec<Tensor> {
    inputs.iter().map(|input| input.tensor_of([dtype; 2])).collect()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

/// Returns an error if two values differ by more than `tolerance` or if one of them is not finite.
fn compare(what: &str, a: &[f64], b: &[f64], tolerance: f64) -> Result<(), String> {
    if a.len() != b.len() {
        return Err(format!("{what}: {} against {} values", a.len(), b.len()));
    }
    for (index, (a, b)) in a.iter().zip(b).enumerate() {
        if !a.is_finite() || !b.is_finite() || (a - b).abs() > tolerance {
            return Err(format!("{what}[{index}]: {a:e} against {b:e}, tolerance {tolerance:e}"));
        }
    }
    Ok(())
}

/// Compares gradients in f64 with finite differences.
pub(super) fn finite_differences(case: &Case) -> Result<(), String> {
    let inputs = tensors(&varied(&case.inputs), DType::F64);
    check_gradients(&inputs, &case.function).map_err(|error| error.to_string())
}

/// Compares results for inputs and parameters in `dtypes` on `device` with results in f64 on the CPU.
pub(super) fn narrow_types(case: &Case, dtypes: [DType; 2], tolerance: f64, device: &Device) -> Result<(), String> {
    let inputs = varied(&case.inputs);
    narrow_types_of(case, &inputs, dtypes, tolerance, device)
}

/// As [`narrow_types`], for these inputs.
pub(super) fn narrow_types_of(
    case: &Case,
    inputs: &[Input],
    dtypes: [DType; 2],
    tolerance: f64,
    device: &Device,
) -> Result<(), String> {
    let expected = run(&case.function, &tensors(inputs, DType::F64)).map_err(|error| error.to_string())?;
    let there = inputs.iter().map(|input| input.tensor_of(dtypes).to_device(device)).collect::<Result<Vec<_>>>();
    let computed = there.and_then(|inputs| run(&case.function, &inputs)).map_err(|error| error.to_string())?;
    compare("output", &computed.output, &expected.output, tolerance * largest(&expected.output))?;
    let scale = expected.gradients.iter().map(|gradient| largest(gradient)).fold(0.0, f64::max);
    for (index, (computed, expected)) in computed.gradients.iter().zip(&expected.gradients).enumerate() {
        compare(&format!("gradient of input {index}"), computed, expected, tolerance * scale)?;
    }
    Ok(())
}

/// Compares results in f64 with a formula for the output and the gradients of the projected output, given its direction.
pub(super) fn formula(case: &Case, formula: &super::extremes::Formula) -> Result<(), String> {
    let computed = run(&case.function, &tensors(&case.inputs, DType::F64)).map_err(|error| error.to_string())?;
    let inputs: Vec<&[f64]> = case.inputs.iter().map(Input::values).collect();
    let (output, gradients) = formula(&inputs, &weights(computed.output.len()));
    let tolerance = |of: &[f64]| 1e-9 * largest(of).max(f64::MIN_POSITIVE);
    compare("output", &computed.output, &output, tolerance(&output))?;
    for (index, (computed, expected)) in computed.gradients.iter().zip(&gradients).enumerate() {
        compare(&format!("gradient of input {index}"), computed, expected, tolerance(expected))?;
    }
    Ok(())
}

/// Compares results for inputs in other memory layouts with results for row-major inputs.
pub(super) fn layouts(case: &Case) -> Result<(), String> {
    let inputs = varied(&case.inputs);
    let expected = run(&case.function, &tensors(&inputs, DType::F64)).map_err(|error| error.to_string())?;
    let scale = expected.gradients.iter().map(|gradient| largest(gradient)).fold(0.0, f64::max);
    for (name, arrange) in [("transposed", transposed as fn(&Tensor) -> Result<Tensor>), ("sliced", sliced)] {
        let arranged: Result<Vec<Tensor>> = tensors(&inputs, DType::F64).iter().map(arrange).collect();
        let computed = arranged.and_then(|inputs| run(&case.function, &inputs)).map_err(|error| error.to_string())?;
        let tolerance = 1e-11;
        compare(&format!("{name}: output"), &computed.output, &expected.output, tolerance * largest(&expected.output))?;
        for (index, (computed, expected)) in computed.gradients.iter().zip(&expected.gradients).enumerate() {
            compare(&format!("{name}: gradient of input {index}"), computed, expected, tolerance * scale)?;
        }
    }
    // Repeated in memory: every input is a single row, broadcast.
    let repeated = |input: &Tensor| match input.rank() {
        rank @ 1.. if input.size(0) > 0 => {
            let row = input.narrow(0, 0, 1)?;
            Ok((row.broadcast_to(input.shape())?, row.broadcast_to(input.shape())?.copied()?)).map(|pair| (pair, rank))
        }
        rank => Ok(((input.clone(), input.clone()), rank)),
    };
    let pairs: Result<Vec<_>> = tensors(&inputs, DType::F64).iter().map(repeated).collect();
    let (views, copies): (Vec<Tensor>, Vec<Tensor>) =
        pairs.map_err(|error| error.to_string())?.into_iter().map(|(pair, _)| pair).unzip();
    let expected = run(&case.function, &copies).map_err(|error| error.to_string())?;
    let computed = run(&case.function, &views).map_err(|error| error.to_string())?;
    compare("repeated: output", &computed.output, &expected.output, 1e-11 * largest(&expected.output))?;
    let scale = expected.gradients.iter().map(|gradient| largest(gradient)).fold(0.0, f64::max);
    for (computed, expected) in computed.gradients.iter().zip(&expected.gradients) {
        compare("repeated: gradient", computed, expected, 1e-11 * scale)?;
    }
    Ok(())
}

/// Returns the same elements in column-major order.
fn transposed(tensor: &Tensor) -> Result<Tensor> {
    let axes: Vec<usize> = (0..tensor.rank()).rev().collect();
    tensor.permute(&axes)?.copied()?.permute(&axes)
}

/// Returns the same elements as part of a larger tensor.
fn sliced(tensor: &Tensor) -> Result<Tensor> {
    let Some(last) = tensor.rank().checked_sub(1) else { return Ok(tensor.clone()) };
    let mut shape = tensor.shape().to_vec();
    shape[last] = 3;
    let border = Tensor::full(f64::NAN, &shape, tensor.dtype(), &tensor.device())?;
    Tensor::concat(&[&border, tensor, &border], last)?.narrow(last, 3, tensor.size(last))
}

/// Asserts that two functions have the same outputs and gradients, in f64.
pub(crate) fn assert_same_with_gradients(
    inputs: &[Input],
    a: impl Fn(&[Tensor]) -> Result<Tensor>,
    b: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let inputs = tensors(&varied(inputs), DType::F64);
    let (a, b) = (run(&a, &inputs).expect("the first runs"), run(&b, &inputs).expect("the second runs"));
    let tolerance = |of: &[f64]| 1e-11 * largest(of).max(1e-3);
    compare("output", &a.output, &b.output, tolerance(&b.output)).unwrap_or_else(|message| panic!("{message}"));
    for (a, b) in a.gradients.iter().zip(&b.gradients) {
        compare("gradient", a, b, tolerance(b)).unwrap_or_else(|message| panic!("{message}"));
    }
}
