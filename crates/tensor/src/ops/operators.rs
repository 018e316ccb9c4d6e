//! The operators `+ - * /` and the sign, on tensors and numbers.
//!
//! They return a `Result`, as the methods do: shapes, types or devices may not fit.

use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::error::Result;
use crate::tensor::Tensor;

/// Implements an operator for every mixture of tensors and references to them.
macro_rules! pairs {
    ($($operator:ident::$method:ident),*) => {$(
        pairs!($operator::$method: Tensor, Tensor; Tensor, &Tensor; &Tensor, Tensor; &Tensor, &Tensor);
    )*};
    ($operator:ident::$method:ident: $($left:ty, $right:ty);*) => {$(
        impl $operator<$right> for $left {
            type Output = Result<Tensor>;

            fn $method(self, other: $right) -> Result<Tensor> {
                Tensor::$method(&self, &other)
            }
        }
    )*};
}

pairs!(Add::add, Sub::sub, Mul::mul, Div::div);

/// Implements an operator between a tensor or a reference to one and a number, in both orders.
macro_rules! numbers {
    ($($operator:ident::$method:ident: |$x:ident, $number:ident| $right:expr, $left:expr;)*) => {$(
        numbers!(@ $operator::$method, Tensor, |$x, $number| $right, $left);
        numbers!(@ $operator::$method, &Tensor, |$x, $number| $right, $left);
    )*};
    (@ $operator:ident::$method:ident, $tensor:ty, |$x:ident, $number:ident| $right:expr, $left:expr) => {
        impl $operator<f64> for $tensor {
            type Output = Result<Tensor>;

            fn $method(self, $number: f64) -> Result<Tensor> {
                let $x: &Tensor = &self;
                $right
            }
        }

        impl $operator<$tensor> for f64 {
            type Output = Result<Tensor>;

            fn $method(self, other: $tensor) -> Result<Tensor> {
                let ($x, $number): (&Tensor, f64) = (&other, self);
                $left
            }
        }
    };
}

numbers! {
    Add::add: |x, number| x.add_scalar(number), x.add_scalar(number);
    Sub::sub: |x, number| x.add_scalar(-number), x.mul_scalar(-1.0)?.add_scalar(number);
    Mul::mul: |x, number| x.mul_scalar(number), x.mul_scalar(number);
    // Not a product with the reciprocal, which would be rounded twice.
    Div::div: |x, number| x.div(&like(x, number)?), Tensor::div(&like(x, number)?, x);
}

/// Returns a number as a tensor that broadcasts to `x`.
fn like(x: &Tensor, number: f64) -> Result<Tensor> {
    Tensor::full(number, &[], x.dtype(), &x.device())
}

impl Neg for &Tensor {
    type Output = Result<Tensor>;

    fn neg(self) -> Result<Tensor> {
        self.mul_scalar(-1.0)
    }
}

impl Neg for Tensor {
    type Output = Result<Tensor>;

    fn neg(self) -> Result<Tensor> {
        -&self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn operators_are_the_methods() -> Result<()> {
        let (x, y) = (Tensor::new([1f32, -2.0, 3.0], &Device::Cpu)?, Tensor::new([4f32, 5.0, -6.0], &Device::Cpu)?);
        let check = |computed: Result<Tensor>, expected: [f32; 3]| -> Result<()> {
            assert_eq!(computed?.to_vec::<f32>()?, expected);
            Ok(())
        };
        check(&x + &y, [5.0, 3.0, -3.0])?;
        check(x.clone() - &y, [-3.0, -7.0, 9.0])?;
        check(&x * y.clone(), [4.0, -10.0, -18.0])?;
        check(x.clone() / y.clone(), [0.25, -0.4, -0.5])?;
        check(-&x, [-1.0, 2.0, -3.0])?;
        check(&x + 1.0, [2.0, -1.0, 4.0])?;
        check(1.0 + &x, [2.0, -1.0, 4.0])?;
        check(&x - 1.0, [0.0, -3.0, 2.0])?;
        check(1.0 - &x, [0.0, 3.0, -2.0])?;
        check(2.0 * &x, [2.0, -4.0, 6.0])?;
        check(x.clone() * 2.0, [2.0, -4.0, 6.0])?;
        check(&x / 3.0, [1.0 / 3.0, -2.0 / 3.0, 1.0])?;
        check(3.0 / x.clone(), [3.0, -1.5, 1.0])?;
        check(((-x)? + &y)? * 2.0, [6.0, 14.0, -18.0])
    }

    #[test]
    fn operands_that_do_not_fit_are_errors() -> Result<()> {
        let (x, y) = (Tensor::new([1f32, 2.0], &Device::Cpu)?, Tensor::new([1f32, 2.0, 3.0], &Device::Cpu)?);
        assert!((&x + &y).is_err());
        assert!((&x * Tensor::new([1f64, 2.0], &Device::Cpu)?).is_err());
        Ok(())
    }
}
