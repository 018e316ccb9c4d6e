//! The ceilings of the machine: multiply-adds on registers, and streams through memory much larger than the caches.
//!
//! All threads of the rayon pool run the same loop, as they do in the library. The best of several windows counts,
//! because other load on the machine can only lower a result.

use std::fmt;
use std::time::Instant;

use cloze::prelude::Precision;
use rayon::prelude::*;

use crate::Result;

/// Windows in a measurement.
const WINDOWS: usize = 4;
/// Seconds in a window of arithmetic: long enough for the clock frequency to settle.
const WINDOW: f64 = 0.06;

/// Operations and bytes per second of all threads together. Zero by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ceilings {
    threads: usize,
    f32: Loop,
    bf16: Option<Loop>,
    int8: Option<Loop>,
    /// Memory bandwidth as measured by [`Memory`], in bytes per second.
    pub memory: f64,
}

/// Operations per second, and the instructions that reach them.
#[derive(Clone, Copy, Debug, Default)]
struct Loop {
    rate: f64,
    instructions: &'static str,
}

impl Ceilings {
    /// Measures arithmetic and memory.
    pub fn measure(memory: &mut Memory) -> Ceilings {
        let [f32, bf16, int8] = loops().map(|found| found.map(Kernel::measure));
        let (threads, memory) = (rayon::current_num_threads(), memory.measure());
        Ceilings { threads, f32: f32.unwrap_or_default(), bf16, int8, memory }
    }

    /// Returns the higher of each ceiling.
    pub fn max(self, other: Ceilings) -> Ceilings {
        let faster = |one: Loop, other: Loop| if one.rate > other.rate { one } else { other };
        Ceilings {
            f32: faster(self.f32, other.f32),
            bf16: self.bf16.zip(other.bf16).map(|(one, other)| faster(one, other)),
            int8: self.int8.zip(other.int8).map(|(one, other)| faster(one, other)),
            memory: self.memory.max(other.memory),
            ..self
        }
    }

    /// Replaces the memory bandwidth.
    pub fn with_memory(self, memory: f64) -> Ceilings {
        Ceilings { memory, ..self }
    }

    /// Returns operations per second in this precision, or in f32 if there are no instructions for it.
    pub fn peak(&self, precision: Precision) -> f64 {
        match precision {
            Precision::F32 | Precision::F16 => None,
            Precision::Bf16 => self.bf16,
            Precision::Int8 => self.int8,
        }
        .unwrap_or(self.f32)
        .rate
    }
}

/// Measures operations per second in this precision. Returns `None` if there are no instructions for it.
pub fn peak_now(precision: Precision) -> Option<f64> {
    let [f32, bf16, int8] = loops();
    let kernel = match precision {
        Precision::F32 | Precision::F16 => f32,
        Precision::Bf16 => bf16,
        Precision::Int8 => int8,
    };
    kernel.map(|kernel| kernel.measure().rate)
}

impl fmt::Display for Ceilings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ceilings of {} threads:", self.threads)?;
        let loops = [("f32", "GFLOP/s", Some(self.f32)), ("bf16", "GFLOP/s", self.bf16), ("int8", "GOP/s", self.int8)];
        for (name, unit, Loop { rate, instructions }) in loops.into_iter().filter_map(|(n, u, l)| Some((n, u, l?))) {
            write!(f, " {name} {:.0} {unit} ({instructions}),", rate / 1e9)?;
        }
        write!(f, " memory {:.1} GB/s", self.memory / 1e9)
    }
}

/// Returns the seconds that `f` takes, the least of [`WINDOWS`] runs.
fn best(mut f: impl FnMut()) -> f64 {
    let seconds = (0..WINDOWS).map(|_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    });
    seconds.fold(f64::INFINITY, f64::min)
}

/// Arrays to stream through, for measuring memory bandwidth.
pub struct Memory {
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Memory {
    /// Elements in an array of 256 MiB.
    const LENGTH: usize = 1 << 26;
    /// Elements that a thread processes at a time: 1 MiB.
    const PART: usize = 1 << 18;

    /// Allocates the arrays.
    ///
    /// # Errors
    /// Returns an error if there is not enough memory.
    pub fn new() -> Result<Memory> {
        let array = || {
            let mut array = Vec::new();
            array
                .try_reserve_exact(Memory::LENGTH)
                .map_err(|_| "not enough memory to measure its bandwidth: 512 MiB are needed")?;
            array.resize(Memory::LENGTH, 1.0);
            Ok::<_, String>(array)
        };
        Ok(Memory { a: array()?, b: array()? })
    }

    /// Measures bytes per second of `a[i] = s a[i] + b[i]` and of a sum, and returns the higher. The former is the
    /// triad of J. D. McCalpin's STREAM, changed so that no cache line is fetched only to be overwritten.
    pub fn measure(&mut self) -> f64 {
        let Memory { a, b } = self;
        let s = std::hint::black_box(0.5f32);
        let update = best(|| {
            a.par_chunks_mut(Memory::PART).zip(b.par_chunks(Memory::PART)).for_each(|(a, b)| {
                a.iter_mut().zip(b).for_each(|(a, b)| *a = s * *a + b);
            });
        });
        let sum = |part: &[f32]| {
            // Enough independent sums to hide the latency of additions.
            let mut sums = [0.0; 64];
            part.chunks_exact(64).for_each(|part| sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x));
            sums.iter().sum::<f32>()
        };
        let read = best(|| {
            std::hint::black_box(b.par_chunks(Memory::PART).map(sum).sum::<f32>());
        });
        let bytes = (Memory::LENGTH * size_of::<f32>()) as f64;
        (3.0 * bytes / update).max(bytes / read)
    }
}

