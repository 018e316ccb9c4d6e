//! Functions of every element and a number.

use std::cmp::Ordering;

use crate::cpu::{Target, elementwise};
use crate::dispatch::{Float, Keep, Op, apply};
use crate::error::{Error, Result};
use crate::layout::Dims;
use crate::tensor::Tensor;

impl Tensor {
    /// Computes `self + value`.
    pub fn add_scalar(&self, value: f64) -> Result<Tensor> {
        apply(Scalar::Shift(value), [self])
    }

    /// Computes `self * value`.
    pub fn mul_scalar(&self, value: f64) -> Result<Tensor> {
        apply(Scalar::Scale(value), [self])
    }

    /// Computes `self` to the power of `exponent`, elementwise. The derivative is `exponent x^(exponent - 1)`. A negative
    /// number to a power that is not whole is NaN.
    pub fn pow(&self, exponent: f64) -> Result<Tensor> {
        apply(Curve::Power(exponent), [self])
    }

    /// Limits every element to the range from `min` to `max`, of which either may be infinite. The derivative is 1 within
    /// the range and at its ends, and 0 outside.
    ///
    /// # Errors
    /// Returns an error if `min` is above `max`, or one of them is NaN.
    pub fn clamp(&self, min: f64, max: f64) -> Result<Tensor> {
        if min.partial_cmp(&max).is_none_or(Ordering::is_gt) {
            return Err(Error::invalid("clamp", format!("there is nothing from {min} to {max}")));
        }
        match (min > f64::NEG_INFINITY, max < f64::INFINITY) {
            (true, true) => apply(Curve::AtMost(max), [&apply(Curve::AtLeast(min), [self])?]),
            (true, false) => apply(Curve::AtLeast(min), [self]),
            _ => apply(Curve::AtMost(max), [self]),
        }
    }
}

/// A linear function.
#[derive(Clone, Copy)]
pub(crate) enum Scalar {
    Shift(f64),
    Scale(f64),
}

impl Op<1, 1, 0> for Scalar {
    const OPERANDS: [&'static str; 1] = ["tensor"];

    fn name(&self) -> &'static str {
        match self {
            Scalar::Shift(_) => "add_scalar",
            Scalar::Scale(_) => "mul_scalar",
        }
    }

    fn shapes(&self, [x]: [&Tensor; 1]) -> Result<[Dims; 1]> {
        Ok([x.dims()])
    }

    fn forward<T: Float>(&mut self, [x]: [&[T]; 1], [y]: [&mut [T]; 1]) {
        match *self {
            Scalar::Shift(value) => elementwise::map(x, y, |x| x + T::from_f64(value)),
            Scalar::Scale(value) => elementwise::map(x, y, |x| x * T::from_f64(value)),
        }
    }

    fn keeps(&self) -> [Keep; 0] {
        []
    }

    fn backward<T: Float>(&self, []: [&[T]; 0], dy: &[T], [dx]: [Option<Target<'_, T>>; 1]) {
        let Some(dx) = dx else { return };
        let slope = match *self {
            Scalar::Shift(_) => T::ONE,
            Scalar::Scale(value) => T::from_f64(value),
        };
        elementwise::chain(dy, dy, dx, |_| slope);
    }
}

/// A function that is not linear, whose derivative is computed from its input.
#[derive(Clone, Copy)]
pub(crate) enum Curve {
    Power(f64),
    AtLeast(f64),
    AtMost(f64),
}

impl Op<1, 1, 1> for Curve {
    const OPERANDS: [&'static str; 1] = ["tensor"];

    fn name(&self) -> &'static str {
        match self {
            Curve::Power(_) => "pow",
            Curve::AtLeast(_) | Curve::AtMost(_) => "clamp",
        }
    }

    fn shapes(&self, [x]: [&Tensor; 1]) -> Result<[Dims; 1]> {
        Ok([x.dims()])
    }

    fn forward<T: Float>(&mut self, [x]: [&[T]; 1], [y]: [&mut [T]; 1]) {
        match *self {
            Curve::Power(2.0) => elementwise::map(x, y, |x| x * x),
            Curve::Power(exponent) => elementwise::map(x, y, |x| x.powf(exponent)),
            // A NaN stays one.
            Curve::AtLeast(min) => {
                let min = T::from_f64(min);
                elementwise::map(x, y, |x| if x < min { min } else { x });
            }
            Curve::AtMost(max) => {
                let max = T::from_f64(max);
                elementwise::map(x, y, |x| if x > max { max } else { x });
            }
        }
    }

