//! The choice of a kernel.

use super::kernel::Kernel;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::cpu::simd::Level;
use crate::cpu::simd::level;
use crate::precision::Precision;

impl Kernel<f32> {
    /// Returns the kernel for products of f32 in `precision` at the current [`level`].
    pub(super) fn of(precision: Precision) -> &'static Kernel<f32> {
        match level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::kernel_for(precision),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::AvxVnni => avx2::kernel_for(precision),
            #[cfg(target_arch = "aarch64")]
            level @ (Level::DotProd | Level::I8mm) => neon::kernel_for(precision, level == Level::I8mm),
            _ => portable::kernel_for(precision),
        }
    }
}

impl Kernel<f64> {
    /// Returns the kernel for products of f64 at the current [`level`].
    pub(super) fn of_f64() -> &'static Kernel<f64> {
        #[cfg(target_arch = "x86_64")]
        if level() > Level::Baseline {
            return &avx2::F64;
        }
        &portable::F64
    }
}
