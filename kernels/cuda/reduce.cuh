// Sums and maxima over the lanes of a warp and the warps of a block. Each has one order, so equal inputs give equal bits.
#pragma once

#include "platform.cuh"

DEVICE float minus_infinity() { return __int_as_float(int(0xff800000)); }

// The lowest finite number, at which the maximum of an online softmax starts. Masked scores are minus infinity: relative to a
// maximum of minus infinity their exponentials would be NaN, relative to this one they are 0.
DEVICE float lowest() { return __int_as_float(int(0xff7fffff)); }

// The sum over the warp, in every lane.
DEVICE float warp_sum(float x) {
#pragma unroll
  for (int lanes = 16; lanes; lanes /= 2) x += __shfl_xor_sync(ALL_LANES, x, lanes);
  return x;
}

// The maximum over the warp, in every lane.
DEVICE float warp_largest(float x) {
#pragma unroll
  for (int lanes = 16; lanes; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, lanes));
  return x;
}
DEVICE uint32_t warp_largest(uint32_t x) {
#pragma unroll
  for (int lanes = 16; lanes; lanes /= 2) x = max(x, __shfl_xor_sync(ALL_LANES, x, lanes));
  return x;
}

// The maximum and the sum over a block of THREADS threads, in every thread. `of_warps` is shared memory for one float per warp;
// it may be used again when they return.
template <int THREADS> DEVICE float block_largest(float x, float* of_warps) {
  x = warp_largest(x);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = x;
  __syncthreads();
  x = of_warps[0];
  for (int warp = 1; warp < THREADS / 32; warp++) x = fmaxf(x, of_warps[warp]);
  __syncthreads();
  return x;
}
template <int THREADS> DEVICE float block_sum(float x, float* of_warps) {
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = x;
  __syncthreads();
  x = 0;
  for (int warp = 0; warp < THREADS / 32; warp++) x += of_warps[warp];
  __syncthreads();
  return x;
}
