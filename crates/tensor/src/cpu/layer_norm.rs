//! Layer normalisation, on its own and fused with the residual connection before it: `LN(residual + dropout(x))`.
//!
//! Mean and variance take two passes over a row that is in the first-level cache, because the one-pass formula suffers
//! from cancellation. Forward keeps the mean and the reciprocal standard deviation of each row; backward recomputes the
//! normalised row from the input. The gradients of gamma and beta are summed within blocks of a fixed number of rows, then
//! the sums of the blocks in order, so they do not depend on the number of threads.
//!
//! With `h = (z - mean) rstd` and `w = dy gamma`: `dz = rstd (w - mean(w) - h mean(w h))`, `dgamma = sum(dy h)`,
//! `dbeta = sum(dy)`. Source: Ba, Kiros and Hinton, "Layer Normalization", 2016.

use std::ops::Range;

use crate::dropout::{Dropout, RowCoordinate};

use super::dropout::multipliers;
use super::lanes::{sum, sum2};
use super::parallel::{PerBlock, Rows, RowsMut, block_items, for_blocks, for_rows};
use super::real::Real;
use super::simd::simd;
use super::target::{Target, put};

/// The cost per element, in the units of [`for_rows`].
const COST: usize = 3;

/// The parameters of a normalisation: `gamma [W]`, `beta [W]`, and the number added to the variance.
#[derive(Clone, Copy)]
pub(crate) struct NormParameters<'a, T> {
    pub(crate) gamma: &'a [T],
    pub(crate) beta: &'a [T],
    pub(crate) eps: f64,
}

impl<T> NormParameters<'_, T> {
    /// Returns the number of elements in a row.
    pub(super) fn width(&self) -> usize {
        self.gamma.len()
    }
}

/// The outputs of a forward: `y [R, W]`, and the mean and reciprocal standard deviation `[R]` that backward needs.
pub(crate) struct NormOutputs<'a, T> {
    pub(crate) y: &'a mut [T],
    pub(crate) mean: &'a mut [T],
    pub(crate) rstd: &'a mut [T],
}

impl<T: Real> NormOutputs<'_, T> {
    /// Asserts that the outputs have the sizes of `count` rows.
    pub(super) fn check(&self, count: usize, norm: &NormParameters<'_, T>) {
        let width = norm.width();
        assert!(norm.beta.len() == width && self.y.len() == count * width);
        assert!(self.mean.len() == count && self.rstd.len() == count);
    }

    /// Normalises row `row` of `z [R, W]`.
    #[inline(always)]
    pub(super) fn normalise(&mut self, norm: &NormParameters<'_, T>, row: usize, z: &[T]) {
        let y = &mut self.y[row * z.len()..][..z.len()];
        (self.mean[row], self.rstd[row]) = normalise(z, norm.gamma, norm.beta, T::from_f64(norm.eps), y);
    }
}

/// Computes `y = LN(z)` for one row and returns its mean and reciprocal standard deviation.
#[inline(always)]
fn normalise<T: Real>(z: &[T], gamma: &[T], beta: &[T], eps: T, y: &mut [T]) -> (T, T) {
    let n = T::from_usize(z.len());
    let mean = sum(z, |z| z) / n;
    let squares = sum(z, |z| (z - mean) * (z - mean)) / n;
    // The rounding error of the mean. If all elements are equal, nothing else would be left of them, and it would be
    // normalised.
    let error = sum(z, |z| z - mean) / n;
    let mean = mean + error;
    let variance = (squares - error * error).max(T::ZERO);
    let rstd = T::ONE / (variance + eps).sqrt();
    for (((y, &z), &g), &b) in y.iter_mut().zip(z).zip(gamma).zip(beta) {
        *y = ((z - mean) * rstd).mul_add(g, b);
    }
    (mean, rstd)
}

