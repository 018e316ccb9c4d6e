// Matrices in f16 for products on tensor cores. f16 has five bits of exponent, too few for gradients, so a matrix is
// multiplied by a power of two that brings its largest magnitude just below 2^limit. Elements 2^(limit + 24) times
// smaller than the largest become zero. The product's epilogue multiplies by the inverse, which is exact.
#include "reduce.cuh"

struct ScaledArguments {
  const float* from;  // element (i, j) of [rows, columns] is at i * row + j * column
  f16* to;            // [rows, row_to], row-major
  uint32_t* scale;    // two f32 as bits: the largest magnitude, and the factor that undoes the scaling
  uint64_t rows, columns, row, column, row_to;
  int limit;
};

// scale[0] = the largest of its value and all magnitudes. Floats without a sign are ordered like their bits, with NaN last, so
// integer atomics serve; a maximum does not depend on the order.
KERNEL(scaled_f16_largest)(ScaledArguments a) {
  uint32_t largest = 0;
  uint64_t step = uint64_t(gridDim.x) * blockDim.x;
  // Neighbouring threads read neighbouring elements, whichever way the matrix lies.
  uint64_t inner = a.column == 1 ? a.columns : a.rows, of_outer = a.column == 1 ? a.row : a.column;
  uint64_t of_inner = a.column == 1 ? a.column : a.row;
  for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < a.rows * a.columns; i += step)
    largest = max(largest, __float_as_uint(a.from[i / inner * of_outer + i % inner * of_inner]) & 0x7fffffffu);
  largest = warp_largest(largest);
  if (threadIdx.x % 32 == 0) atomicMax(a.scale, largest);
}
EMU_KERNEL(scaled_f16_largest)

KERNEL(scaled_f16)(ScaledArguments a) {
  // Biased exponents, as f32 stores them: of the largest magnitude, and of the factor.
  int of_largest = int(a.scale[0] >> 23), of_factor = 127;
  // Zeros, infinities and NaN keep a factor of 1; the latter two show in the product.
  if (of_largest > 0 && of_largest < 255) of_factor = min(max(127 + a.limit + 126 - of_largest, 1), 253);
  float factor = __uint_as_float(uint32_t(of_factor) << 23);
  uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x, row = i / a.row_to, column = i % a.row_to;
  if (i == 0) a.scale[1] = uint32_t(254 - of_factor) << 23;
  if (row >= a.rows) return;
  a.to[i] = to_f16(column < a.columns ? a.from[row * a.row + column * a.column] * factor : 0.0f);
}
EMU_KERNEL(scaled_f16)
