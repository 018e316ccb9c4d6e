//! Elementwise comparisons, and the larger or smaller of two tensors. Operands broadcast as in arithmetic.
//!
//! A comparison gives 1 where it holds and 0 elsewhere, in the type of its operands, so that a result can be multiplied
//! with. It is a constant: its derivative is 0 wherever it has one.

use super::arithmetic::{Pair, Pairwise};
use crate::autograd::no_grad;
use crate::error::Result;
use crate::tensor::Tensor;

impl Tensor {
    /// Returns the larger of the elements of `self` and `other`, or NaN if one of them is. Two equal elements share the
    /// gradient.
    pub fn maximum(&self, other: &Tensor) -> Result<Tensor> {
        Pairwise::apply(Pair::Maximum, self, other)
    }

    /// Returns the smaller of the elements of `self` and `other`, or NaN if one of them is. Two equal elements share the
    /// gradient.
    pub fn minimum(&self, other: &Tensor) -> Result<Tensor> {
        Pairwise::apply(Pair::Minimum, self, other)
    }

    /// Returns 1 where `self > other`, and 0 elsewhere.
    pub fn gt(&self, other: &Tensor) -> Result<Tensor> {
        no_grad(|| Pairwise::apply(Pair::Greater, self, other))
    }

    /// Returns 1 where `self >= other`, and 0 elsewhere.
    pub fn ge(&self, other: &Tensor) -> Result<Tensor> {
        no_grad(|| Pairwise::apply(Pair::AtLeast, self, other))
    }

    /// Returns 1 where `self < other`, and 0 elsewhere.
    pub fn lt(&self, other: &Tensor) -> Result<Tensor> {
        other.gt(self)
    }

    /// Returns 1 where `self <= other`, and 0 elsewhere.
    pub fn le(&self, other: &Tensor) -> Result<Tensor> {
        other.ge(self)
    }

    /// Returns 1 where `self` equals `other`, and 0 elsewhere.
    pub fn eq(&self, other: &Tensor) -> Result<Tensor> {
        no_grad(|| Pairwise::apply(Pair::Equal, self, other))
    }

    /// Returns 1 where `self` differs from `other`, and 0 elsewhere. NaN differs from everything.
    pub fn ne(&self, other: &Tensor) -> Result<Tensor> {
        no_grad(|| self.eq(other)?.mul_scalar(-1.0)?.add_scalar(1.0))
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    cases.add("maximum", "same shape", [normal(&[3, 7]), normal(&[3, 7])], |x| x[0].maximum(&x[1]));
    cases.add("maximum", "row", [normal(&[4, 5]), normal(&[5])], |x| x[0].maximum(&x[1]));
    cases.add("minimum", "column", [normal(&[2, 3, 4]), normal(&[3, 1])], |x| x[0].minimum(&x[1]));
    // A product with a comparison, whose derivative is that of the other factor.
    cases.add("mul", "mask", [normal(&[33])], |x| x[0].mul(&x[0].gt(&x[0].mul_scalar(0.0)?)?));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn every_comparison_of_every_pair() -> Result<()> {
        let numbers = [f32::NEG_INFINITY, -1.0, -0.0, 0.0, 2.5, f32::INFINITY, f32::NAN];
        let count = numbers.len();
        let a = Tensor::new(numbers, &Device::Cpu)?.unsqueeze(1)?;
        let b = Tensor::new(numbers, &Device::Cpu)?;
        let check = |computed: Result<Tensor>, expected: fn(f32, f32) -> f32| -> Result<()> {
            let computed = computed?.to_vec::<f32>()?;
            for (place, computed) in computed.into_iter().enumerate() {
                let (a, b) = (numbers[place / count], numbers[place % count]);
                let expected = expected(a, b);
                assert!(computed == expected || computed.is_nan() && expected.is_nan(), "{a} and {b}: {computed}");
            }
            Ok(())
        };
        check(a.gt(&b), |a, b| f32::from(a > b))?;
        check(a.ge(&b), |a, b| f32::from(a >= b))?;
        check(a.lt(&b), |a, b| f32::from(a < b))?;
        check(a.le(&b), |a, b| f32::from(a <= b))?;
        check(a.eq(&b), |a, b| f32::from(a == b))?;
        check(a.ne(&b), |a, b| f32::from(a != b))?;
        check(a.maximum(&b), |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) })?;
        check(a.minimum(&b), |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { a.min(b) })?;
        Ok(())
    }

    #[test]
    fn comparisons_are_constants_and_equal_numbers_share_a_gradient() -> Result<()> {
        let a = Tensor::new([1f32, 2.0, 3.0], &Device::Cpu)?.requires_grad();
        let b = Tensor::new([2f32, 2.0, 2.0], &Device::Cpu)?.requires_grad();
        assert!(!a.gt(&b)?.tracks_grad() && !a.ne(&b)?.tracks_grad());
        for (result, of_a, of_b) in
            [(a.maximum(&b)?, [0.0, 0.5, 1.0], [1.0, 0.5, 0.0]), (a.minimum(&b)?, [1.0, 0.5, 0.0], [0.0, 0.5, 1.0])]
        {
            let gradients = result.sum_all()?.backward()?;
            let gradient = |of| gradients.get(of).expect("it requires a gradient").to_vec::<f32>();
            assert_eq!((gradient(&a)?, gradient(&b)?), (of_a.to_vec(), of_b.to_vec()));
        }
        Ok(())
    }
}
