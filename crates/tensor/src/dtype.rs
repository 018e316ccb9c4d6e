//! Element types.

use std::fmt;

/// The element type of a tensor, known at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary32; the default.
    F32,
    /// bfloat16: 8 bits of exponent, 7 of fraction.
    BF16,
    /// IEEE 754 binary16.
    F16,
    /// IEEE 754 binary64, for checking gradients on the CPU.
    F64,
    /// Token ids, positions, row indices.
    U32,
    /// Labels; -100 is the ignored label.
    I64,
}

impl DType {
    /// Returns the size of an element in bytes.
    pub const fn size(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::U32 => 4,
            DType::BF16 | DType::F16 => 2,
        }
    }

    /// Returns whether this is a floating-point type. Only these have gradients.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::BF16 | DType::F16 | DType::F64)
    }

    /// Returns whether this is a two-byte floating-point type. The CPU computes these in f32 and rounds the result.
    pub const fn is_half(self) -> bool {
        matches!(self, DType::BF16 | DType::F16)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::BF16 => "bf16",
            DType::F16 => "f16",
            DType::F64 => "f64",
            DType::U32 => "u32",
            DType::I64 => "i64",
        })
    }
}
