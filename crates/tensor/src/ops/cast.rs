//! Conversion between element types.

use crate::autograd::{differentiable, non_differentiable};
use crate::copy::copied;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// Converts the elements to another type: rounds to nearest, ties to even; integers are truncated and saturate. The
    /// gradient comes back in this tensor's type.
    ///
    /// # Errors
    /// Returns an error if a gradient is required and `dtype` is not a float type.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        const OP: &str = "to_dtype";
        let from = self.dtype();
        if dtype == from {
            return Ok(self.clone());
        }
        let output = copied(&self.values()?, OP, dtype)?;
        if !dtype.is_float() {
            return non_differentiable(OP, &[self], output);
        }
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
    use half::{bf16, f16};

    use super::*;
    use crate::device::Device;

    #[test]
    fn halves_are_rounded_once() -> Result<()> {
        // Just above and below a tie, at the tie, and subnormal; f64 that f32 would round to the tie.
        let floats = [
            1.0 + 1.0 / 256.0,
            1.0039064,
            1.0039061,
            1.0 + 3.0 / 256.0,
            1e-40,
            -65519.99,
            3.4e38,
            1.0009766,
            1.0004884,
        ];
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
