//! Finding the operation whose result is the first that is not finite.

use std::cell::RefCell;

use crate::cpu::Real;
use crate::ops::float;
use crate::tensor::Tensor;
use crate::{Error, ErrorKind, Result};

enum Watch {
    Off,
    On,
    Found(Error),
}

thread_local! {
    static WATCH: RefCell<Watch> = const { RefCell::new(Watch::Off) };
}

/// Runs `f`, which fails at the first differentiable operation of this thread whose result has a NaN or an infinity.
/// The error names it, and the modules that it is inside of: those that pass their results through
/// [`Inside::inside`](crate::Inside::inside). It looks at every element of every result: for finding out, not for
/// every step.
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
/// As said, and those of `f`.
pub fn check_finite<R, E: From<Error>>(f: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
    struct Restore(Watch);
    impl Drop for Restore {
        fn drop(&mut self) {
            WATCH.replace(std::mem::replace(&mut self.0, Watch::Off));
        }
    }
    let _restore = Restore(WATCH.replace(Watch::On));
    let result = f()?;
    found().map_or(Ok(result), |error| Err(error.into()))
}

/// The error that is to be told, if one was found and has not been.
pub(crate) fn found() -> Option<Error> {
    WATCH.with_borrow_mut(|watch| match std::mem::replace(watch, Watch::Off) {
        Watch::Found(error) => Some(error),
        other => {
            *watch = other;
            None
        }
    })
}

/// Looks at the result of an operation, where that was asked for.
pub(crate) fn look(op: &'static str, output: &Tensor) {
    if !WATCH.with_borrow(|watch| matches!(watch, Watch::On)) {
        return;
    }
    // What is done to look is not looked at.
    WATCH.set(Watch::Off);
    WATCH.set(match first(output) {
        Ok(Some((position, value))) => Watch::Found(ErrorKind::NotFinite { op, value, position }.into()),
        _ => Watch::On,
    });
}

/// The first element that is not finite, and where it is.
fn first(tensor: &Tensor) -> Result<Option<(usize, f64)>> {
    let tensor = tensor.values()?.to_device(&crate::Device::Cpu)?;
    if tensor.dtype().is_half() {
        return first(&tensor.to_dtype(crate::DType::F32)?);
    }
    float!("check_finite", tensor.dtype(), T => {
        let values = tensor.slice::<T>();
        Ok(values.iter().position(|value| !value.is_finite()).map(|at| (at, values[at].to_f64())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Device, Inside};

    #[test]
    fn the_first_one_is_named_with_its_modules() -> Result<()> {
        let x = Tensor::new([1f32, 200.0, 3.0], &Device::Cpu)?.requires_grad();
        let layer = |x: &Tensor| x.exp().inside("layer");
        let model = |x: &Tensor| layer(x)?.ln().inside("head");
        let error = check_finite(|| layer(&x.ln()?).and_then(|y| model(&y)).inside("model")).unwrap_err();
        assert_eq!(error.to_string(), "model.layer: exp: the result has inf at element 1");
        // Nobody asked any more.
        assert!(layer(&x).is_ok() && found().is_none());
        let half = Tensor::new([1f32, f32::NEG_INFINITY], &Device::Cpu)?.to_dtype(DType::BF16)?;
        let error = check_finite(|| half.mul_scalar(1.0)).unwrap_err();
        assert_eq!(error.to_string(), "to_dtype: the result has -inf at element 1", "half floats are computed in f32");
        assert!(check_finite(|| x.ln()).is_ok());
        Ok(())
    }
}
