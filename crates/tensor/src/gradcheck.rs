//! Compares gradients with finite differences.

use crate::autograd::no_grad;
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gradients::Gradients;
use crate::random::{Purpose, Stream};
use crate::tensor::Tensor;

/// Half of the distance between the inner points, a power of two, so that the points are exact.
const STEP: f64 = 1.0 / 1024.0;
/// The largest difference, relative to the largest gradient.
const TOLERANCE: f64 = 1e-6;
/// The approximate number of elements that are checked of a larger input.
const SAMPLE: usize = 48;

/// Checks the gradients of `function` at `inputs` against central differences, in f64.
///
/// The outputs are multiplied with fixed weights and summed, so that there is one number to differentiate. Gradients
/// may differ from the differences (four points, an error of fourth order) by 10⁻⁶ of the largest one. Of an input with
/// more than 96 elements, a sample is checked. This is the check that every operation of this crate passes.
///
/// The inputs are converted to f64 on the CPU, so `function` has to work with that type. It must be deterministic, and
/// smooth within 1/512 of the inputs: not [`relu`](Tensor::relu) near 0.
///
/// ```
/// use cloze_tensor::{check_gradients, Device, Tensor};
/// let x = Tensor::new([[0.3f64, -1.2], [0.8, 2.0]], &Device::Cpu)?;
/// check_gradients(&[x.clone()], |x| x[0].tanh()?.matmul(&x[0]))?;
/// // A value that is detached has no gradient, which is noticed.
/// let error = check_gradients(&[x], |x| x[0].mul(&x[0].detach())).unwrap_err();
/// assert!(error.to_string().contains("the gradient of input 0 at element 0 is"));
/// # Ok::<(), cloze_tensor::Error>(())
/// ```
///
/// # Errors
/// Returns an error that names the input, the element and both values if a gradient is wrong; and the errors of `function`.
pub fn check_gradients(inputs: &[Tensor], function: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
    let inputs = inputs.iter().map(|input| input.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64));
    let inputs = inputs.collect::<Result<Vec<Tensor>>>()?;
    let (value, gradients) = differentiate(&inputs, &function)?;
    let scale = gradients.iter().flatten().fold(0.0f64, |largest, gradient| largest.max(gradient.abs()));
    // Allows for the rounding of the sums, divided by the step.
    let tolerance = TOLERANCE * scale.max(f64::MIN_POSITIVE) + 1e-13 * value.abs() / STEP;
    for (which, (input, gradients)) in inputs.iter().zip(&gradients).enumerate() {
        let elements = input.to_vec::<f64>()?;
        let at = |index: usize, by: f64| {
            let mut elements = elements.clone();
            elements[index] += by;
            let mut inputs = inputs.clone();
            inputs[which] = Tensor::from_vec(elements, input.shape(), &Device::Cpu)?;
            weighted_sum(&no_grad(|| function(&inputs))?)
        };
        for index in (0..elements.len()).step_by((elements.len() / SAMPLE).max(1)) {
            let inner = at(index, STEP)? - at(index, -STEP)?;
            let outer = at(index, 2.0 * STEP)? - at(index, -2.0 * STEP)?;
            let (difference, gradient) = ((8.0 * inner - outer) / (12.0 * STEP), gradients[index]);
            let is_near = (difference - gradient).abs() <= tolerance;
            if !is_near {
                let reason = format!(
                    "the gradient of input {which} at element {index} is {gradient:e}, differences give {difference:e}, \
                     tolerance {tolerance:e}"
                );
                return Err(Error::gradient("check_gradients", reason));
            }
        }
    }
    Ok(())
}

/// Returns the weighted sum of the outputs, and its gradient with respect to each input.
fn differentiate(inputs: &[Tensor], function: &impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<(f64, Vec<Vec<f64>>)> {
    let leaves: Vec<Tensor> = inputs.iter().map(|input| input.clone().requires_grad()).collect();
    let output = function(&leaves)?;
    let value = weighted_sum(&output.detach())?;
    let weights = Tensor::from_vec(weights(output.elements()), output.shape(), &Device::Cpu)?;
    let mut gradients = Gradients::new();
    output.backward_with(&weights.to_dtype(output.dtype())?, &mut gradients)?;
    let gradient = |leaf: &Tensor| match gradients.get(leaf) {
        Some(gradient) => gradient.to_vec::<f64>(),
        None => Ok(vec![0.0; leaf.elements()]),
    };
    Ok((value, leaves.iter().map(gradient).collect::<Result<_>>()?))
}

fn weighted_sum(output: &Tensor) -> Result<f64> {
    let values = output.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec::<f64>()?;
    Ok(values.iter().zip(weights(values.len())).map(|(value, weight)| value * weight).sum())
}

/// Returns weights from 0.5 to 1.5, which are exact in every float type.
pub(crate) fn weights(count: usize) -> Vec<f64> {
    let mut stream = Stream::new(99, Purpose::User, 0, 0, 0);
    (0..count).map(|_| half::bf16::from_f64(stream.uniform() + 0.5).to_f64()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_gradient_is_named() -> Result<()> {
        let x = Tensor::new([1f32, 2.0, 3.0], &Device::Cpu)?;
        check_gradients(&[x.clone(), x.clone()], |x| x[0].mul(&x[1])?.mul(&x[0]))?;
        let error = check_gradients(&[x.clone(), x], |x| x[0].add(&x[1].detach())).unwrap_err();
        assert!(error.to_string().contains("the gradient of input 1 at element 0 is 0e0"), "{error}");
        Ok(())
    }
}
