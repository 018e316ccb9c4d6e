//! Conversion between element types.

use half::{bf16, f16};

use crate::autograd::differentiable;
use crate::ops::{element, on_device};
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
    bf16: bf16::to_f64, |x| bf16::from_f32(round_to_odd(x));
    f16: f16::to_f64, |x| f16::from_f32(round_to_odd(x));
    u32: f64::from, |x| x as u32;
    i64: |x| x as f64, |x| x as i64;
}

/// The f32 next to `value` whose last bit is 1, unless an f32 is exact. Rounding that to nearest gives a
/// two-byte type what rounding `value` itself would give, ties included (S. Boldo, G. Melquiond, "When double
/// rounding is odd", 2005).
#[inline(always)]
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) == value || !nearest.is_finite() {
        return nearest;
    }
    let away = f64::from(nearest).abs() > value.abs();
    f32::from_bits((nearest.to_bits() - u32::from(away)) | 1)
}

impl Tensor {
    /// The elements as another type, rounded to nearest, ties to even; integers are truncated and saturate. The gradient
    /// comes back in this tensor's type.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        const OP: &str = "to_dtype";
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        let source = self.values()?;
        let output = on_device!(
            source,
            cpu => element!(OP, self.dtype(), From => element!(OP, dtype, To => {
                let from = source.slice::<From>();
                Tensor::build(OP, self.shape(), &self.device(), |to: &mut [To]| {
                    to.iter_mut().zip(from).for_each(|(to, &from)| *to = <To as Convert>::from_f64(Convert::to_f64(from)));
                })?
            })),
            cuda => crate::cuda::elementwise::copied(OP, &source, dtype)?,
        );
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
    fn halves_are_rounded_once() -> Result<()> {
        // Just above and below a tie, at the tie, and subnormal; f64 that f32 would round to the tie.
        let floats = [1.0 + 1.0 / 256.0, 1.0039064, 1.0039061, 1.0 + 3.0 / 256.0, 1e-40, -65519.99, 3.4e38, 1.0009766, 1.0004884];
        let x = Tensor::from_slice(&floats, &[9], &Device::Cpu)?;
        assert_eq!(x.to_dtype(DType::BF16)?.to_vec::<bf16>()?, floats.map(bf16::from_f32));
        assert_eq!(x.to_dtype(DType::F16)?.to_vec::<f16>()?, floats.map(f16::from_f32));
        let wide = Tensor::new([1.00390625 + 1e-12, 1.00390625 - 1e-12, f64::MAX, f64::MIN, 1e-300], &Device::Cpu)?;
        let rounded = wide.to_dtype(DType::BF16)?.to_dtype(DType::F64)?.to_vec::<f64>()?;
        assert_eq!(rounded, [1.0078125, 1.0, f64::INFINITY, f64::NEG_INFINITY, 0.0]);
        assert!(Tensor::new(f64::NAN, &Device::Cpu)?.to_dtype(DType::F16)?.item()?.is_nan());
        Ok(())
    }

    #[test]
    fn rounds_to_nearest() -> Result<()> {
        let x = Tensor::new([1.0f32, -2.5, 1.0 + 1.0 / 256.0, 3.4e38], &Device::Cpu)?;
        let half = x.to_dtype(DType::BF16)?.to_dtype(DType::F32)?.to_vec::<f32>()?;
        assert_eq!(half[..3], [1.0, -2.5, 1.0]);
        assert_eq!(x.to_dtype(DType::I64)?.to_vec::<i64>()?[1], -2);
        assert_eq!(Tensor::new([u32::MAX], &Device::Cpu)?.to_dtype(DType::I64)?.to_vec::<i64>()?, [4294967295]);
        Ok(())
    }
}
