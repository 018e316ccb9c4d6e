//! Loops over elements with a function that is known at compile time.

use super::parallel::for_rows;
use super::real::Real;
use super::target::Target;

/// The cost per element, in the units of [`for_rows`].
const COST: usize = 2;

/// Computes `y = f(x)`.
pub(crate) fn map<T: Real>(x: &[T], y: &mut [T], f: impl Fn(T) -> T + Sync) {
    assert_eq!(x.len(), y.len());
    for_rows(x.len(), COST, y, |range, y| y.iter_mut().zip(&x[range]).for_each(|(y, &x)| *y = f(x)));
}

/// Computes `dx (+)= dy f'(saved)`.
pub(crate) fn chain<T: Real>(saved: &[T], dy: &[T], dx: Target<T>, derivative: impl Fn(T) -> T + Sync) {
    let Target { data: dx, accumulate } = dx;
    assert!(saved.len() == dx.len() && dy.len() == dx.len());
    for_rows(dx.len(), COST, dx, |range, dx| {
        let pairs = dx.iter_mut().zip(saved[range.clone()].iter().zip(&dy[range]));
        if accumulate {
            pairs.for_each(|(dx, (&saved, &dy))| *dx += dy * derivative(saved));
        } else {
            pairs.for_each(|(dx, (&saved, &dy))| *dx = dy * derivative(saved));
        }
    });
}
