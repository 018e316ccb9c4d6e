//! The element types that kernels compute in: `f32`, for speed, and `f64`, for checking gradients.
//!
//! The functions of `f32` are short polynomials without branches, so that loops over them vectorise. Their relative error
//! is about 1e-7; the coefficients are Chebyshev fits, computed with 40 digits. The functions of `f64` call the standard
//! library or are series and continued fractions, with a relative error of about 1e-15 at any cost.

use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

use crate::element::Element;

/// A floating-point type that kernels compute in.
pub(crate) trait Real:
    Element
    + Default
    + PartialOrd
    + std::fmt::Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
{
    const ZERO: Self;
    const ONE: Self;
    const HALF: Self;
    const NEG_INFINITY: Self;

    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
    fn mul_add(self, a: Self, b: Self) -> Self;
    fn sqrt(self) -> Self;
    /// Returns e^x. In `f32`, results below 1.7e-38 are 0.
    fn exp(self) -> Self;
    /// Returns the natural logarithm.
    fn ln(self) -> Self;
    fn tanh(self) -> Self;
    /// Returns `self` to the power of `exponent`.
    fn powf(self, exponent: f64) -> Self;
    /// Returns the standard normal distribution function and density: `(Phi(x), phi(x))`.
    fn normal(self) -> (Self, Self);

    /// Returns the larger number, or `other` if `self` is NaN.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        if self > other { self } else { other }
    }

    #[inline(always)]
    fn from_usize(n: usize) -> Self {
        Self::from_f64(n as f64)
    }
}