impl<T: Real> Rows for NormOutputs<'_, T> {
    #[inline]
    fn split(self, rows: usize) -> (Self, Self) {
        let width = self.y.len() / self.mean.len();
        let (y, mean, rstd) =
            (self.y.split_at_mut(rows * width), self.mean.split_at_mut(rows), self.rstd.split_at_mut(rows));
        (NormOutputs { y: y.0, mean: mean.0, rstd: rstd.0 }, NormOutputs { y: y.1, mean: mean.1, rstd: rstd.1 })
    }
}

/// The values that backward needs: `z [R, W]`, the input of the normalisation, `gamma [W]`, and the statistics `[R]`.
#[derive(Clone, Copy)]
pub(crate) struct NormSaved<'a, T> {
    pub(crate) z: &'a [T],
    pub(crate) gamma: &'a [T],
    pub(crate) mean: &'a [T],
    pub(crate) rstd: &'a [T],
}

impl<T> NormSaved<'_, T> {
    /// Returns the same for the rows `range`.
    fn rows(&self, range: Range<usize>) -> Self {
        let width = self.gamma.len();
        NormSaved {
            z: &self.z[range.start * width..range.end * width],
            mean: &self.mean[range.clone()],
            rstd: &self.rstd[range],
            ..*self
        }
    }
}

/// A dropout and the coordinates of the rows that it applies to, which may be empty without dropout.
#[derive(Clone, Copy)]
pub(crate) struct RowDropout<'a> {
    pub(crate) dropout: &'a Dropout,
    pub(crate) rows: &'a [RowCoordinate],
}

impl RowDropout<'_> {
    /// No dropout.
    pub(crate) const NONE: RowDropout<'static> = RowDropout { dropout: &Dropout::NONE, rows: &[] };

    /// Returns the same for the rows `range`.
    fn rows(&self, range: Range<usize>) -> Self {
        let rows = if self.dropout.is_none() { &[] } else { &self.rows[range] };
        RowDropout { rows, ..*self }
    }
}

simd! {
    fn forward_block<T: Real>(z: &[T], norm: &NormParameters<'_, T>, outputs: NormOutputs<'_, T>) {
        let mut outputs = outputs;
        for (row, z) in z.chunks_exact(norm.width()).enumerate() {
            outputs.normalise(norm, row, z);
        }
    }

    fn residual_block<T: Real>(
        residual: &[T],
        x: &[T],
        dropout: RowDropout<'_>,
        norm: &NormParameters<'_, T>,
        z: &mut [T],
        outputs: NormOutputs<'_, T>,
    ) {
        let width = norm.width();
        let mut outputs = outputs;
        let mut mask = vec![T::ONE; width];
        let inputs = residual.chunks_exact(width).zip(x.chunks_exact(width));
        for (row, (z, (residual, x))) in z.chunks_exact_mut(width).zip(inputs).enumerate() {
            if let Some(&at) = dropout.rows.get(row) {
                multipliers(dropout.dropout, at, &mut mask);
            }
            for (((z, &r), &x), &m) in z.iter_mut().zip(residual).zip(x).zip(&mask) {
                *z = x.mul_add(m, r);
            }
            outputs.normalise(norm, row, z);
        }
    }

    /// Computes the gradients of a block of rows. `sums` holds `[dgamma, dbeta]` of the block and is empty if neither is
    /// wanted; `dropped` is the gradient that passed through the dropout.
    fn backward_block<T: Real>(
        dy: &[T],
        saved: NormSaved<'_, T>,
        dropout: RowDropout<'_>,
        dz: Option<Target<T>>,
        dropped: Option<Target<T>>,
        sums: &mut [T],
    ) {
        let NormSaved { z, gamma, mean, rstd } = saved;
        let width = gamma.len();
        let n = T::from_usize(width);
        let (mut dz, mut dropped) = (dz, dropped);
        let mut scratch = vec![T::ZERO; 3 * width];
        let (h, rest) = scratch.split_at_mut(width);
        let (w, mask) = rest.split_at_mut(width);
        for (i, (dy, z)) in dy.chunks_exact(width).zip(z.chunks_exact(width)).enumerate() {
            let (mean, rstd) = (mean[i], rstd[i]);
            for ((((h, w), &z), &dy), &g) in h.iter_mut().zip(w.iter_mut()).zip(z).zip(dy).zip(gamma) {
                *h = (z - mean) * rstd;
                *w = dy * g;
            }
            if !sums.is_empty() {
                let (dgamma, dbeta) = sums.split_at_mut(width);
                for (((dg, db), &h), &dy) in dgamma.iter_mut().zip(dbeta).zip(&*h).zip(dy) {
                    *dg = dy.mul_add(h, *dg);
                    *db += dy;
                }
            }
            if dz.is_none() && dropped.is_none() {
                continue;
            }
            let a = sum(w, |w| w) / n;
            let b = sum2(w, h, |w, h| w * h) / n;
            for (w, &h) in w.iter_mut().zip(&*h) {
                *w = rstd * (*w - a - h * b);
            }
            let range = i * width..(i + 1) * width;
            if let Some(dz) = &mut dz {
                put(&mut dz.data[range.clone()], w, dz.accumulate);
            }
            if let Some(dropped) = &mut dropped {
                if let Some(&at) = dropout.rows.get(i) {
                    multipliers(dropout.dropout, at, mask);
                    for (w, &m) in w.iter_mut().zip(&*mask) {
                        *w *= m;
                    }
                }
                put(&mut dropped.data[range], w, dropped.accumulate);
            }
        }
    }

    fn add_sums<T: Real>(partials: &[T], stride: usize, sums: &mut [T]) {
        for partial in partials.chunks(stride) {
            for (sum, &p) in sums.iter_mut().zip(partial) {
                *sum += p;
            }
        }
    }
}

