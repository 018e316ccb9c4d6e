//! Conversion between element types.

use half::{bf16, f16};

use crate::autograd::differentiable;
use crate::ops::{element, wrong_dtype};
use crate::tensor::Tensor;
use crate::{DType, Result};

/// Conversion through f64, which holds every element exactly (i64 up to 2^53).
trait Convert {
    fn to_f64(self) -> f64;
    fn from_f64(value: f64) -> Self;
}

macro_rules! convert {
    ($($type:ty: $to:expr, $from:expr);* $(;)?) => {$(
        impl Convert for $type {
            #[inline(always)]
            fn to_f64(self) -> f64 {
                $to(self)
            }
            #[inline(always)]
            fn from_f64(value: f64) -> $type {
                $from(value)
            }
        }
    )*};
}
convert! {
    f32: f64::from, |x| x as f32;
    f64: |x| x, |x| x;
    bf16: bf16::to_f64, bf16::from_f64;
    f16: f16::to_f64, f16::from_f64;
    u32: f64::from, |x| x as u32;
    i64: |x| x as f64, |x| x as i64;
}

impl Tensor {
    /// The elements as another type, rounded to nearest; integers are truncated and saturate. The gradient
    /// comes back in this tensor's type.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        const OP: &str = "to_dtype";
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        if dtype == DType::Bool || self.dtype() == DType::Bool {
            return Err(wrong_dtype(OP, "tensor", DType::Bool, "a numeric type"));
        }
        let source = self.detach().contiguous()?;
        let output = element!(OP, self.dtype(), From => element!(OP, dtype, To => {
            let from = source.slice::<From>();
            Tensor::build(OP, self.shape(), &self.device(), |to: &mut [To]| {
                to.iter_mut().zip(from).for_each(|(to, &from)| *to = To::from_f64(from.to_f64()));
            })?
        }));
        if !dtype.is_float() {
            return crate::autograd::non_differentiable(OP, &[self], output);
        }
        let from = self.dtype();
        Ok(differentiable(OP, [self], [], output, move |[], dy, [dx]| dx.give_with(|| dy.to_dtype(from))))
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    // There and back, because the harness compares outputs of one type.
    cases.add("to_dtype", "f32 and back", [normal(&[3, 5])], |x| x[0].to_dtype(DType::F32)?.to_dtype(x[0].dtype()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn rounds_to_nearest() -> Result<()> {
        let x = Tensor::new(&[1.0f32, -2.5, 1.00390625, 3.4e38], &Device::Cpu)?;
        let half = x.to_dtype(DType::BF16)?.to_dtype(DType::F32)?.to_vec::<f32>()?;
        assert_eq!(half[..3], [1.0, -2.5, 1.0]);
        assert_eq!(x.to_dtype(DType::I64)?.to_vec::<i64>()?[1], -2);
        assert_eq!(Tensor::new(&[u32::MAX], &Device::Cpu)?.to_dtype(DType::I64)?.to_vec::<i64>()?, [4294967295]);
        Ok(())
    }
}
