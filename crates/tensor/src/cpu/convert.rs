//! Conversion between element types, through f64, which holds every element exactly (i64 up to 2^53).

use half::{bf16, f16};

use crate::element::Element;
use crate::memory::is_dry;

/// Converts each element: rounds to nearest, ties to even; integers are truncated and saturate.
pub(crate) fn convert<From: Convert, To: Convert>(from: &[From], to: &mut [To]) {
    if is_dry() {
        return;
    }
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = To::from_f64(from.to_f64()));
}

/// A number that converts to f64 and back.
pub(crate) trait Convert: Element {
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

/// Returns `value` if it is an f32, otherwise the neighbouring f32 whose last bit is 1. Rounding that to a two-byte type gives
/// the same result as rounding `value` directly, including ties (S. Boldo and G. Melquiond, "When double rounding is odd",
/// 2005).
#[inline(always)]
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) == value || !nearest.is_finite() {
        return nearest;
    }
    let away = f64::from(nearest).abs() > value.abs();
    f32::from_bits((nearest.to_bits() - u32::from(away)) | 1)
}
