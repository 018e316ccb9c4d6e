//! Finding the first operation whose result is not finite.

use crate::cpu::real::Real;
use crate::device::Device;
use crate::dtype::DType;
use crate::element::float;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::watch::{self, NotFinite};

/// Runs `f` and returns an error for the first differentiable operation on this thread whose result contains a NaN or an
/// infinity. The error names the operation and the modules around it that use [`Inside::inside`](crate::Inside::inside).
///
/// This reads every element of every result, so use it to find out where a loss becomes NaN, not in every step.
///
/// ```
/// use cloze_tensor::{Device, Tensor, check_finite};
/// let x = Tensor::new(&[-1f32, 1.0], &Device::Cpu)?;
/// let error = check_finite(|| x.ln()?.exp()).unwrap_err();
/// assert_eq!(error.to_string(), "ln: the result has NaN at element 0");
/// # Ok::<(), cloze_tensor::Error>(())
/// ```
///
/// # Errors
/// Returns an error if a result is not finite, and the errors of `f`.
pub fn check_finite<R, E: From<Error>>(f: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
    watch::watching(|| {
        let result = f()?;
        watch::found().map_or(Ok(result), |found| Err(Error::from(found).into()))
    })
}

/// Looks at the result of an operation if [`check_finite`] is running on this thread.
pub(crate) fn look(op: &'static str, output: &Tensor) {
    watch::look(|| {
        let (position, value) = first(output).ok()??;
        Some(NotFinite { op, value, position })
    });
}

/// Returns the index and the value of the first element that is not finite.
fn first(tensor: &Tensor) -> Result<Option<(usize, f64)>> {
    let tensor = tensor.values()?.to_device(&Device::Cpu)?;
    if tensor.dtype().is_half() {
        return first(&tensor.to_dtype(DType::F32)?);
    }
    float!("check_finite", tensor.dtype(), T => {
        let values = tensor.slice::<T>();
        Ok(values.iter().position(|value| !value.is_finite()).map(|at| (at, values[at].to_f64())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::dtype::DType;
    use crate::error::Inside;

    #[test]
    fn the_first_one_is_named_with_its_modules() -> Result<()> {
        let x = Tensor::new([1f32, 200.0, 3.0], &Device::Cpu)?.requires_grad();
        let layer = |x: &Tensor| x.exp().inside("layer");
        let model = |x: &Tensor| layer(x)?.ln().inside("head");
        let error = check_finite(|| layer(&x.ln()?).and_then(|y| model(&y)).inside("model")).unwrap_err();
        assert_eq!(error.to_string(), "model.layer: exp: the result has inf at element 1");
        // Outside of `check_finite`, nothing is looked at.
        assert!(layer(&x).is_ok() && watch::found().is_none());
        let half = Tensor::new([1f32, f32::NEG_INFINITY], &Device::Cpu)?.to_dtype(DType::BF16)?;
        let error = check_finite(|| half.mul_scalar(1.0)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "to_dtype: the result has -inf at element 1",
            "operations on half floats convert them to f32 first"
        );
        assert!(check_finite(|| x.ln()).is_ok());
        Ok(())
    }
}
