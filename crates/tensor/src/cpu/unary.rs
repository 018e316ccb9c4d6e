//! Element-wise functions of one variable: GELU in both its forms, and exp, ln, tanh, sqrt, relu, 1/x, the logistic function and |x|.
//!
//! A function is a type that implements [`Unary`]: value and derivative side by side, and whether the derivative is
//! computed from the input or the output, so that the caller knows which to keep.
//!
//! GELU: D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units", 2016. BERT uses `x Phi(x)`; the `tanh` form
//! approximates it.

use super::parallel::for_rows;
use super::real::Real;
use super::simd::simd;
use super::target::Target;

/// The cost per element, in the units of [`for_rows`]: a transcendental function against a load.
const COST: usize = 4;

/// The value that a derivative is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    Input,
    Output,
}

/// A function of one variable.
pub(crate) trait Unary: Copy + Send + Sync {
    /// The argument of [`Unary::derivative`].
    const SAVED: Saved;
    fn value<T: Real>(x: T) -> T;
    /// Returns the derivative, from the input or the output according to [`Unary::SAVED`].
    fn derivative<T: Real>(saved: T) -> T;
}

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident($saved:ident): |$x:ident| $value:expr, |$s:ident| $derivative:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name;
        impl Unary for $name {
            const SAVED: Saved = Saved::$saved;
            #[inline(always)]
            fn value<T: Real>($x: T) -> T { $value }
            #[inline(always)]
            fn derivative<T: Real>($s: T) -> T { $derivative }
        }
    )*

        /// A function, chosen at run time. The numbers are those of `Unary` in `kernels/cuda/enumerations.cuh`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Function { $($name),* }

        /// The names and numbers of all functions.
        #[cfg(all(test, feature = "cuda"))]
        pub(crate) const FUNCTIONS: &[(&str, i32)] = &[$((stringify!($name), Function::$name as i32)),*];

        impl Function {
            /// Returns the argument of [`Function::backward`].
            pub(crate) fn saved(self) -> Saved {
                match self { $(Function::$name => $name::SAVED),* }
            }

            /// Computes `y = f(x)`.
            pub(crate) fn forward<T: Real>(self, x: &[T], y: &mut [T]) {
                match self { $(Function::$name => forward::<T, $name>(x, y)),* }
            }

            /// Computes `dx (+)= dy f'` from the input or output of forward, according to [`Function::saved`].
            pub(crate) fn backward<T: Real>(self, saved: &[T], dy: &[T], dx: Target<T>) {
                match self { $(Function::$name => backward::<T, $name>(saved, dy, dx)),* }
            }
        }
    };
}

unary! {
    /// `e^x`.
    Exp(Output): |x| x.exp(), |y| y;
    /// Natural logarithm.
    Ln(Input): |x| x.ln(), |x| T::ONE / x;
    /// Hyperbolic tangent.
    Tanh(Output): |x| x.tanh(), |y| T::ONE - y * y;
    /// Square root.
    Sqrt(Output): |x| x.sqrt(), |y| T::HALF / y;
    /// `max(x, 0)`.
    Relu(Output): |x| if x > T::ZERO { x } else { T::ZERO }, |y| if y > T::ZERO { T::ONE } else { T::ZERO };
    /// `1 / x`.
    Reciprocal(Output): |x| T::ONE / x, |y| -(y * y);
    /// `x Phi(x)`.
    Gelu(Input): |x| x * x.normal().0, |x| { let (cdf, pdf) = x.normal(); x.mul_add(pdf, cdf) };
    /// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    GeluTanh(Input): |x| gelu_tanh(x).0, |x| gelu_tanh(x).1;
    /// `1 / (1 + e^-x)`.
    Sigmoid(Output): |x| T::ONE / (T::ONE + (-x).exp()), |y| y * (T::ONE - y);
    /// `|x|`.
    Abs(Input): |x| if x < T::ZERO { -x } else { x }, |x| sign(x);
}

/// Returns the derivative of the absolute value: 0 at 0.
#[inline(always)]
fn sign<T: Real>(x: T) -> T {
    let above = if x > T::ZERO { T::ONE } else { T::ZERO };
    if x < T::ZERO { -T::ONE } else { above }
}

/// Returns value and derivative of the tanh form. Beyond |x| = 10 the tanh is 1 to the last bit, so `x` is clamped there:
/// its cube could overflow, and infinity times zero is NaN.
#[inline(always)]
fn gelu_tanh<T: Real>(x: T) -> (T, T) {
    let (a, b) = (T::from_f64(0.797_884_560_802_865_4), T::from_f64(0.044_715));
    let limit = T::from_f64(10.0);
    let z = if x > limit { limit } else { x };
    let z = if z < -limit { -limit } else { z };
    let z2 = z * z;
    let t = (a * z * b.mul_add(z2, T::ONE)).tanh();
    let half = T::HALF * (T::ONE + t);
    let inner = a * (b * T::from_f64(3.0)).mul_add(z2, T::ONE);
    (x * half, half + T::HALF * z * (T::ONE - t * t) * inner)
}

