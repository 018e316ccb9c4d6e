//! Matrix products: the one file in front of what computes them.
//!
//! Two engines. On x86-64 with AVX-512 the [`driver`] of ours takes the f32 products whose operands have unit strides: it
//! reads operands once, rounds them to a smaller type on the way where that is asked for, and finishes each element of
//! the result ([`Epilogue`]) while it is in the first-level cache. Everything else goes to the crate `gemm`, with the
//! epilogue as a pass of its own. Both give the same bits for any number of threads; the tests below hold them to
//! that, and the crate's version is pinned exactly.

#[cfg(target_arch = "x86_64")]
mod driver;
mod epilogue;
mod int8;
#[cfg(target_arch = "x86_64")]
mod kernels;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(target_arch = "x86_64")]
mod pack_int8;
#[cfg(target_arch = "x86_64")]
mod packed;
mod small;
mod view;

use super::column_sums::column_sums;
use super::{Real, Target};
use crate::Precision;
pub(crate) use epilogue::Epilogue;
#[cfg(target_arch = "x86_64")]
pub(crate) use packed::PackedMatrix;
use view::extent;
pub(crate) use view::{View, ViewMut};

/// B of a product in the form in which it is multiplied: here there is none.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) enum PackedMatrix {}

#[cfg(not(target_arch = "x86_64"))]
impl PackedMatrix {
    pub(crate) fn new(_: &[f32], _: usize, _: usize, _: Precision) -> Option<PackedMatrix> {
        None
    }

    pub(crate) fn is_for(&self, _: Precision) -> bool {
        match *self {}
    }
}

/// What a type needs to be multiplied in matrices.
pub(crate) trait Multiply: Copy + PartialEq + Default + 'static {
    /// The number 1.
    const UNIT: Self;

    /// Computes a product that has elements.
    fn multiply(gemm: Gemm<'_, Self>, c: ViewMut<'_, Self>);

    /// As [`Gemm::serial`], of a product that has elements.
    ///
    /// # Safety
    /// As there.
    unsafe fn multiply_serially(gemm: Gemm<'_, Self>, c: *mut Self, stride: usize, space: &mut Workspace<Self>);
}

impl Multiply for f32 {
    const UNIT: f32 = 1.0;

    fn multiply(gemm: Gemm<'_, f32>, c: ViewMut<'_, f32>) {
        #[cfg(target_arch = "x86_64")]
        if driver::takes(&gemm, &c) {
            return driver::run(gemm, c);
        }
        let (a, b) = (gemm.a, gemm.b);
        match gemm.precision {
            Precision::F32 => by_crate(a, b, gemm.accumulate, c, gemm.epilogue),
            Precision::Bf16 | Precision::F16 => {
                let (a_data, b_data) = (rounded(a, gemm.precision), rounded(b, gemm.precision));
                let (a, b) = (View { data: &a_data, ..a }, View { data: &b_data, ..b });
                by_crate(a, b, gemm.accumulate, c, gemm.epilogue);
            }
            Precision::Int8 => {
                assert!(a.col_stride == 1 && b.row_stride == 1, "rows of both operands lie side by side");
                let a_data = int8::rounded(a.data, a.rows, a.cols, a.row_stride);
                let b_data = int8::rounded(b.data, b.cols, b.rows, b.col_stride);
                let (a, b) = (View::rows(&a_data, a.rows, a.cols), View::rows(&b_data, b.cols, b.rows).transposed());
                by_crate(a, b, gemm.accumulate, c, gemm.epilogue);
            }
        }
        if let Some(sums) = gemm.row_sums {
            sum_rows(gemm.a, sums);
        }
    }

    #[inline]
    unsafe fn multiply_serially(gemm: Gemm<'_, f32>, c: *mut f32, stride: usize, space: &mut Workspace<f32>) {
        #[cfg(target_arch = "x86_64")]
        if driver::multiplies(&gemm) {
            // SAFETY: the caller's promise.
            return unsafe { driver::run_serially(gemm, c, stride, &mut space.driver) };
        }
        let (a, b) = (gemm.a, gemm.b);
        if matches!(gemm.precision, Precision::Bf16 | Precision::F16) {
            let (a_data, b_data) = (rounded(a, gemm.precision), rounded(b, gemm.precision));
            let (a, b) = (View { data: &a_data, ..a }, View { data: &b_data, ..b });
            return small::multiply(a, b, c, stride, gemm.accumulate, &mut space.general);
        }
        small::multiply(a, b, c, stride, gemm.accumulate, &mut space.general);
    }
}

impl Multiply for f64 {
    const UNIT: f64 = 1.0;

    fn multiply(gemm: Gemm<'_, f64>, c: ViewMut<'_, f64>) {
        by_crate(gemm.a, gemm.b, gemm.accumulate, c, gemm.epilogue);
        if let Some(sums) = gemm.row_sums {
            sum_rows(gemm.a, sums);
        }
    }

    #[inline]
    unsafe fn multiply_serially(gemm: Gemm<'_, f64>, c: *mut f64, stride: usize, space: &mut Workspace<f64>) {
        small::multiply(gemm.a, gemm.b, c, stride, gemm.accumulate, &mut space.general);
    }
}

/// A matrix product that is to be computed: `C = A B`, with A `[m, k]`, B `[k, n]` and C `[m, n]`.
pub(crate) struct Gemm<'a, T> {
    a: View<'a, T>,
    b: View<'a, T>,
    packed: Option<&'a PackedMatrix>,
    precision: Precision,
    accumulate: bool,
    is_for_later: bool,
    epilogue: Epilogue<'a, T>,
    row_sums: Option<Target<'a, T>>,
}