    fn keeps(&self) -> [Keep; 1] {
        [Keep::Input(0)]
    }

    fn backward<T: Float>(&self, [x]: [&[T]; 1], dy: &[T], [dx]: [Option<Target<'_, T>>; 1]) {
        let Some(dx) = dx else { return };
        let one_if = |is_inside| if is_inside { T::ONE } else { T::ZERO };
        match *self {
            // The formula gives 0 times infinity for 0.
            Curve::Power(0.0) => elementwise::chain(x, dy, dx, |_| T::ZERO),
            Curve::Power(2.0) => elementwise::chain(x, dy, dx, |x| x + x),
            Curve::Power(exponent) => {
                elementwise::chain(x, dy, dx, |x| T::from_f64(exponent) * x.powf(exponent - 1.0));
            }
            Curve::AtLeast(min) => elementwise::chain(x, dy, dx, |x| one_if(x >= T::from_f64(min))),
            Curve::AtMost(max) => elementwise::chain(x, dy, dx, |x| one_if(x <= T::from_f64(max))),
        }
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::{normal, positive};
    cases.add("add_scalar", "", [normal(&[5])], |x| x[0].add_scalar(0.25));
    cases.add("mul_scalar", "", [normal(&[5, 2])], |x| x[0].mul_scalar(-1.5));
    for (label, exponent) in [("0", 0.0), ("1", 1.0), ("square", 2.0), ("cube", 3.0)] {
        cases.add("pow", label, [normal(&[4, 5])], move |x| x[0].pow(exponent));
    }
    for (label, exponent) in [("root", 0.5), ("inverse square", -2.0), ("1.7", 1.7)] {
        cases.add("pow", label, [positive(&[33])], move |x| x[0].pow(exponent));
    }
    // The ends are no numbers that occur, because finite differences do not exist there.
    cases.add("clamp", "both", [normal(&[5, 17])], |x| x[0].clamp(-0.703, 0.501));
    cases.add("clamp", "min", [normal(&[40])], |x| x[0].clamp(0.103, f64::INFINITY));
    cases.add("clamp", "max", [normal(&[40])], |x| x[0].clamp(f64::NEG_INFINITY, 0.103));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn ends_zeros_and_nans() -> Result<()> {
        let x = Tensor::new([-2.0f32, -1.0, 0.0, 1.0, 2.0, f32::NAN], &Device::Cpu)?.requires_grad();
        let clamped = x.clamp(-1.0, 1.0)?;
        let values = clamped.to_vec::<f32>()?;
        assert_eq!(values[..5], [-1.0, -1.0, 0.0, 1.0, 1.0]);
        assert!(values[5].is_nan());
        let gradients = clamped.narrow(0, 0, 5)?.sum_all()?.backward()?;
        let dx = gradients.get(&x).expect("x requires a gradient").to_vec::<f32>()?;
        assert_eq!(dx[..5], [0.0, 1.0, 1.0, 1.0, 0.0]);
        for (exponent, slope) in [(0.0, 0.0), (1.0, 1.0), (2.0, 0.0), (3.0, 0.0)] {
            let zero = Tensor::new([0f32], &Device::Cpu)?.requires_grad();
            let gradients = zero.pow(exponent)?.backward()?;
            assert_eq!(gradients.get(&zero).expect("it requires a gradient").to_vec::<f32>()?, [slope]);
        }
        assert_eq!(Tensor::new([-2f32, 3.0], &Device::Cpu)?.pow(-1.0)?.to_vec::<f32>()?, [-0.5, 1.0 / 3.0]);
        Ok(())
    }

    #[test]
    fn a_range_without_numbers_is_an_error() -> Result<()> {
        let x = Tensor::new([1f32], &Device::Cpu)?;
        assert_eq!(x.clamp(1.0, 0.0).unwrap_err().to_string(), "clamp: there is nothing from 1 to 0");
        assert!(x.clamp(f64::NAN, 0.0).is_err());
        Ok(())
    }
}
