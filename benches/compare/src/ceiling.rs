//! What the machine can do at most: multiply and move.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::protocol::Dtype;

/// How long the matrix peak is measured.
const LONG_ENOUGH: Duration = Duration::from_millis(150);

/// GFLOP/s of the inner loop of a matrix product, on operands in the first-level cache, in all threads together: what
/// products would reach if nothing had to be fetched or packed. `None` where this program has no such loop for the
/// processor and type.
pub fn matrix_gflops(dtype: Dtype, threads: usize) -> Option<f64> {
    let kernel = kernel(dtype)?;
    Some(in_threads(threads, || {
        let mut flop = 0.0;
        let start = Instant::now();
        while start.elapsed() < LONG_ENOUGH {
            flop += kernel();
        }
        flop / start.elapsed().as_secs_f64()
    }))
}

/// GB/s of `a = b + s c` over arrays larger than any cache, in all threads together, counting two reads and a write.
pub fn bandwidth_gbs(threads: usize) -> f64 {
    /// 256 MiB of f32 in each array, over all threads.
    const ELEMENTS: usize = 64 << 20;
    let length = ELEMENTS / threads;
    in_threads(threads, || {
        let (mut a, b, c) = (vec![0f32; length], vec![1f32; length], vec![2f32; length]);
        let mut pass = |scale: f32| {
            let start = Instant::now();
            for ((a, b), c) in a.iter_mut().zip(&b).zip(&c) {
                *a = b + scale * c;
            }
            std::hint::black_box(&mut a);
            start.elapsed().as_secs_f64()
        };
        // The first pass faults the pages in.
        pass(1.0);
        let mut seconds: Vec<f64> = (0..7).map(|number| pass(number as f32)).collect();
        3.0 * 4.0 * length as f64 / crate::stats::median(&mut seconds)
    })
}

/// The sum of what `rate` gives in each thread, in billions.
fn in_threads(threads: usize, rate: impl Fn() -> f64 + Sync) -> f64 {
    let together = Barrier::new(threads);
    let run = || {
        together.wait();
        rate()
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or(0.0)).sum::<f64>() / 1e9
    })
}

/// A piece of the loop, which gives the operations it did.
type Kernel = Box<dyn Fn() -> f64 + Sync>;

#[cfg(not(target_arch = "x86_64"))]
fn kernel(_: Dtype) -> Option<Kernel> {
    None
}

#[cfg(target_arch = "x86_64")]
fn kernel(dtype: Dtype) -> Option<Kernel> {
    use x86::{avx2, avx512, avx512_bf16};
    let avx512f = is_x86_feature_detected!("avx512f");
    match dtype {
        // SAFETY (of all three): the processor has the feature.
        Dtype::F32 if avx512f => Some(Box::new(|| unsafe { avx512() })),
        Dtype::F32 if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => {
            Some(Box::new(|| unsafe { avx2() }))
        }
        Dtype::Bf16 if avx512f && is_x86_feature_detected!("avx512bf16") => Some(Box::new(|| unsafe { avx512_bf16() })),
        _ => None,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Length of the operands: both panels fit into 32 KiB.
    const DEPTH: usize = 96;
    /// Passes over the panels in one call.
    const PASSES: usize = 500;

    /// `$rows` numbers of one panel times three vectors of the other are added to as many vectors, which stay in
    /// registers. `$pairs` is how many products an element of four bytes takes part in.
    macro_rules! kernel {
        ($name:ident, $feature:literal, $rows:literal, $lanes:literal, $pairs:literal, $zero:ident, $load:expr, $broadcast:expr, $fma:expr) => {
            #[target_feature(enable = $feature)]
            pub fn $name() -> f64 {
                let (left, right) = (black_box([[0x3a83_3a83u32; $rows]; DEPTH]), black_box([[[0x3a83_3a83u32; $lanes]; 3]; DEPTH]));
                let mut sums = [[$zero(); 3]; $rows];
                for _ in 0..PASSES {
                    for (left, right) in left.iter().zip(&right) {
                        let right = [$load(&right[0]), $load(&right[1]), $load(&right[2])];
                        for (sums, &x) in sums.iter_mut().zip(left) {
                            let x = $broadcast(x);
                            for (sum, &y) in sums.iter_mut().zip(&right) {
                                *sum = $fma(*sum, x, y);
                            }
                        }
                    }
                }
                black_box(sums);
                (2 * $pairs * PASSES * DEPTH * $rows * 3 * $lanes) as f64
            }
        };
    }

    kernel!(
        avx512, "avx512f", 8, 16, 1, _mm512_setzero_ps,
        // SAFETY: sixteen elements are read of an array of sixteen.
        |from: &[u32; 16]| unsafe { _mm512_loadu_ps(from.as_ptr().cast()) },
        |x| _mm512_set1_ps(f32::from_bits(x)),
        |sum, x, y| _mm512_fmadd_ps(x, y, sum)
    );
    kernel!(
        avx2, "avx2,fma", 4, 8, 1, _mm256_setzero_ps,
        // SAFETY: eight elements are read of an array of eight.
        |from: &[u32; 8]| unsafe { _mm256_loadu_ps(from.as_ptr().cast()) },
        |x| _mm256_set1_ps(f32::from_bits(x)),
        |sum, x, y| _mm256_fmadd_ps(x, y, sum)
    );
    kernel!(
        avx512_bf16, "avx512f,avx512bf16", 8, 16, 2, _mm512_setzero_ps,
        // SAFETY: sixteen elements are read of an array of sixteen; the two types are sixty-four bytes.
        |from: &[u32; 16]| unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.as_ptr().cast())) },
        // SAFETY: the two types are sixty-four bytes.
        |x: u32| unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(x as i32)) },
        |sum, x, y| _mm512_dpbf16_ps(sum, x, y)
    );
}