/// Computes `y = LN(x) gamma + beta` for `x [R, W]`.
pub(crate) fn forward<T: Real>(x: &[T], norm: NormParameters<'_, T>, outputs: NormOutputs<'_, T>) {
    let (count, width) = (outputs.mean.len(), norm.width());
    outputs.check(count, &norm);
    assert_eq!(x.len(), count * width);
    if width == 0 {
        return;
    }
    for_rows(count, COST * width, outputs, |range, outputs| {
        forward_block(&x[range.start * width..range.end * width], &norm, outputs);
    });
}

/// Computes `z = residual + dropout(x)` and `y = LN(z) gamma + beta`, all `[R, W]`.
pub(crate) fn residual_forward<T: Real>(
    residual: &[T],
    x: &[T],
    dropout: RowDropout<'_>,
    norm: NormParameters<'_, T>,
    z: &mut [T],
    outputs: NormOutputs<'_, T>,
) {
    let (count, width) = (outputs.mean.len(), norm.width());
    outputs.check(count, &norm);
    assert!(x.len() == count * width && residual.len() == x.len() && z.len() == x.len());
    assert!(dropout.dropout.is_none() || dropout.rows.len() == count);
    if width == 0 {
        return;
    }
    for_rows(count, COST * width, (RowsMut::new(z, width), outputs), |range, (z, outputs)| {
        let at = range.start * width..range.end * width;
        residual_block(&residual[at.clone()], &x[at], dropout.rows(range), &norm, z.data, outputs);
    });
}

/// The gradients of a normalisation. Any of them may be left out.
pub(crate) struct NormGradients<'a, T> {
    /// The gradient of `z`, and so of a residual.
    pub(crate) dz: Option<Target<'a, T>>,
    /// The gradient of the `x` that went through the dropout.
    pub(crate) dx: Option<Target<'a, T>>,
    pub(crate) dgamma: Option<Target<'a, T>>,
    pub(crate) dbeta: Option<Target<'a, T>>,
}

