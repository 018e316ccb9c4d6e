//! CPU kernels: pure functions over slices, generic over [`Real`].
//!
//! Conventions. Shapes are the caller's business: a kernel asserts them and does not report errors. Matrices are
//! row-major and contiguous unless strides are given. A backward writes each gradient into a [`Target`], or into a
//! slice with a flag `accumulate`: `false` overwrites whatever is there (even NaN), `true` adds to it.
// A kernel's operands are many, and a struct for each call would only rename them.
#![allow(clippy::too_many_arguments)]

pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod average;
pub(crate) mod column_sums;
pub(crate) mod cross_entropy;
pub(crate) mod dropout;
pub(crate) mod embedding;
pub(crate) mod gemm;
pub(crate) mod layer_norm;
pub(crate) mod parallel;
pub(crate) mod pointwise_loss;
pub(crate) mod pooling;
pub(crate) mod real;
pub(crate) mod simd;
pub(crate) mod softmax;
pub(crate) mod strided;
pub(crate) mod team;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod unary;

pub(crate) use real::Real;

/// Where a backward writes one gradient: `accumulate` adds to `data`, otherwise `data` is overwritten.
pub(crate) struct Target<'a, T> {
    pub(crate) data: &'a mut [T],
    pub(crate) accumulate: bool,
}

impl<'a, T> Target<'a, T> {
    pub(crate) fn new(data: &'a mut [T], accumulate: bool) -> Self {
        Target { data, accumulate }
    }
}