impl<'a, T: Real> Gemm<'a, T> {
    /// `A B`; panics when their sizes do not fit.
    pub(crate) fn new(a: View<'a, T>, b: View<'a, T>) -> Self {
        assert_eq!(a.cols, b.rows, "sizes of a matrix product");
        Gemm {
            a,
            b,
            packed: None,
            precision: Precision::F32,
            accumulate: false,
            is_for_later: false,
            epilogue: Epilogue::None,
            row_sums: None,
        }
    }

    /// With the packed form of B, where there is one.
    pub(crate) fn packed(self, packed: Option<&'a PackedMatrix>) -> Self {
        Gemm { packed, ..self }
    }

    /// With operands rounded to this, where they are f32. For int8 rows of A and columns of B must lie side by side.
    pub(crate) fn precision(self, precision: Precision) -> Self {
        Gemm { precision, ..self }
    }

    /// `C += A B` where true.
    pub(crate) fn accumulate(self, accumulate: bool) -> Self {
        Gemm { accumulate, ..self }
    }

    /// Says that C is not read soon, so that it need not take the place of something else in the caches: the gradients of
    /// weights.
    pub(crate) fn for_later(self) -> Self {
        Gemm { is_for_later: true, ..self }
    }

    pub(crate) fn epilogue(self, epilogue: Epilogue<'a, T>) -> Self {
        Gemm { epilogue, ..self }
    }

    /// Also sums the rows of A, which is read anyway: `[m]`, not rounded. For the gradient of a bias, where A is the
    /// transpose of a gradient; A must be column-major.
    pub(crate) fn row_sums(self, sums: Option<Target<'a, T>>) -> Self {
        Gemm { row_sums: sums, ..self }
    }

    /// Computes it. Without [`accumulate`](Gemm::accumulate), `c` is overwritten without being read.
    pub(crate) fn write_to(self, c: ViewMut<'_, T>) {
        assert!(self.a.rows == c.rows && self.b.cols == c.cols, "sizes of a matrix product");
        self.epilogue.check(&c);
        let (rows, is_column_major) = (self.a.rows, self.a.row_stride == 1);
        assert!(self.row_sums.as_ref().is_none_or(|sums| sums.data.len() == rows && is_column_major));
        if rows > 0 && c.cols > 0 {
            T::multiply(self, c);
        } else if let Some(sums) = self.row_sums {
            sum_rows(self.a, sums);
        }
    }
}

/// Working memory for [`Gemm::serial`].
#[derive(Default)]
pub(crate) struct Workspace<T> {
    general: Vec<T>,
    #[cfg(target_arch = "x86_64")]
    driver: driver::Workspace,
}

impl<T: Real> Gemm<'_, T> {
    /// Computes it on this thread alone, into where `c` points, its rows `stride` apart: for the small products of which a
    /// task has many. Only precision and accumulation are heeded.
    ///
    /// # Safety
    /// C must be writable, and nothing else may access its elements.
    #[inline]
    pub(crate) unsafe fn serial(self, c: *mut T, stride: usize, space: &mut Workspace<T>) {
        if self.a.rows > 0 && self.b.cols > 0 {
            // SAFETY: the caller's promise.
            unsafe { T::multiply_serially(self, c, stride, space) };
        }
    }
}

/// The sums of the rows of a column-major matrix.
fn sum_rows<T: Real>(a: View<'_, T>, sums: Target<'_, T>) {
    column_sums(a.data, a.cols, a.col_stride, sums);
}

/// The elements that a matrix reaches over, rounded to the precision of bf16 or f16, as f32.
fn rounded(matrix: View<'_, f32>, to: Precision) -> Vec<f32> {
    let View { data, rows, cols, row_stride, col_stride } = matrix;
    let elements = data[..extent(rows, cols, row_stride, col_stride)].iter();
    match to {
        Precision::F16 => elements.map(|&x| round::<13>(x)).collect(),
        _ => elements.map(|&x| round::<16>(x)).collect(),
    }
}

/// Without the lowest `BITS` bits: rounded to the nearest, ties to even. NaN stays NaN.
fn round<const BITS: u32>(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add((1 << (BITS - 1)) - 1 + (bits >> BITS & 1));
    f32::from_bits(if x.is_nan() { bits } else { rounded >> BITS << BITS })
}

/// A product by the crate, then its epilogue.
fn by_crate<T: Real>(a: View<'_, T>, b: View<'_, T>, accumulate: bool, c: ViewMut<'_, T>, epilogue: Epilogue<'_, T>) {
    let parallelism = match rayon::current_num_threads() {
        1 => gemm::Parallelism::None,
        threads => gemm::Parallelism::Rayon(threads),
    };
    // The crate computes C = scale C + factor A B.
    let scale = if accumulate { T::UNIT } else { T::default() };
    // SAFETY: the views were checked against their slices, and C, borrowed mutably, overlaps neither A, B nor itself.
    unsafe {
        gemm::gemm(
            c.rows,
            c.cols,
            a.cols,
            c.data.as_mut_ptr(),
            c.col_stride as isize,
            c.row_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            scale,
            T::UNIT,
            false,
            false,
            false,
            parallelism,
        );
    }
    epilogue::apply(epilogue, c);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::parallel::testing::with_threads;
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
                        assert!(
                            (got - want).abs() <= tolerance * (k as f64).sqrt(),
                            "{m} {n} {k}: {got}, expected {want}"
                        );
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
            let gelu = crate::Gelu::Erf;
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

    /// What is rounded is rounded to the nearest, ties to even, whichever engine does it.
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
                    assert!(
                        (f64::from(c) - want).abs() < 2e-2 * (k as f64).sqrt().max(1.0),
                        "{c}, {want} at {level:?}"
                    );
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
                    let start =
                        (0..16).find(|&at| memory[at..].as_ptr().addr().is_multiple_of(64)).expect("a line begins");
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
}