/// A loop of multiply-adds with all operands in registers.
struct Kernel {
    instructions: &'static str,
    /// Multiplications and additions in a round.
    operations: usize,
    run: fn(rounds: usize),
}

impl Kernel {
    fn measure(self) -> Loop {
        let threads = rayon::current_num_threads();
        let seconds = |rounds| best(|| drop(rayon::broadcast(|_| (self.run)(rounds))));
        let trial = 1 << 20;
        let rounds = (trial as f64 * WINDOW / seconds(trial)) as usize;
        let rate = (self.operations * rounds * threads) as f64 / seconds(rounds);
        Loop { rate, instructions: self.instructions }
    }
}

/// Returns the fastest loops of this processor for f32, bf16 and int8.
#[cfg(target_arch = "x86_64")]
fn loops() -> [Option<Kernel>; 3] {
    use std::is_x86_feature_detected as has;
    let f32 = match (has!("avx512f"), has!("avx2") && has!("fma")) {
        // SAFETY: AVX-512F was detected on this processor.
        (true, _) => x86::kernel("AVX-512", 16 * x86::LONG, |n| unsafe { x86::f32_avx512(n) }),
        // SAFETY: AVX2 and FMA were detected on this processor.
        (_, true) => x86::kernel("AVX2", 8 * x86::SHORT, |n| unsafe { x86::f32_avx2(n) }),
        _ => portable(),
    };
    // SAFETY: the closure is only returned, below, if AVX-512F and AVX512-BF16 are detected.
    let bf16 = x86::kernel("AVX512-BF16", 32 * x86::LONG, |n| unsafe { x86::bf16_avx512(n) });
    // SAFETY: the closure is only returned, below, if AVX-512F and AVX512-VNNI are detected.
    let int8 = x86::kernel("AVX512-VNNI", 64 * x86::LONG, |n| unsafe { x86::int8_avx512(n) });
    let wide = has!("avx512f");
    [Some(f32), (wide && has!("avx512bf16")).then_some(bf16), (wide && has!("avx512vnni")).then_some(int8)]
}

#[cfg(not(target_arch = "x86_64"))]
fn loops() -> [Option<Kernel>; 3] {
    [Some(portable()), None, None]
}

/// Returns a loop that the compiler vectorises for the baseline of the target, which on aarch64 is NEON with fused
/// multiply-add.
fn portable() -> Kernel {
    // The number of sums that fit into registers together with two operands: 16 registers on x86-64, 32 on aarch64.
    const LANES: usize = if cfg!(target_arch = "x86_64") { 48 } else { 80 };
    fn run(rounds: usize) {
        let [a, b] = std::hint::black_box([0.5f32; 2]);
        let mut sums = [0.0; LANES];
        for _ in 0..rounds {
            for sum in &mut sums {
                // The baseline of x86-64 has no fused multiply-add.
                *sum = if cfg!(target_arch = "x86_64") { *sum * a + b } else { sum.mul_add(a, b) };
            }
        }
        std::hint::black_box(sums);
    }
    Kernel { instructions: "baseline", operations: 2 * LANES, run }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::Kernel;

    /// Independent sums: enough to hide the latency of an instruction, and few enough to fit into registers with two
    /// operands.
    pub const LONG: usize = 16;
    pub const SHORT: usize = 12;

    pub fn kernel(instructions: &'static str, products: usize, run: fn(usize)) -> Kernel {
        Kernel { instructions, operations: 2 * products, run }
    }

    /// # Safety
    /// The processor must have `avx512f`.
    #[target_feature(enable = "avx512f")]
    pub fn f32_avx512(rounds: usize) {
        let [a, b] = black_box([0.5; 2]).map(|x| _mm512_set1_ps(x));
        let mut sums = [_mm512_setzero_ps(); LONG];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    /// # Safety
    /// The processor must have `avx2`, `fma`.
    #[target_feature(enable = "avx2,fma")]
    pub fn f32_avx2(rounds: usize) {
        let [a, b] = black_box([0.5; 2]).map(|x| _mm256_set1_ps(x));
        let mut sums = [_mm256_setzero_ps(); SHORT];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    /// # Safety
    /// The processor must have `avx512f`, `avx512bf16`.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn bf16_avx512(rounds: usize) {
        let [a, b] = black_box([0.5; 2]).map(|x| _mm512_set1_ps(x)).map(|x| _mm512_cvtne2ps_pbh(x, x));
        let mut sums = [_mm512_setzero_ps(); LONG];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    /// # Safety
    /// The processor must have `avx512f`, `avx512vnni`.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn int8_avx512(rounds: usize) {
        let [a, b] = black_box([0x0102_0304; 2]).map(|x| _mm512_set1_epi32(x));
        let mut sums = [_mm512_setzero_si512(); LONG];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }
}
