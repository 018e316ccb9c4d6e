//! Where a backward writes.

use super::real::Real;

/// The destination of one gradient.
pub(crate) struct Target<'a, T> {
    pub(crate) data: &'a mut [T],
    /// Whether to add to `data`. Otherwise it is overwritten without being read.
    pub(crate) accumulate: bool,
}

impl<'a, T> Target<'a, T> {
    pub(crate) fn new(data: &'a mut [T], accumulate: bool) -> Self {
        Target { data, accumulate }
    }
}

impl<'a, T: Real> Target<'a, T> {
    /// The same destination with elements of type `U`, which has the size of `T`.
    #[inline]
    pub(crate) fn cast<U: Real>(self) -> Target<'a, U> {
        Target { data: bytemuck::cast_slice_mut(self.data), accumulate: self.accumulate }
    }
}

/// Writes a gradient: `destination = value` or `destination += value`.
#[inline(always)]
pub(crate) fn put<T: Real>(destination: &mut [T], value: &[T], accumulate: bool) {
    if accumulate {
        for (d, &v) in destination.iter_mut().zip(value) {
            *d += v;
        }
    } else {
        destination.copy_from_slice(value);
    }
}
