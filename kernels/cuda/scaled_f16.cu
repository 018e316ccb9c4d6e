// Matrices in f16 for products on tensor cores: times a power of two, by which f16's few exponents reach what f32's many do, and
// which the product is divided by again. The largest number becomes one below 2^limit; what is 2^(limit + 24) times smaller is lost.
#include "platform.cuh"

struct ScaledArguments {
  const float* from;  // element (i, j) of [rows, columns] at i * row + j * column
  f16* to;            // [rows, row_to], row-major
  uint32_t* scale;    // the bits of the largest magnitude, and of the number that takes what is in `to` back
  uint64_t rows, columns, row, column, row_to;
  int limit;
};

// scale[0] = the largest of all magnitudes and of what it is. Numbers without a sign are ordered as their bits are, NaN last; of
// what is compared the order is all the same.
KERNEL(scaled_f16_largest)(ScaledArguments a) {
  uint32_t largest = 0;
  uint64_t step = uint64_t(gridDim.x) * blockDim.x;
  // The faster index is the one that lies together.
  uint64_t inner = a.column == 1 ? a.columns : a.rows, of_outer = a.column == 1 ? a.row : a.column;
  uint64_t of_inner = a.column == 1 ? a.column : a.row;
  for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < a.rows * a.columns; i += step)
    largest = max(largest, __float_as_uint(a.from[i / inner * of_outer + i % inner * of_inner]) & 0x7fffffffu);
#pragma unroll
  for (int lanes = 16; lanes; lanes /= 2) largest = max(largest, __shfl_xor_sync(ALL_LANES, largest, lanes));
  if (threadIdx.x % 32 == 0) atomicMax(a.scale, largest);
}
EMU_KERNEL(scaled_f16_largest)

KERNEL(scaled_f16)(ScaledArguments a) {
  // Exponents as f32 has them, 127 more than they are: of the largest number, and of the factor.
  int of_largest = int(a.scale[0] >> 23), of_factor = 127;
  // Zeros stay so. What is infinite or no number at all shall be seen in the product.
  if (of_largest > 0 && of_largest < 255) of_factor = min(max(127 + a.limit + 126 - of_largest, 1), 253);
  float factor = __uint_as_float(uint32_t(of_factor) << 23);
  uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x, row = i / a.row_to, column = i % a.row_to;
  if (i == 0) a.scale[1] = uint32_t(254 - of_factor) << 23;
  if (row >= a.rows) return;
  a.to[i] = to_f16(column < a.columns ? a.from[row * a.row + column * a.column] * factor : 0.0f);
}
EMU_KERNEL(scaled_f16)
