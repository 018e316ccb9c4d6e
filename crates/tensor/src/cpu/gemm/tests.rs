//! Tests of both engines against plain sums in f64, and of their bits for several numbers of threads.

use super::*;
use crate::cpu::parallel::testing::with_threads;
use crate::cpu::target::Target;
use crate::cpu::testing::random;

const SHAPES: [(usize, usize, usize); 21] = [
    (1, 1, 1),
    (1, 768, 768),
    (768, 1, 768),
    (1, 3072, 64),
    (2, 768, 768),
    (8, 2, 768),
    (15, 15, 64),
    (16, 17, 33),
    (40, 40, 32),
    (100, 64, 100),
    (128, 128, 64),
    (128, 768, 768),
    (20, 3000, 96),
    (3000, 96, 20),
    (256, 1536, 16),
    (1000, 7, 300),
    (7, 1000, 300),
    (511, 513, 257),
    (64, 64, 4096),
    (1, 2000, 1000),
    (2000, 1, 1000),
];

fn matmul<T: Real>(a: View<'_, T>, b: View<'_, T>, c: ViewMut<'_, T>, accumulate: bool) {
    Gemm::new(a, b).accumulate(accumulate).write_to(c);
}

/// A matrix stored row-major or column-major, with a gap between rows.
fn stored<T: Real>(rows: usize, cols: usize, transposed: bool, gap: usize, seed: u64) -> (Vec<T>, (usize, usize)) {
    let (outer, inner) = if transposed { (cols, rows) } else { (rows, cols) };
    let data = random(outer * (inner + gap), seed).into_iter().map(T::from_f64).collect();
    (data, if transposed { (1, inner + gap) } else { (inner + gap, 1) })
}

