//! Operations that a program defines itself.

use crate::autograd::{differentiable, no_grad};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Dims;
use crate::tensor::Tensor;

/// Runs an operation of one's own on `inputs`, with its own backward, and records it in the graph.
///
/// `forward` gets the inputs and returns the result and what `backward` reads. `backward` gets that and the gradient of the
/// result, in its shape, type and place, and returns the gradient of each input, or `None` for an input that has none. Both
/// run without recording a graph, so they may use any operation, also one without a backward, or read the elements with
/// [`Tensor::to_vec`]. `backward` runs only if an input requires a gradient.
///
/// `name` stands in errors and [profiles](crate::profile). [`check_gradients`](crate::check_gradients) tests the backward.
///
/// ```
/// use cloze_tensor::{check_gradients, custom_op, Device, Result, Tensor};
///
/// /// x σ(x), keeping x alone instead of x and σ(x).
/// fn swish(x: &Tensor) -> Result<Tensor> {
///     custom_op(
///         "swish",
///         [x],
///         |[x]| Ok((x.mul(&x.sigmoid()?)?, [x.clone()])),
///         |[x], gradient| {
///             let s = x.sigmoid()?;
///             let slope = (&s + (&(&x * &s)? * (1.0 - &s)?)?)?;
///             Ok([Some((gradient * slope)?)])
///         },
///     )
/// }
///
/// let x = Tensor::new([-1f32, 0.0, 2.0], &Device::Cpu)?.requires_grad();
/// let gradients = swish(&x)?.sum_all()?.backward()?;
/// assert_eq!(gradients.get(&x).unwrap().to_vec::<f32>()?[1], 0.5);
/// check_gradients(&[x], |x| swish(&x[0]))?;
/// # Ok::<(), cloze_tensor::Error>(())
/// ```
///
/// # Errors
/// Returns the error of `forward`. The backward pass returns that of `backward`, or says which gradient differs from its
/// input in shape, type or device.
pub fn custom_op<const INPUTS: usize, const SAVED: usize>(
    name: &'static str,
    inputs: [&Tensor; INPUTS],
    forward: impl FnOnce([&Tensor; INPUTS]) -> Result<(Tensor, [Tensor; SAVED])>,
    backward: impl FnOnce([Tensor; SAVED], Tensor) -> Result<[Option<Tensor>; INPUTS]> + Send + 'static,
) -> Result<Tensor> {
    let (output, saved) = no_grad(|| forward(inputs))?;
    // A result that is one of the inputs, or that the program has kept, is not to get this operation as its origin.
    let output = output.detach();
    let forms = inputs.map(|input| (input.dims(), input.dtype(), input.device()));
    let saved: [&Tensor; SAVED] = std::array::from_fn(|index| &saved[index]);
    Ok(differentiable(name, inputs, saved, output, move |saved, gradient, slots| {
        let gradients = backward(saved, gradient)?;
        for (index, ((slot, gradient), form)) in slots.into_iter().zip(gradients).zip(forms).enumerate() {
            let Some(gradient) = gradient else { continue };
            let found = (gradient.dims(), gradient.dtype(), gradient.device());
            if found != form {
                return Err(differs(name, index, found, form));
            }
            slot.give_with(|| gradient.values())?;
        }
        Ok(())
    }))
}

type Form = (Dims, DType, crate::device::Device);

fn differs(name: &'static str, index: usize, found: Form, wanted: Form) -> Error {
    let form = |(dims, dtype, device): Form| format!("{dims:?} {dtype} on {device}");
    let reason = format!("the gradient of input {index} is {}, the input is {}", form(found), form(wanted));
    Error::gradient(name, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    /// The product of two numbers, whose gradients are those that are given.
    fn product(x: [&Tensor; 2], gradients: [Option<Tensor>; 2]) -> Result<Tensor> {
        custom_op("product", x, |[a, b]| Ok((a.mul(b)?, [])), move |[], _| Ok(gradients))
    }

    #[test]
    fn gradients_that_do_not_fit_are_errors() -> Result<()> {
        let a = Tensor::new([1f32, 2.0], &Device::Cpu)?.requires_grad();
        let b = Tensor::new([3f32, 4.0], &Device::Cpu)?.requires_grad();
        let loss = |gradients| product([&a, &b], gradients)?.sum_all();
        let error =
            loss([None, Some(Tensor::new([1f32], &Device::Cpu)?)])?.backward().err().expect("the shapes differ");
        let message = "product: the gradient of input 1 is [1] f32 on cpu, the input is [2] f32 on cpu";
        assert_eq!(error.to_string(), message);
        assert!(loss([Some(Tensor::new([1f64, 2.0], &Device::Cpu)?), None])?.backward().is_err());
        // An input without a gradient has none.
        let gradients = loss([None, Some(a.detach())])?.backward()?;
        assert!(gradients.get(&a).is_none());
        assert_eq!(gradients.get(&b).expect("it was given").to_vec::<f32>()?, [1.0, 2.0]);
        Ok(())
    }

    #[test]
    fn an_operation_may_return_its_input_and_is_not_recorded_without_a_gradient() -> Result<()> {
        let identity = |x: &Tensor| custom_op("identity", [x], |[x]| Ok((x.clone(), [])), |[], dy| Ok([Some(dy)]));
        let constant = Tensor::new([1f32, 2.0], &Device::Cpu)?;
        assert!(!identity(&constant)?.tracks_grad());
        let x = constant.requires_grad();
        let twice = identity(&identity(&x)?)?.add(&x)?.sum_all()?;
        assert_eq!(twice.backward()?.get(&x).expect("x requires a gradient").to_vec::<f32>()?, [2.0, 2.0]);
        assert!(!no_grad(|| identity(&x))?.tracks_grad());
        Ok(())
    }

    #[test]
    fn inputs_that_need_no_gradient_get_none() -> Result<()> {
        let a = Tensor::new([1f32, 2.0], &Device::Cpu)?.requires_grad();
        let b = Tensor::new([3f32, 4.0], &Device::Cpu)?;
        let gradients = product([&a, &b], [Some(b.clone()), Some(a.detach())])?.sum_all()?.backward()?;
        assert_eq!(gradients.get(&a).expect("a requires a gradient").to_vec::<f32>()?, [3.0, 4.0]);
        assert!(gradients.get(&b).is_none());
        Ok(())
    }
}