/// Evaluates a polynomial by Horner's rule, highest coefficient first.
#[inline(always)]
fn poly<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut y = coefficients[0];
    for &c in &coefficients[1..] {
        y = y.mul_add(x, c);
    }
    y
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const HALF: f32 = 0.5;
    const NEG_INFINITY: f32 = f32::NEG_INFINITY;

    #[inline(always)]
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self as f64
    }
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32) -> f32 {
        f32::mul_add(self, a, b)
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }

    #[inline(always)]
    fn exp(self) -> f32 {
        // Below LOW the result is flushed to 0: subnormal numbers are slow, and `scale` cannot represent them.
        const LOW: f32 = -86.9;
        const HIGH: f32 = 89.0;
        let x = if self < LOW { LOW } else { self };
        let x = if x > HIGH { HIGH } else { x };
        // x = n ln 2 + r. Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits.
        let shifted = x.mul_add(std::f32::consts::LOG2_E, 12_582_912.0);
        let n = shifted - 12_582_912.0;
        // ln 2 in two parts; the first has few enough bits for n * part to be exact.
        let r = n.mul_add(-0.693_359_4, x);
        let r = n.mul_add(2.121_944_4e-4, r);
        let q = poly(r, [1.392_692_7e-3, 8.363_774e-3, 4.166_655e-2, 0.166_665_73, 0.5]);
        let y = (q * r).mul_add(r, r) + 1.0;
        // 2y * 2^(n-1), because 2^n does not exist for n = 128 (results near f32::MAX).
        let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(126 << 23));
        let y = (y + y) * scale;
        if self < LOW { 0.0 } else { y }
    }

    #[inline(always)]
    fn ln(self) -> f32 {
        // Subnormal numbers are scaled into the normal range first.
        let tiny = self < f32::MIN_POSITIVE;
        let x = if tiny { self * 8_388_608.0 } else { self };
        // x = 2^n (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)).
        let bits = x.to_bits().wrapping_sub(0x3f35_04f3);
        let n = (bits as i32 >> 23) as f32 - if tiny { 23.0 } else { 0.0 };
        let f = f32::from_bits((bits & 0x007f_ffff).wrapping_add(0x3f35_04f3)) - 1.0;
        #[rustfmt::skip]
        let q = poly(f, [
            6.971_612e-2, -0.114_797_34, 0.116_854_2, -0.124_256_87, 0.142_490_58,
            -0.166_678_02, 0.200_007_16, -0.249_999_97, 0.333_333_3,
        ]);
        let y = (q * f - 0.5) * (f * f);
        let y = n.mul_add(-2.121_944_4e-4, y) + f;
        let y = n.mul_add(0.693_359_4, y);
        let y = if self == 0.0 { f32::NEG_INFINITY } else { y };
        let y = if self == f32::INFINITY { f32::INFINITY } else { y };
        if self >= 0.0 { y } else { f32::NAN }
    }

    #[inline]
    fn powf(self, exponent: f64) -> f32 {
        f32::powf(self, exponent as f32)
    }
    #[inline(always)]
    fn tanh(self) -> f32 {
        let x = self.abs();
        let x2 = self * self;
        // A polynomial near 0, where the formula for large x suffers from cancellation.
        let q = poly(x2, [-5.923_726e-3, 2.087_346e-2, -5.382_376e-2, 0.133_325_84, -0.333_333_27]);
        let small = (q * x2).mul_add(self, self);
        let large = 1.0 - 2.0 / (Real::exp(x + x) + 1.0);
        // The comparison sends NaN to the polynomial, where it stays NaN.
        if x > 0.65 { large.copysign(self) } else { small }
    }

    #[inline(always)]
    fn normal(self) -> (f32, f32) {
        // Phi(-u) = g(u) exp(-u^2/2) with g(u) = erfcx(u / sqrt 2) / 2, fitted by t p(t), t = 1 / (1 + 0.35 u), to
        // 4e-8 relative for u up to 14, beyond which the exponential is 0. One exponential serves both results.
        let e = Real::exp(-0.5 * self * self);
        let u = self.abs();
        let u = if u > 20.0 { 20.0 } else { u };
        let t = 1.0 / u.mul_add(0.35, 1.0);
        #[rustfmt::skip]
        let p = poly(t, [
            -2.967_952_2e-2, 0.146_545_83, -0.260_961_23, 0.165_051, -2.704_660_8e-2,
            0.107_114_59, 0.119_444_92, 0.139_912_3, 0.139_618_71,
        ]);
        let tail = p * t * e;
        (if self > 0.0 { 1.0 - tail } else { tail }, e * 0.398_942_3)
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const HALF: f64 = 0.5;
    const NEG_INFINITY: f64 = f64::NEG_INFINITY;

    #[inline(always)]
    fn from_f64(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn mul_add(self, a: f64, b: f64) -> f64 {
        f64::mul_add(self, a, b)
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline]
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    #[inline]
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    #[inline]
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    #[inline]
    fn powf(self, exponent: f64) -> f64 {
        f64::powf(self, exponent)
    }

    fn normal(self) -> (f64, f64) {
        let density = (-0.5 * self * self).exp() * 0.398_942_280_401_432_7;
        let u = self.abs();
        if u > 40.0 {
            return (if self > 0.0 { 1.0 } else { 0.0 }, 0.0);
        }
        if u < 2.5 {
            // Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/(3 5) + ...): all terms have the same sign.
            let (mut term, mut sum, mut n) = (self, self, 1.0);
            while term.abs() > 1e-18 * sum.abs() {
                n += 2.0;
                term *= self * self / n;
                sum += term;
            }
            return (0.5 + density * sum, density);
        }
        // Phi(-u) = phi(u) / (u + 1/(u + 2/(u + 3/(u + ...)))): Laplace's continued fraction.
        let mut fraction = u;
        for n in (1..=150).rev() {
            fraction = u + n as f64 / fraction;
        }
        let tail = density / fraction;
        (if self > 0.0 { 1.0 - tail } else { tail }, density)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::{simd, testing::at_each_level};

    simd! {
        fn apply<F: Fn(f32) -> f32>(x: &[f32], y: &mut [f32], f: F) {
            for (y, &x) in y.iter_mut().zip(x) { *y = f(x) }
        }
    }

    /// Asserts that the error at each point, relative to max(|reference|, floor), is within `tolerance`.
    fn check(
        name: &str,
        points: &[f32],
        floor: f64,
        tolerance: f64,
        f: impl Fn(f32) -> f32 + Copy,
        g: impl Fn(f64) -> f64,
    ) {
        at_each_level(|level| {
            let mut y = vec![0.0; points.len()];
            apply(points, &mut y, f);
            for (&x, &y) in points.iter().zip(&y) {
                let want = g(x as f64);
                let error = (y as f64 - want).abs() / want.abs().max(floor);
                assert!(error <= tolerance, "{name}({x:e}) = {y:e}, expected {want:e}: {error:e} at {level:?}");
            }
        });
    }

    fn grid(low: f64, high: f64, n: usize) -> Vec<f32> {
        (0..=n).map(|i| (low + (high - low) * i as f64 / n as f64) as f32).collect()
    }

    /// Computes Phi by Simpson's rule over the density, independently of the code under test.
    fn phi_reference(x: f64) -> f64 {
        // The part beyond |x| + `length` is below 1e-16 of the whole.
        let (a, n) = (x.abs(), 40_000);
        let length = 12.0 / (1.0 + a / 4.0);
        let h = length / n as f64;
        let d = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let mut s = d(a) + d(a + length);
        for i in 1..n {
            s += d(a + h * i as f64) * if i % 2 == 1 { 4.0 } else { 2.0 };
        }
        let tail = s * h / 3.0;
        if x > 0.0 { 1.0 - tail } else { tail }
    }

    #[test]
    #[cfg_attr(miri, ignore = "plain arithmetic, at 60,000 points")]
    fn f32_functions_are_accurate() {
        check("exp", &grid(-86.8, 88.7, 20_001), 0.0, 2.5e-7, Real::exp, f64::exp);
        check("exp", &grid(-1.0, 1.0, 5_001), 0.0, 1.5e-7, Real::exp, f64::exp);
        check("tanh", &grid(-12.0, 12.0, 20_001), 0.0, 2e-7, Real::tanh, f64::tanh);
        check("tanh", &[1e-30, -1e-5, 1e-3, 0.64999, 0.65001], 0.0, 2e-7, Real::tanh, f64::tanh);
        check("ln", &grid(1e-6, 4.0, 20_001), 1e-2, 2e-7, Real::ln, f64::ln);
        check("ln", &[1e-44, 1e-38, 1e-20, 1e20, 3e38, 1.0], 1e-9, 2e-7, Real::ln, f64::ln);
        check("Phi", &grid(-4.0, 6.0, 301), 0.0, 1e-6, |x| Real::normal(x).0, phi_reference);
        check("Phi", &grid(-6.0, 6.0, 301), 1.0, 8e-8, |x| Real::normal(x).0, phi_reference);
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        check("phi", &grid(-4.0, 4.0, 301), 0.0, 1e-6, |x| Real::normal(x).1, density);
    }

    #[test]
    #[cfg_attr(miri, ignore = "plain arithmetic, at 60,000 points")]
    fn f64_normal_is_accurate() {
        for i in -60..=60 {
            let x = i as f64 * 0.13;
            let (got, want) = (x.normal().0, phi_reference(x));
            assert!((got - want).abs() < 1e-13 * want, "Phi({x}) = {got}, expected {want}");
        }
    }

    #[test]
    fn extremes() {
        at_each_level(|_| {
            let x = [1e4f32, -1e4, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::NAN];
            let mut y = [0.0; 9];
            apply(&x, &mut y, Real::exp);
            assert_eq!(y[..8], [f32::INFINITY, 0.0, f32::INFINITY, 0.0, f32::INFINITY, 0.0, 1.0, 1.0]);
            assert!(y[8].is_nan());
            apply(&x, &mut y, Real::tanh);
            assert_eq!(y[..8], [1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 0.0, 0.0]);
            assert!(y[8].is_nan());
            apply(&x, &mut y, |x| Real::normal(x).0);
            assert_eq!(y[..6], [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
            assert!(y[8].is_nan());
            apply(&x, &mut y, Real::ln);
            assert!((y[0] - 9.210_34).abs() < 1e-5 && (y[2] - 88.722_84).abs() < 1e-4);
            assert!(y[1].is_nan() && y[3].is_nan() && y[5].is_nan() && y[8].is_nan());
            assert_eq!((y[4], y[6], y[7]), (f32::INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY));
        });
        for x in [1e4f64, -1e4, f64::MAX, f64::MIN] {
            let (cdf, pdf) = x.normal();
            assert_eq!((cdf, pdf), (if x > 0.0 { 1.0 } else { 0.0 }, 0.0));
        }
    }
}
