//! Sums and maxima of a row. They go over 32 lanes at every SIMD width and add the lanes in a fixed tree, so that their order
//! is fixed and the loops vectorise.

use super::real::Real;

/// The partial sums of a reduction: two AVX-512 registers of `f32`, enough to hide the latency of an addition.
pub(crate) const LANES: usize = 32;

/// Returns the sum of the lanes, added in a fixed tree.
#[inline(always)]
pub(crate) fn sum_lanes<T: Real>(lanes: [T; LANES]) -> T {
    let mut lanes = lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Returns the sum of `f(x)` over a slice.
#[inline(always)]
pub(crate) fn sum<T: Real>(x: &[T], f: impl Fn(T) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(x);
    }
    sum_lanes(lanes)
}

/// Returns the sum of `f(x, y)` over two slices of the same length.
#[inline(always)]
pub(crate) fn sum2<T: Real>(x: &[T], y: &[T], f: impl Fn(T, T) -> T) -> T {
    debug_assert_eq!(x.len(), y.len());
    let mut lanes = [T::ZERO; LANES];
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x.iter().zip(y) {
        // Two steps, because LLVM unrolls a loop over three arrays into scalar code.
        let mut values = *x;
        for (value, &y) in values.iter_mut().zip(y) {
            *value = f(*value, y);
        }
        for (lane, &value) in lanes.iter_mut().zip(&values) {
            *lane += value;
        }
    }
    for ((lane, &x), &y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
        *lane += f(x, y);
    }
    sum_lanes(lanes)
}

/// Returns the largest element, or minus infinity if there is none.
#[inline(always)]
pub(crate) fn max<T: Real>(x: &[T]) -> T {
    let mut lanes = [T::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = x.max(*lane);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = x.max(*lane);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = lanes[i + half].max(lanes[i]);
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::testing::at_each_level;

    #[test]
    fn sums_and_maxima_see_every_element() {
        at_each_level(|_| {
            for n in [0usize, 1, 15, 16, 17, 31, 32, 33, 768] {
                let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
                assert_eq!(sum(&x, |x| x), (n * n.saturating_sub(1) / 2) as f32);
                assert_eq!(sum2(&x, &x, |x, y| x - y + 1.0), n as f32);
                assert_eq!(max(&x), if n == 0 { f32::NEG_INFINITY } else { (n - 1) as f32 });
            }
        });
    }
}
