//! The element formats that the [driver](super::driver) multiplies.

use crate::precision::Precision;

/// The contents of one 32-bit word of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One f32.
    F32,
    /// One f32, rounded to the precision of bf16: for processors without bf16 products.
    Bf16AsF32,
    /// One f32, rounded to the precision of f16.
    F16AsF32,
    /// Two bf16.
    Bf16Pair,
    /// Four int8; see [`super::pack_int8`].
    Int8Quad,
}

impl Format {
    /// Returns the format for products in `precision`, or `None` if this processor cannot multiply it.
    pub(super) fn of(precision: Precision) -> Option<Format> {
        match precision {
            Precision::F32 => Some(Format::F32),
            Precision::Bf16 if std::is_x86_feature_detected!("avx512bf16") => Some(Format::Bf16Pair),
            Precision::Bf16 => Some(Format::Bf16AsF32),
            Precision::F16 => Some(Format::F16AsF32),
            Precision::Int8 => std::is_x86_feature_detected!("avx512vnni").then_some(Format::Int8Quad),
        }
    }

    /// Elements along k in a word.
    pub(super) fn elements(self) -> usize {
        match self {
            Format::F32 | Format::Bf16AsF32 | Format::F16AsF32 => 1,
            Format::Bf16Pair => 2,
            Format::Int8Quad => 4,
        }
    }
}
