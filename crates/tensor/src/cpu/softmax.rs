//! Softmax and log-softmax over the rows of `[R, C]`.
//!
//! Both subtract the maximum of a row first, so no exponential overflows and finite inputs never give NaN. Backward needs
//! only the output.

use super::lanes::{max, sum, sum2};
use super::parallel::{RowsMut, for_rows};
use super::real::Real;
use super::simd::simd;
use super::target::Target;

/// The cost per element, in the units of [`for_rows`].
const COST: usize = 4;

simd! {
    fn softmax_block<T: Real>(x: &[T], y: &mut [T], width: usize) {
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let largest = max(x);
            for (y, &x) in y.iter_mut().zip(x) {
                *y = (x - largest).exp();
            }
            let scale = T::ONE / sum(y, |y| y);
            for y in y {
                *y *= scale;
            }
        }
    }

    fn log_softmax_block<T: Real>(x: &[T], y: &mut [T], width: usize) {
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let largest = max(x);
            let log = sum(x, |x| (x - largest).exp()).ln();
            for (y, &x) in y.iter_mut().zip(x) {
                *y = x - largest - log;
            }
        }
    }

    fn softmax_backward_block<T: Real>(y: &[T], dy: &[T], dx: &mut [T], width: usize, accumulate: bool) {
        for ((y, dy), dx) in y.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)) {
            let mean = sum2(y, dy, |y, dy| y * dy);
            for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
                let value = y * (dy - mean);
                *dx = if accumulate { *dx + value } else { value };
            }
        }
    }

    fn log_softmax_backward_block<T: Real>(y: &[T], dy: &[T], dx: &mut [T], width: usize, accumulate: bool) {
        for ((y, dy), dx) in y.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)) {
            let total = sum(dy, |dy| dy);
            for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
                let value = dy - y.exp() * total;
                *dx = if accumulate { *dx + value } else { value };
            }
        }
    }
}

/// Returns the number of rows of `width` in `len` elements.
fn rows(len: usize, width: usize) -> usize {
    assert!(len.is_multiple_of(width));
    len.checked_div(width).unwrap_or(0)
}

/// Computes `y = softmax(x)` for rows of `width`.
pub(crate) fn softmax<T: Real>(x: &[T], y: &mut [T], width: usize) {
    assert_eq!(x.len(), y.len());
    for_rows(rows(x.len(), width), width * COST, RowsMut::new(y, width), |range, y| {
        softmax_block(&x[range.start * width..range.end * width], y.data, width);
    });
}

/// Computes `y = log softmax(x)` for rows of `width`.
pub(crate) fn log_softmax<T: Real>(x: &[T], y: &mut [T], width: usize) {
    assert_eq!(x.len(), y.len());
    for_rows(rows(x.len(), width), width * COST, RowsMut::new(y, width), |range, y| {
        log_softmax_block(&x[range.start * width..range.end * width], y.data, width);
    });
}

/// Computes `dx (+)= y (dy - sum(y dy))`, where `y` is the softmax.
pub(crate) fn softmax_backward<T: Real>(y: &[T], dy: &[T], dx: Target<T>, width: usize) {
    let Target { data: dx, accumulate } = dx;
    assert!(y.len() == dx.len() && dy.len() == dx.len());
    for_rows(rows(y.len(), width), width * COST, RowsMut::new(dx, width), |range, dx| {
        let range = range.start * width..range.end * width;
        softmax_backward_block(&y[range.clone()], &dy[range], dx.data, width, accumulate);
    });
}

/// Computes `dx (+)= dy - e^y sum(dy)`, where `y` is the log-softmax.
pub(crate) fn log_softmax_backward<T: Real>(y: &[T], dy: &[T], dx: Target<T>, width: usize) {
    let Target { data: dx, accumulate } = dx;
    assert!(y.len() == dx.len() && dy.len() == dx.len());
    for_rows(rows(y.len(), width), width * COST, RowsMut::new(dx, width), |range, dx| {
        let range = range.start * width..range.end * width;
        log_softmax_backward_block(&y[range.clone()], &dy[range], dx.data, width, accumulate);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::testing::at_each_level;
    use crate::cpu::testing::{SIZES, close, random_in, wide};

    fn reference(x: &[f64]) -> Vec<f64> {
        let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = x.iter().map(|x| (x - largest).exp()).sum();
        x.iter().map(|x| (x - largest).exp() / total).collect()
    }

    fn check<T: Real>(tolerance: f64) {
        for width in SIZES {
            let count = 3 * width;
            let (x, dy) = (random_in::<T>(count, 1), random_in::<T>(count, 2));
            let (wide_x, wide_dy) = (wide(&x), wide(&dy));
            let rows = |x: &[f64]| x.chunks(width.max(1)).map(<[f64]>::to_vec).collect::<Vec<_>>();
            let p: Vec<f64> = rows(&wide_x).iter().flat_map(|x| reference(x)).collect();
            let mut y = vec![T::from_f64(f64::NAN); count];
            softmax(&x, &mut y, width);
            close(&y, &p, tolerance, "softmax");
            let jacobian = |log: bool| -> Vec<f64> {
                let each = rows(&p).into_iter().zip(rows(&wide_dy)).map(|(p, dy)| {
                    // dx_i = sum_j dy_j dy_j/dx_i, entry by entry.
                    let entry = |i: usize, j: usize| {
                        let delta = if i == j { 1.0 } else { 0.0 };
                        if log { delta - p[i] } else { p[j] * (delta - p[i]) }
                    };
                    (0..width).map(|i| (0..width).map(|j| dy[j] * entry(i, j)).sum()).collect::<Vec<f64>>()
                });
                each.flatten().collect()
            };
            let twice = |x: &[f64]| x.iter().map(|x| 2.0 * x).collect::<Vec<_>>();
            let mut dx = vec![T::from_f64(f64::NAN); count];
            softmax_backward(&y, &dy, Target::new(&mut dx, false), width);
            close(&dx, &jacobian(false), tolerance, "softmax backward");
            softmax_backward(&y, &dy, Target::new(&mut dx, true), width);
            close(&dx, &twice(&jacobian(false)), tolerance, "softmax backward accumulated");

            log_softmax(&x, &mut y, width);
            close(&y, &p.iter().map(|p| p.ln()).collect::<Vec<_>>(), tolerance, "log softmax");
            let mut dx = vec![T::from_f64(f64::NAN); count];
            log_softmax_backward(&y, &dy, Target::new(&mut dx, false), width);
            close(&dx, &jacobian(true), 10.0 * tolerance, "log softmax backward");
            log_softmax_backward(&y, &dy, Target::new(&mut dx, true), width);
            close(&dx, &twice(&jacobian(true)), 10.0 * tolerance, "log softmax backward accumulated");
        }
    }

    #[test]
    fn forward_and_backward() {
        at_each_level(|_| {
            check::<f32>(1e-6);
            check::<f64>(1e-14);
        });
    }

    #[test]
    fn extremes() {
        at_each_level(|_| {
            let x = [1e4f32, -1e4, 1e4, 0.0];
            let (mut y, mut log) = ([0.0; 4], [0.0; 4]);
            softmax(&x, &mut y, 4);
            log_softmax(&x, &mut log, 4);
            assert_eq!(y, [0.5, 0.0, 0.5, 0.0]);
            let log_two = 2f64.ln();
            close(&log, &[-log_two, -2e4 - log_two, -log_two, -1e4 - log_two], 1e-7, "log softmax");
        });
    }
}
