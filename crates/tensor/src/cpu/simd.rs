//! Choice of SIMD instructions at run time.
//!
//! A kernel is plain Rust over slices inside `simd!`. The macro compiles its body three times, for AVX-512, for AVX2 with
//! FMA and for the baseline of the target, and a call picks one of them. LLVM vectorises each, so there are no intrinsics
//! to keep in step, and a plain `cargo build --release` is fast without `target-cpu=native`.
//!
//! Other targets have only the baseline of `simd!` (on aarch64 it has NEON and fused multiply-add); the levels of aarch64 are
//! for matrix products. The baseline of x86-64 has no fused multiply-add, so `mul_add` is a library call there: correct but
//! slow. It serves processors from before 2013, and tests.
//!
//! Results are deterministic at a given level. Between levels they may differ in the last bits, except for matrix products at
//! levels with fused multiply-adds.

use std::sync::atomic::{AtomicU8, Ordering};

/// A set of instructions that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The baseline of the target: SSE2 on x86-64, NEON on aarch64.
    Baseline,
    /// NEON with `sdot`, for products of int8.
    DotProd,
    /// The same, and `smmla` and `bfmmla`, for products of int8 and bf16.
    I8mm,
    /// AVX2 and FMA.
    Avx2,
    /// The same, and VNNI on 256 bits, for products of int8.
    AvxVnni,
    /// AVX-512 F, DQ, BW and VL.
    Avx512,
}

/// All levels with their names, lowest first.
const LEVELS: [(Level, &str); 6] = [
    (Level::Baseline, "baseline"),
    (Level::DotProd, "dotprod"),
    (Level::I8mm, "i8mm"),
    (Level::Avx2, "avx2"),
    (Level::AvxVnni, "avxvnni"),
    (Level::Avx512, "avx512"),
];
/// Whether the baseline of the target has fused multiply-adds. Where it does not, `mul_add` is a slow library call there, which
/// some C libraries round twice.
pub(crate) const BASELINE_IS_FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
const UNKNOWN: u8 = u8::MAX;
static LEVEL: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Returns the level that kernels run at: the best that the processor supports, unless the environment variable
/// `CLOZE_SIMD` (`baseline`, `avx2`, `avxvnni`, `avx512`; on aarch64 `baseline`, `dotprod`, `i8mm`) or a test sets another one. A
/// value that cannot be used is reported on standard error, once.
#[inline]
pub fn level() -> Level {
    match LEVELS.get(usize::from(LEVEL.load(Ordering::Relaxed))) {
        Some((level, _)) => *level,
        None => choose(),
    }
}

/// Whether kernels at the current [`level`] have fused multiply-adds.
#[inline]
pub(crate) fn is_fused() -> bool {
    BASELINE_IS_FUSED || level() >= Level::Avx2
}

#[cold]
fn choose() -> Level {
    let level = match std::env::var("CLOZE_SIMD") {
        Ok(name) => asked(&name).unwrap_or_else(|message| {
            eprintln!("{message}");
            best()
        }),
        Err(_) => best(),
    };
    LEVEL.store(level as u8, Ordering::Relaxed);
    level
}

/// Returns the level that `CLOZE_SIMD` asks for, or what to tell the user.
fn asked(name: &str) -> Result<Level, String> {
    let names = available_levels().map(|(_, name)| name).collect::<Vec<_>>().join(", ");
    let using = format!("this processor has {names}; using {}", LEVELS[best() as usize].1);
    match LEVELS.iter().find(|(_, known)| *known == name) {
        Some(&(level, _)) if is_supported(level) => Ok(level),
        Some(_) => Err(format!("CLOZE_SIMD: this processor lacks the instructions of `{name}`: {using}")),
        None => Err(format!("CLOZE_SIMD: unknown level `{name}`: {using}")),
    }
}