simd! {
    fn forward_block<T: Real, F: Unary>(x: &[T], y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = F::value(x);
        }
    }

    fn backward_block<T: Real, F: Unary>(saved: &[T], dy: &[T], dx: &mut [T], accumulate: bool) {
        if accumulate {
            for ((dx, &s), &dy) in dx.iter_mut().zip(saved).zip(dy) {
                *dx += dy * F::derivative(s);
            }
        } else {
            for ((dx, &s), &dy) in dx.iter_mut().zip(saved).zip(dy) {
                *dx = dy * F::derivative(s);
            }
        }
    }
}

/// Computes `y = f(x)`.
fn forward<T: Real, F: Unary>(x: &[T], y: &mut [T]) {
    assert_eq!(x.len(), y.len());
    for_rows(x.len(), COST, y, |range, y| forward_block::<T, F>(&x[range], y));
}

/// Computes `dx (+)= dy f'` from the input or output of forward, according to `F::SAVED`.
fn backward<T: Real, F: Unary>(saved: &[T], dy: &[T], dx: Target<T>) {
    let Target { data: dx, accumulate } = dx;
    assert!(saved.len() == dx.len() && dy.len() == dx.len());
    for_rows(dx.len(), COST, dx, |range, dx| {
        backward_block::<T, F>(&saved[range.clone()], &dy[range], dx, accumulate);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::testing::at_each_level;
    use crate::cpu::testing::{SIZES, close, random, random_in, small_for_miri, wide};

    /// Checks `F` in `T` against `reference`, and its derivative against central differences of `reference`.
    fn check<T: Real, F: Unary>(tolerance: f64, positive: bool, reference: impl Fn(f64) -> f64) {
        for n in SIZES {
            let x: Vec<T> =
                random(n, 5).iter().map(|x| T::from_f64(if positive { x.abs() + 0.5 } else { 2.0 * x })).collect();
            let mut y = vec![T::from_f64(f64::NAN); n];
            forward::<T, F>(&x, &mut y);
            let want: Vec<f64> = wide(&x).iter().map(|&x| reference(x)).collect();
            close(&y, &want, tolerance, "value");
            let dy = random_in::<T>(n, 6);
            let saved = if F::SAVED == Saved::Input { &x } else { &y };
            let slope = |x: f64| (reference(x + 1e-5) - reference(x - 1e-5)) / 2e-5;
            let want: Vec<f64> = x.iter().zip(&dy).map(|(x, dy)| dy.to_f64() * slope(x.to_f64())).collect();
            let mut dx = vec![T::from_f64(f64::NAN); n];
            backward::<T, F>(saved, &dy, Target::new(&mut dx, false));
            close(&dx, &want, tolerance.max(1e-8), "derivative");
            backward::<T, F>(saved, &dy, Target::new(&mut dx, true));
            close(&dx, &want.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), tolerance.max(1e-8), "accumulated");
        }
    }

    fn check_all<T: Real>(tolerance: f64) {
        check::<T, Exp>(tolerance, false, f64::exp);
        check::<T, Ln>(tolerance, true, f64::ln);
        check::<T, Tanh>(tolerance, false, f64::tanh);
        check::<T, Sqrt>(tolerance, true, f64::sqrt);
        check::<T, Sigmoid>(tolerance, false, |x| 1.0 / (1.0 + (-x).exp()));
        check::<T, Abs>(tolerance, false, f64::abs);
        check::<T, Reciprocal>(tolerance, true, |x| 1.0 / x);
        check::<T, GeluTanh>(tolerance, false, |x| {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        });
        // erf by its series of positive terms; the alternating series suffers from cancellation.
        check::<T, Gelu>(tolerance.max(1e-11), false, |x| {
            let z = x / 2f64.sqrt();
            let (mut term, mut sum) = (z, z);
            for n in 1..small_for_miri(200, 90) {
                term *= 2.0 * z * z / (2 * n + 1) as f64;
                sum += term;
            }
            0.5 * x * (1.0 + (-z * z).exp() * sum * 2.0 / std::f64::consts::PI.sqrt())
        });
    }

    #[test]
    fn values_and_derivatives() {
        at_each_level(|_| {
            check_all::<f32>(1e-6);
            check_all::<f64>(1e-14);
        });
    }

    #[test]
    fn extremes_are_finite() {
        fn extremes<T: Real, F: Unary>(linear: bool) {
            let x = [1e4, -1e4, 1e30, -1e30].map(T::from_f64);
            let (mut y, mut dx) = ([T::ZERO; 4], [T::ZERO; 4]);
            forward::<T, F>(&x, &mut y);
            backward::<T, F>(
                if F::SAVED == Saved::Input { &x } else { &y }.as_slice(),
                &[T::ONE; 4],
                Target::new(&mut dx, false),
            );
            if linear {
                assert_eq!((y, dx), ([x[0], T::ZERO, x[2], T::ZERO], [T::ONE, T::ZERO, T::ONE, T::ZERO]));
            } else {
                assert_eq!((y, dx), ([T::ONE, -T::ONE, T::ONE, -T::ONE], [T::ZERO; 4]));
            }
        }
        at_each_level(|_| {
            extremes::<f32, Gelu>(true);
            extremes::<f64, Gelu>(true);
            extremes::<f32, GeluTanh>(true);
            extremes::<f64, GeluTanh>(true);
            extremes::<f32, Tanh>(false);
        });
    }
}