/// Computes the gradients of [`forward`] or, with its dropout, of [`residual_forward`].
pub(crate) fn backward<T: Real>(
    dy: &[T],
    saved: NormSaved<'_, T>,
    dropout: RowDropout<'_>,
    gradients: NormGradients<'_, T>,
) {
    let NormGradients { dz, dx, dgamma, dbeta } = gradients;
    let (count, width) = (saved.mean.len(), saved.gamma.len());
    assert!(dy.len() == count * width && saved.z.len() == dy.len() && saved.rstd.len() == count);
    assert!(dropout.dropout.is_none() || dropout.rows.len() == count);
    assert!([&dz, &dx].into_iter().flatten().all(|slot| slot.data.len() == dy.len()));
    assert!([&dgamma, &dbeta].into_iter().flatten().all(|slot| slot.data.len() == width));
    if width == 0 {
        return;
    }
    // Blocks of at least 32 rows, so that adding their sums costs little compared with computing them.
    let block = block_items(COST * width).max(32);
    let sums = if dgamma.is_some() || dbeta.is_some() { 2 * width } else { 0 };
    let mut partials = vec![T::ZERO; count.div_ceil(block) * sums];
    let flags = (dz.as_ref().is_some_and(|s| s.accumulate), dx.as_ref().is_some_and(|s| s.accumulate));
    let outputs = (
        dz.map(|slot| RowsMut::new(slot.data, width)),
        dx.map(|slot| RowsMut::new(slot.data, width)),
        PerBlock { data: &mut partials, width: sums, block },
    );
    for_blocks(count, block, COST * width, outputs, |range, (dz, dx, sums)| {
        let at = range.start * width..range.end * width;
        let dz = dz.map(|dz| Target::new(dz.data, flags.0));
        let dx = dx.map(|dx| Target::new(dx.data, flags.1));
        backward_block(&dy[at], saved.rows(range.clone()), dropout.rows(range), dz, dx, sums.data);
    });
    for (slot, offset) in [(dgamma, 0), (dbeta, width)] {
        if let Some(slot) = slot {
            if !slot.accumulate {
                slot.data.fill(T::ZERO);
            }
            add_sums(partials.get(offset..).unwrap_or(&[]), sums, slot.data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::parallel::testing::with_threads;
    use crate::cpu::simd::testing::{at_each_level, steady_level};
    use crate::cpu::testing::{SIZES, close, dot, numeric_gradient, random, random_in, small_for_miri, wide};

    const EPS: f64 = 1e-12;

    fn reference(z: &[f64], gamma: &[f64], beta: &[f64], eps: f64) -> Vec<f64> {
        let width = gamma.len();
        let row = |z: &[f64]| {
            let mean = z.iter().sum::<f64>() / width as f64;
            let variance = z.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / width as f64;
            let deviation = (variance + eps).sqrt();
            (0..width).map(|i| (z[i] - mean) / deviation * gamma[i] + beta[i]).collect::<Vec<_>>()
        };
        z.chunks(width.max(1)).flat_map(row).collect()
    }

    /// The dropout mask, from the definition in dropout.rs.
    fn mask(dropout: &Dropout, rows: &[RowCoordinate], width: usize) -> Vec<f64> {
        let one = |at: &RowCoordinate, column: usize| {
            let group = at.position as usize * width.div_ceil(16) + column / 16;
            let bytes = Dropout::bytes(dropout.hidden_counter(at.sequence, group as u32));
            if (bytes[column % 16] as u32) < dropout.threshold() { 0.0 } else { dropout.scale() }
        };
        rows.iter().flat_map(|at| (0..width).map(move |c| one(at, c))).collect()
    }

    fn rows(count: usize) -> Vec<RowCoordinate> {
        (0..count as u32).map(|i| RowCoordinate { sequence: 3 + i / 4, position: i % 4 }).collect()
    }

    #[test]
    fn forward_equals_the_formula() {
        fn check<T: Real>(tolerance: f64) {
            for width in SIZES {
                for count in [0, 1, 5] {
                    let (x, r) = (random_in::<T>(count * width, 1), random_in::<T>(count * width, 2));
                    let (gamma, beta) = (random_in::<T>(width, 3), random_in::<T>(width, 4));
                    let nan = || vec![T::from_f64(f64::NAN); count * width];
                    let (mut y, mut z, mut mean, mut rstd) = (nan(), nan(), vec![T::ZERO; count], vec![T::ZERO; count]);
                    // A row of one element has variance 0, so the epsilon must be large enough to divide by in f32.
                    let eps = 1e-5;
                    let norm = NormParameters { gamma: &gamma, beta: &beta, eps };
                    forward(&x, norm, NormOutputs { y: &mut y, mean: &mut mean, rstd: &mut rstd });
                    close(&y, &reference(&wide(&x), &wide(&gamma), &wide(&beta), eps), tolerance, "LN");
                    let dropout = Dropout::new(0.25, 7, 8, 9).unwrap();
                    let at = rows(count);
                    let placed = RowDropout { dropout: &dropout, rows: &at };
                    let outputs = NormOutputs { y: &mut y, mean: &mut mean, rstd: &mut rstd };
                    residual_forward(&r, &x, placed, norm, &mut z, outputs);
                    let m = mask(&dropout, &at, width);
                    let want: Vec<f64> = (0..x.len()).map(|i| r[i].to_f64() + x[i].to_f64() * m[i]).collect();
                    close(&z, &want, tolerance, "z");
                    close(&y, &reference(&wide(&z), &wide(&gamma), &wide(&beta), eps), tolerance, "fused LN");
                }
            }
        }
        at_each_level(|_| {
            check::<f32>(1e-5);
            check::<f64>(1e-12);
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "runs the forward hundreds of times")]
    fn backward_equals_finite_differences() {
        at_each_level(|_| {
            for width in [2, 15, 16, 33] {
                let count = 3;
                let n = count * width;
                let (r, x, dy) = (random(n, 1), random(n, 2), random(n, 3));
                let (gamma, beta) = (random(width, 4), random(width, 5));
                let (at, dropout) = (rows(count), Dropout::new(0.5, 1, 2, 3).unwrap());
                let m = mask(&dropout, &at, width);
                let loss = |r: &[f64], x: &[f64], gamma: &[f64], beta: &[f64]| {
                    let z: Vec<f64> = (0..n).map(|i| r[i] + x[i] * m[i]).collect();
                    dot(&reference(&z, gamma, beta, EPS), &dy)
                };
                let want = [
                    numeric_gradient(&r, |r| loss(r, &x, &gamma, &beta)),
                    numeric_gradient(&x, |x| loss(&r, x, &gamma, &beta)),
                    numeric_gradient(&gamma, |gamma| loss(&r, &x, gamma, &beta)),
                    numeric_gradient(&beta, |beta| loss(&r, &x, &gamma, beta)),
                ];
                let (mut z, mut y, mut mean, mut rstd) = (vec![0.0; n], vec![0.0; n], vec![0.0; 3], vec![0.0; 3]);
                let norm = NormParameters { gamma: &gamma, beta: &beta, eps: EPS };
                let placed = RowDropout { dropout: &dropout, rows: &at };
                let outputs = NormOutputs { y: &mut y, mean: &mut mean, rstd: &mut rstd };
                residual_forward(&r, &x, placed, norm, &mut z, outputs);
                let saved = NormSaved { z: &z, gamma: &gamma, mean: &mean, rstd: &rstd };
                // Every subset of the gradients, overwritten and then added to.
                for wanted in 0..16 {
                    let mut got = want.each_ref().map(|w| vec![f64::NAN; w.len()]);
                    for pass in 1..=2 {
                        let [a, b, c, d] = got.each_mut();
                        let slot =
                            |i: u32, data| (wanted >> i & 1 == 1).then_some(Target { data, accumulate: pass == 2 });
                        let (dz, dx, dgamma, dbeta) = (slot(0, a), slot(1, b), slot(2, c), slot(3, d));
                        backward(&dy, saved, placed, NormGradients { dz, dx, dgamma, dbeta });
                        for i in 0..4 {
                            if wanted >> i & 1 == 1 {
                                let want: Vec<f64> = want[i].iter().map(|w| w * pass as f64).collect();
                                close(&got[i], &want, 1e-6, "LN backward");
                            } else {
                                assert!(got[i].iter().all(|x| x.is_nan()));
                            }
                        }
                    }
                }
            }
        });
    }

    #[test]
    fn f32_backward_is_near_f64_and_the_same_for_any_number_of_threads() {
        let _steady = steady_level();
        let (count, width) = (small_for_miri(133, 9), small_for_miri(768, 40));
        let n = count * width;
        let (z, dy, gamma) = (random_in::<f32>(n, 1), random_in::<f32>(n, 2), random_in::<f32>(width, 3));
        fn run<T: Real>(z: &[T], dy: &[T], gamma: &[T]) -> [Vec<T>; 3] {
            let (n, width) = (z.len(), gamma.len());
            let count = n / width;
            let (mut y, mut mean, mut rstd) = (vec![T::ZERO; n], vec![T::ZERO; count], vec![T::ZERO; count]);
            let norm = NormParameters { gamma, beta: gamma, eps: EPS };
            forward(z, norm, NormOutputs { y: &mut y, mean: &mut mean, rstd: &mut rstd });
            let mut got = [vec![T::ZERO; n], vec![T::ZERO; width], vec![T::ZERO; width]];
            let [dz, dgamma, dbeta] = got.each_mut().map(|data| Some(Target { data, accumulate: false }));
            let saved = NormSaved { z, gamma, mean: &mean, rstd: &rstd };
            backward(dy, saved, RowDropout::NONE, NormGradients { dz, dx: None, dgamma, dbeta });
            got
        }
        let want = run(&wide(&z), &wide(&dy), &wide(&gamma));
        let [one, two, five, team] = with_threads(|| run(&z, &dy, &gamma));
        assert!(one == two && one == five && one == team);
        for (got, want) in one.iter().zip(&want) {
            close(got, want, 2e-6, "LN backward in f32");
        }
    }

    #[test]
    fn no_rows_make_zero_gradients() {
        let (mut dgamma, mut dbeta) = ([1.0f32; 3], [1.0f32; 3]);
        let (first, second) = (Some(Target::new(&mut dgamma[..], false)), Some(Target::new(&mut dbeta[..], true)));
        let saved = NormSaved { z: &[], gamma: &[1.0; 3], mean: &[], rstd: &[] };
        let gradients = NormGradients { dz: None, dx: None, dgamma: first, dbeta: second };
        backward(&[], saved, RowDropout::NONE, gradients);
        assert_eq!((dgamma, dbeta), ([0.0; 3], [1.0; 3]));
    }

    /// Nothing is left of equal numbers but beta, in spite of the rounding of their mean.
    #[test]
    fn equal_numbers_become_beta() {
        at_each_level(|_| {
            for width in [1usize, 3, 33, 300, 768, 1024, 1400] {
                for number in [0.1f32, 3.3, 33.4, -66.7, 100.1, 1234.5, 1e6, 1e15] {
                    let (z, gamma) = (vec![number; 2 * width], vec![2f32; width]);
                    let beta: Vec<f32> = (0..width).map(|at| at as f32).collect();
                    let (mut y, mut mean, mut rstd) = (vec![f32::NAN; 2 * width], [0f32; 2], [0f32; 2]);
                    let outputs = NormOutputs { y: &mut y, mean: &mut mean, rstd: &mut rstd };
                    forward(&z, NormParameters { gamma: &gamma, beta: &beta, eps: EPS }, outputs);
                    assert_eq!(y, [&beta[..], &beta].concat(), "{width} times {number}");
                    assert_eq!((mean, rstd), ([number; 2], [1e6; 2]));
                }
            }
        });
    }
}
