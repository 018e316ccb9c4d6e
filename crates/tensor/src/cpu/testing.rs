//! Helpers of the kernels' tests.

use crate::random::{Purpose, Stream};

use super::real::Real;

/// Sizes around the lengths of vector loops: empty, whole, and with remainders.
#[cfg(not(miri))]
pub(crate) const SIZES: [usize; 9] = [0, 1, 15, 16, 17, 31, 33, 48, 768];
#[cfg(miri)]
pub(crate) const SIZES: [usize; 4] = [0, 1, 17, 33];

/// Returns a size, or a smaller one for Miri, which is a thousand times slower.
pub(crate) const fn small_for_miri(size: usize, small: usize) -> usize {
    if cfg!(miri) { small } else { size }
}

/// Returns `n` standard normal numbers.
pub(crate) fn random(n: usize, seed: u64) -> Vec<f64> {
    let mut stream = Stream::new(seed, Purpose::User, 0, 0, 0);
    (0..n).map(|_| stream.normal_pair()[0]).collect()
}

/// Like [`random`], in type `T`.
pub(crate) fn random_in<T: Real>(n: usize, seed: u64) -> Vec<T> {
    random(n, seed).into_iter().map(T::from_f64).collect()
}

/// Converts to f64.
pub(crate) fn wide<T: Real>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| x.to_f64()).collect()
}

/// Panics if an element of `got` is further from `want` than `tolerance` times the largest element (or 1).
#[track_caller]
pub(crate) fn close<T: Real>(got: &[T], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1.0f64, |a, b| a.max(b.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (got.to_f64() - want).abs();
        assert!(error <= tolerance * scale, "{what}: element {i} is {got:?}, expected {want:?} ({error:e})");
    }
}

/// Returns the gradient of `loss` at `x` by central differences.
pub(crate) fn numeric_gradient(x: &[f64], mut loss: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-5;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let at = x[i];
            x[i] = at + step;
            let up = loss(&x);
            x[i] = at - step;
            let down = loss(&x);
            x[i] = at;
            (up - down) / (2.0 * step)
        })
        .collect()
}

/// Returns the dot product in f64, which turns an output into a loss.
pub(crate) fn dot<T: Real>(x: &[T], y: &[T]) -> f64 {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(x, y)| x.to_f64() * y.to_f64()).sum()
}
