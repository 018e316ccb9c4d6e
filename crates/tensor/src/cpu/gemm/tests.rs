//! Tests of products against plain sums in f64, and of their bits for several numbers of threads, levels and forms.

use super::*;
use crate::cpu::parallel::testing::with_threads;
use crate::cpu::target::Target;
use crate::cpu::testing::random;

const SHAPES: &[(usize, usize, usize)] = if cfg!(miri) { &SMALL } else { &LARGE };

/// Several tiles, blocks of k and blocks of rows with the sizes that Miri has, and what is left over of each.
const SMALL: [(usize, usize, usize); 6] = [(1, 1, 1), (2, 33, 14), (13, 2, 25), (15, 17, 3), (25, 9, 30), (7, 70, 5)];

const LARGE: [(usize, usize, usize); 21] = [
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

/// These shapes, or smaller ones for Miri.
fn small_or<const N: usize>(shapes: [(usize, usize, usize); N]) -> Vec<(usize, usize, usize)> {
    let small = |(m, n, k): (usize, usize, usize)| (m.min(13), n.min(40), k.min(99));
    shapes.into_iter().map(|shape| if cfg!(miri) { small(shape) } else { shape }).collect()
}

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
    for &(m, n, k) in SHAPES {
        for layout in 0..4 {
            let gap = 3 * (layout % 3);
            let (a, sa) = stored::<T>(m, k, layout & 1 != 0, gap, 1);
            let (b, sb) = stored::<T>(k, n, layout & 2 != 0, gap, 2);
            let (c0, (stride, _)) = stored::<T>(m, n, false, gap, 3);
            for accumulate in [false, true] {
                // Overwriting, whatever C held must not matter.
                let c0: Vec<T> = if accumulate { c0.clone() } else { vec![T::from_f64(f64::NAN); c0.len()] };
                let results = with_threads(|| {
                    let mut c = c0.clone();
                    let (a, b) = (View::new(&a, m, k, sa.0, sa.1), View::new(&b, k, n, sb.0, sb.1));
                    matmul(a, b, ViewMut::new(&mut c, m, n, stride), accumulate);
                    c
                });
                let bytes = results.each_ref().map(|c| bytemuck::cast_slice::<T, u8>(c));
                assert!(bytes.iter().all(|c| *c == bytes[0]), "{m} {n} {k} layout {layout} differs by threads");
                // A sample of the elements: the corners and some between.
                for (i, j) in [(0, 0), (m - 1, n - 1), (m / 2, n / 3), (m / 3, n - 1), (m - 1, n / 2)] {
                    let terms = (0..k).map(|l| a[i * sa.0 + l * sa.1].to_f64() * b[l * sb.0 + j * sb.1].to_f64());
                    let before = c0[i * stride + j].to_f64();
                    let want = terms.sum::<f64>() + if accumulate { before } else { 0.0 };
                    let got = results[0][i * stride + j].to_f64();
                    assert!((got - want).abs() <= tolerance * (k as f64).sqrt(), "{m} {n} {k}: {got}, expected {want}");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, SHAPES.len() * 40);
}

#[test]
fn same_bits_for_any_number_of_threads_and_right() {
    use crate::cpu::simd::testing::at_each_level;
    at_each_level(|_| {
        against_naive::<f32>(5e-6);
        against_naive::<f64>(1e-14);
    });
}

/// Products with everything that goes along with them, against f64: operands that bf16 holds exactly.
fn epilogues(precision: Precision) {
    use crate::cpu::testing::{close, wide};
    let exact = |n, seed| random(n, seed).into_iter().map(|x| half::bf16::from_f64(x).to_f32()).collect::<Vec<_>>();
    let shapes = [(1, 1, 1), (5, 33, 7), (12, 32, 64), (25, 100, 13), (70, 130, 500), (130, 40, 801)];
    for (m, n, k) in small_or(shapes) {
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

/// The nearest of `2 * limit + 1` evenly spaced numbers, by the definition.
fn nearest(x: &[f32], limit: f64) -> Vec<f64> {
    let largest = x.iter().fold(0f64, |largest, &x| largest.max(f64::from(x).abs()));
    x.iter().map(|&x| (f64::from(x) * limit / largest).round() * largest / limit).collect()
}

#[test]
fn rows_and_columns_are_rounded_to_int8() {
    use crate::cpu::simd::testing::at_each_level;
    at_each_level(|level| {
        for (m, n, k) in small_or([(1, 1, 1), (13, 40, 7), (5, 33, 1600), (30, 64, 4000)]) {
            let (a, b): (Vec<f32>, Vec<f32>) = (stored(m, k, false, 0, 1).0, stored(n, k, false, 0, 2).0);
            let rounded = |x: &[f32], limit| x.chunks(k).map(|x| nearest(x, limit)).collect::<Vec<_>>();
            let (a_rounded, b_rounded) = (rounded(&a, 127.0), rounded(&b, 64.0));
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
    for (m, n, k) in small_or([(30, 64, 100), (12, 48, 7), (25, 96, 900)]) {
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
    for (m, n, k) in small_or([(1, 1, 1), (13, 40, 7), (5, 100, 1601)]) {
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

/// Rows of integers with a scale each, by the definition.
fn quantized(x: &[f32], k: usize, limit: f32) -> Vec<(Vec<i32>, f32)> {
    let row = |x: &[f32]| {
        let largest = x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let factor = f64::from(limit / largest);
        (x.iter().map(|&x| (f64::from(x) * factor).round_ties_even() as i32).collect(), largest / limit)
    };
    x.chunks(k).map(row).collect()
}

/// The sum over k of an element in the order that all kernels keep: `block` computes the sum of a block.
fn in_order(k: usize, elements: usize, block: impl Fn(std::ops::Range<usize>) -> f32) -> f32 {
    let range = |(from, units): (usize, usize)| from * elements..((from + units) * elements).min(k);
    blocks::blocks(k.div_ceil(elements)).map(range).map(block).reduce(|sum, block| block + sum).unwrap_or(0.0)
}

/// Every kernel gives the bits of these formulas, so all processors with fused multiply-adds agree in f32, and all processors
/// in int8, whose sums are exact. The baseline of x86-64 has no fused multiply-add.
#[test]
fn all_levels_give_the_bits_of_the_formula() {
    use crate::cpu::simd::{Level, testing::at_each_level};
    for (m, n, k) in small_or([(1, 1, 1), (5, 33, 70), (13, 40, 1000), (20, 100, 3203)]) {
        let (a, b): (Vec<f32>, Vec<f32>) = (stored(m, k, false, 0, 1).0, stored(n, k, false, 0, 2).0);
        let f32s = (0..m * n).map(|e| {
            let (a, b) = (&a[e / n * k..][..k], &b[e % n * k..][..k]);
            in_order(k, 1, |block| block.fold(0.0, |sum, l| a[l].mul_add(b[l], sum)))
        });
        let f32s: Vec<f32> = f32s.collect();
        let (rows, columns) = (quantized(&a, k, 127.0), quantized(&b, k, 64.0));
        let integers = (0..m * n).map(|e| {
            let ((a, a_scale), (b, b_scale)) = (&rows[e / n], &columns[e % n]);
            in_order(k, 4, |block| block.map(|l| a[l] * b[l]).sum::<i32>() as f32 * (a_scale * b_scale))
        });
        let integers: Vec<f32> = integers.collect();
        at_each_level(|level| {
            let product = |precision| {
                let mut c = vec![f32::NAN; m * n];
                let product = Gemm::new(View::rows(&a, m, k), View::rows(&b, n, k).transposed());
                product.precision(precision).write_to(ViewMut::rows(&mut c, m, n));
                c
            };
            assert!(product(Precision::Int8) == integers, "int8 {m} {n} {k} at {level:?}");
            if cfg!(target_arch = "aarch64") || level > Level::Baseline {
                assert!(product(Precision::F32) == f32s, "f32 {m} {n} {k} at {level:?}");
            }
        });
    }
}

/// The rows of a result of int8 do not depend on the other rows, which decide the tiles that compute them.
#[test]
fn rows_of_int8_do_not_depend_on_their_companions() {
    let _steady = crate::cpu::simd::testing::steady_level();
    let (m, n, k) = if cfg!(miri) { (9, 40, 60) } else { (29, 40, 1700) };
    let (a, b): (Vec<f32>, Vec<f32>) = (stored(m, k, false, 0, 1).0, stored(n, k, false, 0, 2).0);
    let product = |a: &[f32]| {
        let mut c = vec![f32::NAN; a.len() / k * n];
        let product = Gemm::new(View::rows(a, a.len() / k, k), View::rows(&b, n, k).transposed());
        product.precision(Precision::Int8).write_to(ViewMut::rows(&mut c, a.len() / k, n));
        c
    };
    let all = product(&a);
    for first in 0..m {
        for count in 1..=(m - first).min(7) {
            assert_eq!(product(&a[first * k..][..count * k]), all[first * n..][..count * n]);
        }
    }
}

/// Operands without a unit stride, or of one row or column.
#[test]
fn any_strides() {
    let data: Vec<f64> = random(400, 1);
    for (m, n, k) in [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1)] {
        for [a, b] in [[(20, 3), (2, 13)], [(0, 2), (7, 0)], [(3, 20), (1, 9)]] {
            let (a_view, b_view) = (View::new(&data, m, k, a.0, a.1), View::new(&data, k, n, b.0, b.1));
            let mut c = vec![f64::NAN; m * n];
            matmul(a_view, b_view, ViewMut::rows(&mut c, m, n), false);
            for (e, &c) in c.iter().enumerate() {
                let (i, j) = (e / n, e % n);
                let want: f64 = (0..k).map(|l| data[i * a.0 + l * a.1] * data[l * b.0 + j * b.1]).sum();
                assert!((c - want).abs() < 1e-14, "{m} {n} {k}: {c}, {want}");
            }
        }
    }
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
    ViewMut::new(&mut [0.0f32; 9], 3, 3, 2);
}