fn is_supported(level: Level) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma");
        match level {
            Level::Baseline => true,
            Level::DotProd | Level::I8mm => false,
            Level::Avx2 => avx2,
            Level::AvxVnni => avx2 && std::is_x86_feature_detected!("avxvnni"),
            Level::Avx512 => {
                avx2 && std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512dq")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512vl")
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        use std::arch::is_aarch64_feature_detected;
        let dotprod = is_aarch64_feature_detected!("dotprod");
        match level {
            Level::Baseline => true,
            Level::DotProd => dotprod,
            Level::I8mm => dotprod && is_aarch64_feature_detected!("i8mm") && is_aarch64_feature_detected!("bf16"),
            Level::Avx2 | Level::AvxVnni | Level::Avx512 => false,
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        level == Level::Baseline
    }
}

/// Returns the levels that this processor supports, lowest first.
fn available_levels() -> impl DoubleEndedIterator<Item = (Level, &'static str)> {
    LEVELS.into_iter().filter(|&(level, _)| is_supported(level))
}

fn best() -> Level {
    available_levels().next_back().map_or(Level::Baseline, |(level, _)| level)
}

/// Prefetches the cache line at an address, which need not be valid, into cache level `CACHE`, 1 or 2.
#[inline(always)]
pub(crate) fn prefetch<const CACHE: u8, T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        match CACHE {
            // SAFETY: a prefetch of any address is allowed; it only affects the caches. Every x86-64 processor has SSE.
            1 => unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) },
            // SAFETY: as above.
            _ => unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) },
        }
    }
    // SAFETY: a prefetch of any address is allowed; it only affects the caches.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        use std::arch::asm;
        match CACHE {
            1 => asm!("prfm pldl1keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags)),
            _ => asm!("prfm pldl2keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags)),
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
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

            /// # Safety
            /// The processor must have these features.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
            fn avx512 $(<$($g: $bound),+>)? ($($arg: $t),*) $(-> $r)? {
                body $(::<$($g),+>)? ($($arg),*)
            }

            /// # Safety
            /// The processor must have these features.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2 $(<$($g: $bound),+>)? ($($arg: $t),*) $(-> $r)? {
                body $(::<$($g),+>)? ($($arg),*)
            }

            match $crate::cpu::simd::level() {
                // SAFETY: `level` returns only levels whose features were detected on this processor.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::simd::Level::Avx512 => unsafe { avx512 $(::<$($g),+>)? ($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::simd::Level::Avx2 | $crate::cpu::simd::Level::AvxVnni => unsafe { avx2 $(::<$($g),+>)? ($($arg),*) },
                _ => body $(::<$($g),+>)? ($($arg),*),
            }
        }
    )*};
}
pub(crate) use simd;

/// Running tests at a level of their choice.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::sync::{PoisonError, RwLock, RwLockReadGuard};

    /// Keeps tests that change the level apart from tests that compare bits.
    static GATE: RwLock<()> = RwLock::new(());

    /// Runs `test` at every level that this processor supports, for all kernels of the process.
    pub(crate) fn at_each_level(mut test: impl FnMut(Level)) {
        let _gate = GATE.write().unwrap_or_else(PoisonError::into_inner);
        for (level, _) in available_levels() {
            LEVEL.store(level as u8, Ordering::Relaxed);
            test(level);
        }
        LEVEL.store(UNKNOWN, Ordering::Relaxed);
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
    fn every_level_runs() {
        let mut levels = Vec::new();
        testing::at_each_level(|forced| {
            assert_eq!(level(), forced);
            assert_eq!(count(&[1, 2, 3]), 3);
            levels.push(forced);
        });
        assert_eq!(levels[0], Level::Baseline);
        assert!(levels.is_sorted());
    }

    #[test]
    fn levels_that_cannot_be_used_are_reported() {
        assert_eq!(asked("baseline"), Ok(Level::Baseline));
        let message = asked("avx3").expect_err("there is no such level");
        assert!(message.contains("unknown level `avx3`: this processor has baseline"), "{message}");
        for (level, name) in LEVELS {
            match asked(name) {
                Ok(asked) => assert!(asked == level && is_supported(level)),
                Err(message) => assert!(message.contains(&format!("lacks the instructions of `{name}`")), "{message}"),
            }
        }
    }
}
