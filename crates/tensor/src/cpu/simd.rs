//! Choice of SIMD instructions at run time.
//!
//! A kernel is plain Rust over slices inside `simd!`. The macro compiles its body three times, for AVX-512, for AVX2 with
//! FMA and for the baseline of the target, and a call picks one of them. LLVM vectorises each, so there are no intrinsics
//! to keep in step, and a plain `cargo build --release` is fast without `target-cpu=native`.
//!
//! On other targets than x86-64 only the baseline exists (on aarch64 it has NEON and fused multiply-add). The baseline of
//! x86-64 has no fused multiply-add, so `mul_add` is a library call there: correct but slow. It serves processors from
//! before 2013, and tests.
//!
//! Results are deterministic at a given level; between levels they differ in the last bits.

use std::sync::atomic::{AtomicU8, Ordering};

/// A set of instructions that kernels are compiled for. Each level includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The baseline of the target.
    Scalar,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, DQ, BW and VL.
    Avx512,
}

#[cfg(test)]
const LEVELS: [Level; 3] = [Level::Scalar, Level::Avx2, Level::Avx512];
const UNKNOWN: u8 = u8::MAX;
static LEVEL: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Returns the level that kernels run at: the best that the processor supports, unless the environment variable
/// `CLOZE_SIMD` (`scalar`, `avx2`, `avx512`) or a test limits it.
#[inline]
pub fn level() -> Level {
    match LEVEL.load(Ordering::Relaxed) {
        0 => Level::Scalar,
        1 => Level::Avx2,
        2 => Level::Avx512,
        _ => choose(),
    }
}

#[cold]
fn choose() -> Level {
    let asked = match std::env::var("CLOZE_SIMD").as_deref() {
        Ok("scalar") => Level::Scalar,
        Ok("avx2") => Level::Avx2,
        _ => Level::Avx512,
    };
    let level = asked.min(best());
    LEVEL.store(level as u8, Ordering::Relaxed);
    level
}

fn best() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma");
        let avx512 = std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512dq")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512vl");
        if avx2 && avx512 {
            return Level::Avx512;
        } else if avx2 {
            return Level::Avx2;
        }
    }
    Level::Scalar
}

/// Returns the levels that this processor supports, lowest first.
#[cfg(test)]
pub fn available_levels() -> &'static [Level] {
    &LEVELS[..=best() as usize]
}

/// Makes all kernels of the process run at `level`, or at the best level below it that the processor supports; `None`
/// restores the default. For tests: a result that is computed during the change mixes levels.
#[cfg(test)]
pub fn force_level(level: Option<Level>) {
    match level {
        Some(level) => LEVEL.store(level.min(best()) as u8, Ordering::Relaxed),
        None => LEVEL.store(UNKNOWN, Ordering::Relaxed),
    }
}

/// Defines functions whose bodies are compiled for each [`Level`] and chosen at run time. Helpers that they call must be
/// `#[inline(always)]`; otherwise they are compiled only for the baseline.
macro_rules! simd {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$($g:ident: $bound:path),+>)? ($($arg:ident: $t:ty),* $(,)?) $(-> $r:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        #[inline]
        $vis fn $name $(<$($g: $bound),+>)? ($($arg: $t),*) $(-> $r)? {
            #[inline(always)]
            fn body $(<$($g: $bound),+>)? ($($arg: $t),*) $(-> $r)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
            fn avx512 $(<$($g: $bound),+>)? ($($arg: $t),*) $(-> $r)? {
                body $(::<$($g),+>)? ($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2 $(<$($g: $bound),+>)? ($($arg: $t),*) $(-> $r)? {
                body $(::<$($g),+>)? ($($arg),*)
            }

            match $crate::cpu::simd::level() {
                // SAFETY: `level` returns only levels whose features `best` has detected on this processor.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::simd::Level::Avx512 => unsafe { avx512 $(::<$($g),+>)? ($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::simd::Level::Avx2 => unsafe { avx2 $(::<$($g),+>)? ($($arg),*) },
                _ => body $(::<$($g),+>)? ($($arg),*),
            }
        }
    )*};
}
pub(crate) use simd;

/// A lock that keeps tests that force a level apart from tests that compare bits.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::sync::{PoisonError, RwLock, RwLockReadGuard};

    static GATE: RwLock<()> = RwLock::new(());

    /// Runs `test` at every level that this processor supports.
    pub(crate) fn at_each_level(mut test: impl FnMut(Level)) {
        let _gate = GATE.write().unwrap_or_else(PoisonError::into_inner);
        for &level in available_levels() {
            force_level(Some(level));
            test(level);
        }
        force_level(None);
    }

    /// Keeps tests from changing the level until the guard is dropped.
    pub(crate) fn steady_level() -> RwLockReadGuard<'static, ()> {
        GATE.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    simd! {
        fn count<T: Copy>(items: &[T]) -> usize { items.len() }
    }

    #[test]
    fn forcing_never_exceeds_the_processor() {
        let _ = count(&[1, 2]);
        testing::at_each_level(|forced| {
            assert_eq!(level(), forced);
            assert_eq!(count(&[1, 2, 3]), 3);
            force_level(Some(Level::Avx512));
            assert_eq!(level(), *available_levels().last().unwrap());
            force_level(Some(forced));
        });
        assert_eq!(available_levels()[0], Level::Scalar);
    }
}
