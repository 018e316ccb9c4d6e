//! CPU kernels: pure functions over slices, generic over [`Real`].
//!
//! The caller checks the shapes; a kernel only asserts them and returns no errors. Matrices are row-major and contiguous
//! unless strides are given. A backward writes each gradient into a [`Target`], or into a slice with a flag `accumulate`:
//! `false` overwrites the contents (even NaN), `true` adds to them.

#![allow(
    clippy::too_many_arguments,
    reason = "kernels have many operands; those that go together are structs, the others stay arguments"
)]

pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod average;
pub(crate) mod column_sums;
pub(crate) mod convert;
pub(crate) mod cross_entropy;
pub(crate) mod dropout;
pub(crate) mod elementwise;
pub(crate) mod embedding;
pub(crate) mod gemm;
pub(crate) mod lanes;
pub(crate) mod layer_norm;
pub(crate) mod nearest;
pub(crate) mod parallel;
pub(crate) mod pointwise_loss;
pub(crate) mod pooling;
pub(crate) mod real;
pub(crate) mod simd;
pub(crate) mod softmax;
pub(crate) mod strided;
pub(crate) mod target;
pub(crate) mod team;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod unary;

pub(crate) use real::Real;
pub(crate) use target::Target;
