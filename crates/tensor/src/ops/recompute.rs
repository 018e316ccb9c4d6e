//! Gradient checkpointing (T. Chen, B. Xu, C. Zhang, C. Guestrin, "Training deep nets with sublinear memory cost", 2016):
//! only the input of a part of the model is kept, and the backward computes that part again, this time with a graph.
//!
//! The result is bit-identical, because every random draw is a function of its purpose and coordinates.

use std::fmt::Display;

use crate::autograd::{differentiable_many, is_recorded, no_grad, with_grad};
use crate::error::{Error, Result};
use crate::gradients::Gradients;
use crate::module::Module;
use crate::precision::Precision;
use crate::tensor::Tensor;

/// Computes `f(module, x)` and keeps only `x` for the backward. `f` may only depend on `module`, `x` and constants.
///
/// ```
/// use cloze_tensor::{Device, Tensor, recompute};
/// let x = Tensor::new(&[1f32, 2.0], &Device::Cpu)?.requires_grad();
/// let weight = Tensor::new(&[3f32, 4.0], &Device::Cpu)?.requires_grad();
/// let y = recompute(&weight, &x, |weight, x| weight.mul(x)?.exp()?.ln())?;
/// let gradients = y.sum_all()?.backward()?;
/// assert_eq!(gradients.get(&weight).expect("wanted").to_vec::<f32>()?, [1.0, 2.0]);
/// # Ok::<(), cloze_tensor::Error>(())
/// ```
///
/// # Errors
/// Returns the errors of `f`.
pub fn recompute<M, E>(
    module: &M,
    x: &Tensor,
    f: impl Fn(&M, &Tensor) -> Result<Tensor, E> + Send + 'static,
) -> Result<Tensor, E>
where
    M: Module + Clone + Send + 'static,
    E: From<Error> + Display,
{
    const OP: &str = "recompute";
    let mut inputs = vec![x.clone()];
    module.visit("", &mut |_, parameter| inputs.push(parameter.clone()));
    let inputs: Vec<&Tensor> = inputs.iter().filter(|input| input.tracks_grad()).collect();
    if !is_recorded(&inputs) {
        return f(module, x);
    }
    let output = no_grad(|| f(module, x))?;
    let (module, x, precision) = (module.clone(), x.clone(), Precision::current());
    let backward = move |leaves: Vec<Tensor>, gradient: Tensor, slots: Vec<crate::gradients::Slot<'_>>| {
        // The inner graph ends at a leaf that replaces x, whatever x was computed from.
        let leaf = if x.tracks_grad() { x.detach().requires_grad() } else { x.detach() };
        let again = with_grad(|| precision.scope(|| f(&module, &leaf)));
        let again = again.map_err(|error| Error::gradient(OP, error.to_string()))?;
        let mut gradients = Gradients::new();
        again.backward_with(&gradient, &mut gradients)?;
        let parameters = &leaves[usize::from(x.tracks_grad())..];
        let of_x = x.tracks_grad().then_some(&leaf);
        for (input, slot) in of_x.into_iter().chain(parameters).zip(slots) {
            gradients.take(input).map_or(Ok(()), |gradient| slot.give(gradient))?;
        }
        Ok(())
    };
    Ok(differentiable_many(OP, &inputs, &inputs, output, backward))
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    use crate::gelu::Gelu;
    let inputs = || [normal(&[4, 5]), normal(&[3, 5]), normal(&[3])];
    cases.add("recompute", "of input and parameters", inputs(), |x| {
        let layer = vec![x[1].clone(), x[2].clone()];
        recompute(&layer, &x[0], |layer, x| x.linear(&layer[0], &layer[1])?.gelu(Gelu::Erf))
    });
    cases.add("recompute", "of a computed input, used twice", inputs(), |x| {
        let layer = vec![x[1].clone(), x[2].clone()];
        let y = recompute(&layer, &x[0].tanh()?, |layer, x| x.mul(x)?.linear(&layer[0], &layer[1]))?;
        y.add(&recompute(&layer, &x[0], |layer, x| x.linear(&layer[0], &layer[1]))?)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn keeps_nothing_but_its_input() -> Result<()> {
        let x = Tensor::new([1f32, -2.0], &Device::Cpu)?.requires_grad();
        let frozen: Vec<Tensor> = vec![Tensor::new([3f32, 4.0], &Device::Cpu)?];
        let kept = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = kept.clone();
        let y = recompute(&frozen, &x, move |frozen, x| {
            let y = x.exp()?;
            seen.lock().expect("one thread").push(y.tracks_grad());
            y.mul(&frozen[0])
        })?;
        let gradients = y.sum_all()?.backward()?;
        assert_eq!(*kept.lock().expect("one thread"), [false, true], "forward without a graph, backward with one");
        let want: Vec<f32> = vec![3.0 * 1f32.exp(), 4.0 * (-2f32).exp()];
        let found = gradients.get(&x).expect("wanted").to_vec::<f32>()?;
        assert!(found.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
        assert!(gradients.get(&frozen[0]).is_none());
        Ok(())
    }
}
