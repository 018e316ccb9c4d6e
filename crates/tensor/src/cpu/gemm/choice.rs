//! The choice of a kernel.

use super::kernel::Kernel;
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::{Level, level};
use crate::precision::Precision;

impl Kernel<f32> {
    /// Returns the kernel for products of f32 in `precision` at the current [`level`].
    pub(super) fn of(precision: Precision) -> &'static Kernel<f32> {
        #[cfg(target_arch = "x86_64")]
        match level() {
            Level::Avx512 => return avx512::kernel_for(precision),
            Level::Avx2 | Level::AvxVnni => return avx2::kernel_for(precision),
            Level::Baseline => {}
        }
        portable::kernel_for(precision)
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