fn against_naive<T: Real>(tolerance: f64) {
    let mut cases = 0;
    for (m, n, k) in SHAPES {
        for layout in 0..8 {
            let gap = 3 * (layout % 3);
            let (a, sa) = stored::<T>(m, k, layout & 1 != 0, gap, 1);
            let (b, sb) = stored::<T>(k, n, layout & 2 != 0, gap, 2);
            let (c0, sc) = stored::<T>(m, n, layout & 4 != 0, gap, 3);
            for accumulate in [false, true] {
                // Overwriting, whatever C held must not matter.
                let c0: Vec<T> = if accumulate { c0.clone() } else { vec![T::from_f64(f64::NAN); c0.len()] };
                let results = with_threads(|| {
                    let mut c = c0.clone();
                    let (a, b) = (View::new(&a, m, k, sa.0, sa.1), View::new(&b, k, n, sb.0, sb.1));
                    matmul(a, b, ViewMut::new(&mut c, m, n, sc.0, sc.1), accumulate);
                    c
                });
                let bytes = results.each_ref().map(|c| bytemuck::cast_slice::<T, u8>(c));
                assert!(bytes.iter().all(|c| *c == bytes[0]), "{m} {n} {k} layout {layout} differs by threads");
                // A sample of the elements: the corners and some between.
                for (i, j) in [(0, 0), (m - 1, n - 1), (m / 2, n / 3), (m / 3, n - 1), (m - 1, n / 2)] {
                    let terms = (0..k).map(|l| a[i * sa.0 + l * sa.1].to_f64() * b[l * sb.0 + j * sb.1].to_f64());
                    let before = c0[i * sc.0 + j * sc.1].to_f64();
                    let want = terms.sum::<f64>() + if accumulate { before } else { 0.0 };
                    let got = results[0][i * sc.0 + j * sc.1].to_f64();
                    assert!((got - want).abs() <= tolerance * (k as f64).sqrt(), "{m} {n} {k}: {got}, expected {want}");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, SHAPES.len() * 80);
}

#[test]
fn same_bits_for_any_number_of_threads_and_right() {
    let _steady = crate::cpu::simd::testing::steady_level();
    against_naive::<f32>(5e-6);
    against_naive::<f64>(1e-14);
}

/// Products with everything that goes along with them, against f64: operands that bf16 holds exactly.
fn epilogues(precision: Precision) {
    use crate::cpu::testing::{close, wide};
    let exact = |n, seed| random(n, seed).into_iter().map(|x| half::bf16::from_f64(x).to_f32()).collect::<Vec<_>>();
    for (m, n, k) in [(1, 1, 1), (5, 33, 7), (12, 32, 64), (25, 100, 13), (70, 130, 500), (130, 40, 801)] {
        let (a, b) = (exact(k * m, 1), exact(n * k, 2));
        let (bias, u, before) = (exact(n, 3), exact(m * n, 4), exact(m * n, 5));
        let at = |i: usize, j: usize| (0..k).map(|l| a[l * m + i] as f64 * b[j * k + l] as f64).sum::<f64>();
        let product: Vec<f64> = (0..m * n).map(|e| at(e / n, e % n)).collect();
        let biased: Vec<f64> = (0..m * n).map(|e| product[e] + bias[e % n] as f64).collect();
        let gelus: Vec<f64> = biased.iter().map(|x| x * x.normal().0).collect();
        let slope = |x: f64| x.normal().0 + x * x.normal().1;
        let case = format!("{m} {n} {k} {precision}");
        let check = |gemm: Gemm<'_, f32>, want: &[f64]| {
            let mut c = if gemm.accumulate { before.clone() } else { vec![f32::NAN; m * n] };
            gemm.precision(precision).write_to(ViewMut::rows(&mut c, m, n));
            close(&c, want, 2e-6, &case);
        };
        let (a_view, b_view) = (View::new(&a, m, k, 1, m), View::new(&b, k, n, 1, k));
        let gelu = crate::gelu::Gelu::Erf;
        let mut out = vec![f32::NAN; m * n];
        check(Gemm::new(a_view, b_view).epilogue(Epilogue::Bias(&bias)), &biased);
        check(Gemm::new(a_view, b_view).epilogue(Epilogue::BiasGelu(&bias, gelu)), &gelus);
        check(Gemm::new(a_view, b_view).epilogue(Epilogue::BiasAndGelu(&bias, gelu, &mut out)), &biased);
        close(&out, &gelus, 2e-6, &case);
        let want: Vec<f64> = (0..m * n).map(|e| product[e] * slope(u[e] as f64)).collect();
        check(Gemm::new(a_view, b_view).epilogue(Epilogue::GeluGradient(&u, gelu, &mut out)), &want);
        close(&out, &wide(&u).iter().map(|x| x * x.normal().0).collect::<Vec<_>>(), 2e-6, &case);
        let want: Vec<f64> = (0..m * n).map(|e| product[e] + before[e] as f64).collect();
        for accumulate in [false, true] {
            let mut sums = vec![1.0; m];
            let target = Target::new(&mut sums, accumulate);
            check(Gemm::new(a_view, b_view).accumulate(true).row_sums(Some(target)), &want);
            let row = |i: usize| (0..k).map(|l| a[l * m + i] as f64).sum::<f64>() + f64::from(u8::from(accumulate));
            close(&sums, &(0..m).map(row).collect::<Vec<_>>(), 2e-6, &case);
        }
    }
}

#[test]
fn epilogues_and_row_sums() {
    use crate::cpu::simd::testing::at_each_level;
    at_each_level(|_| {
        epilogues(Precision::F32);
        epilogues(Precision::Bf16);
        epilogues(Precision::F16);
    });
}

/// Both engines round operands to the nearest number, ties to even.
#[test]
fn operands_are_rounded() {
    use crate::cpu::simd::testing::at_each_level;
    at_each_level(|level| {
        let (n, k) = (40, 50);
        let (a, b): (Vec<f32>, Vec<f32>) = (stored(1, k, false, 0, 1).0, stored(k, n, false, 0, 2).0);
        let cases =
            [(Precision::Bf16, false), (Precision::Bf16, true), (Precision::F16, false), (Precision::F16, true)];
        for (precision, transposed) in cases {
            let mut c = vec![0.0; n];
            let b_view = if transposed { View::new(&b, k, n, 1, k) } else { View::rows(&b, k, n) };
            let product = Gemm::new(View::rows(&a, 1, k), b_view).precision(precision);
            product.write_to(ViewMut::rows(&mut c, 1, n));
            let round = |x: f32| match precision {
                Precision::F16 => half::f16::from_f32(x).to_f64(),
                _ => half::bf16::from_f32(x).to_f64(),
            };
            for (j, &c) in c.iter().enumerate() {
                let b = |l: usize| b[if transposed { j * k + l } else { l * n + j }];
                let want: f64 = (0..k).map(|l| round(a[l]) * round(b(l))).sum();
                assert!((c as f64 - want).abs() < 1e-5, "{c} against {want} at {level:?}");
            }
        }
    });
}

/// The nearest of 255 evenly spaced numbers, by the definition.
fn nearest(x: &[f32]) -> Vec<f64> {
    let largest = x.iter().fold(0f64, |largest, &x| largest.max(f64::from(x).abs()));
    x.iter().map(|&x| (f64::from(x) * 127.0 / largest).round() * largest / 127.0).collect()
}

#[test]
fn rows_and_columns_are_rounded_to_int8() {
    use crate::cpu::simd::testing::at_each_level;
    at_each_level(|level| {
        for (m, n, k) in [(1, 1, 1), (13, 40, 7), (5, 33, 1600), (30, 64, 4000)] {
            let (a, b): (Vec<f32>, Vec<f32>) = (stored(m, k, false, 0, 1).0, stored(n, k, false, 0, 2).0);
            let rounded = |x: &[f32]| x.chunks(k).map(nearest).collect::<Vec<_>>();
            let (a_rounded, b_rounded) = (rounded(&a), rounded(&b));
            let mut c = vec![f32::NAN; m * n];
            let product = Gemm::new(View::rows(&a, m, k), View::rows(&b, n, k).transposed());
            product.precision(Precision::Int8).write_to(ViewMut::rows(&mut c, m, n));
            for (e, &c) in c.iter().enumerate() {
                let want: f64 = a_rounded[e / n].iter().zip(&b_rounded[e % n]).map(|(a, b)| a * b).sum();
                // Half a step may round either way in f32.
                assert!((f64::from(c) - want).abs() < 2e-2 * (k as f64).sqrt().max(1.0), "{c}, {want} at {level:?}");
                assert!(k > 7 || (f64::from(c) - want).abs() < 1e-6, "{c}, {want} at {level:?}");
            }
        }
        let (x, bad) = ([1.0f32, 2.0], [1.0, f32::NAN]);
        for (a, b) in [(&x, &bad), (&bad, &x)] {
            let mut c = [0.0];
            let product = Gemm::new(View::rows(a, 1, 2), View::rows(b, 1, 2).transposed());
            product.precision(Precision::Int8).write_to(ViewMut::rows(&mut c, 1, 1));
            assert!(c[0].is_nan());
        }
    });
}

#[test]
fn what_is_written_past_the_caches_has_the_same_bits() {
    let _steady = crate::cpu::simd::testing::steady_level();
    for (m, n, k) in [(30, 64, 100), (12, 48, 7), (25, 96, 900)] {
        let (a, b): (Vec<f32>, Vec<f32>) = (stored(m, k, true, 0, 1).0, stored(k, n, false, 0, 2).0);
        let results = with_threads(|| {
            [false, true].map(|later| {
                let mut memory = vec![f32::NAN; m * n + 16];
                let start = (0..16).find(|&at| memory[at..].as_ptr().addr().is_multiple_of(64)).expect("a line begins");
                let product = Gemm::new(View::new(&a, m, k, 1, m), View::rows(&b, k, n));
                let product = if later { product.for_later() } else { product };
                product.write_to(ViewMut::rows(&mut memory[start..][..m * n], m, n));
                memory[start..][..m * n].to_vec()
            })
        });
        assert!(results.iter().flatten().all(|c| *c == results[0][0]));
    }
}

#[test]
fn packed_matrices_give_the_same_bits() {
    let _steady = crate::cpu::simd::testing::steady_level();
    for (m, n, k) in [(1, 1, 1), (13, 40, 7), (5, 100, 1601)] {
        let (a, b): (Vec<f32>, Vec<f32>) = (stored(m, k, false, 0, 1).0, stored(n, k, false, 0, 2).0);
        for precision in [Precision::F32, Precision::Bf16, Precision::F16, Precision::Int8] {
            let packed = PackedMatrix::new(&b, n, k, precision);
            let results = [None, packed.as_ref()].map(|packed| {
                let mut c = vec![f32::NAN; m * n];
                let product = Gemm::new(View::rows(&a, m, k), View::rows(&b, n, k).transposed());
                product.packed(packed).precision(precision).write_to(ViewMut::rows(&mut c, m, n));
                c
            });
            assert_eq!(results[0], results[1]);
        }
    }
}

/// Large products go to the crate in parts, with a copy of A, which must not change a bit of the result.
#[test]
fn parts_give_the_bits_of_the_whole() {
    fn check<T: Real>(m: usize, n: usize, k: usize) {
        for layout in 0..4 {
            let (a, sa) = stored::<T>(m, k, layout & 1 != 0, 0, 1);
            let (b, sb) = stored::<T>(k, n, layout & 2 != 0, 0, 2);
            let (a, b) = (View::new(&a, m, k, sa.0, sa.1), View::new(&b, k, n, sb.0, sb.1));
            let (mut parts, mut whole) = (vec![T::ONE; m * n], vec![T::ONE; m * n]);
            portable::run(Gemm::new(a, b).accumulate(true), ViewMut::rows(&mut parts, m, n));
            portable::by_crate(a, b, true, ViewMut::rows(&mut whole, m, n));
            assert!(bytemuck::cast_slice::<T, u8>(&parts) == bytemuck::cast_slice::<T, u8>(&whole));
        }
    }
    check::<f32>(1031, 70, 1100);
    check::<f32>(70, 2049, 600);
    check::<f64>(65, 1025, 130);
    check::<f64>(601, 67, 1030);
}

#[test]
fn empty_sizes() {
    let nan = f32::NAN;
    let mut c = [nan; 6];
    matmul(View::rows(&[], 2, 0), View::rows(&[], 0, 3), ViewMut::rows(&mut c, 2, 3), false);
    assert_eq!(c, [0.0; 6]);
    let mut c = [1.0; 6];
    matmul(View::rows(&[], 2, 0), View::rows(&[], 0, 3), ViewMut::rows(&mut c, 2, 3), true);
    assert_eq!(c, [1.0; 6]);
    matmul(View::rows(&[], 0, 2), View::rows(&[1.0; 6], 2, 3), ViewMut::rows(&mut [], 0, 3), false);
    matmul(View::rows(&[1.0; 4], 2, 2), View::rows(&[], 2, 0), ViewMut::rows(&mut [], 2, 0), false);
}

#[test]
#[should_panic]
fn a_view_past_its_slice_panics() {
    View::new(&[0.0f32; 5], 2, 3, 3, 1);
}

#[test]
#[should_panic]
fn a_destination_over_itself_panics() {
    ViewMut::new(&mut [0.0f32; 9], 3, 3, 1, 1);
}
