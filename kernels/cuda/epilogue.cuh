// The last step of a matrix product, fused into it so that the product goes through memory once: bias, GELU, GELU's derivative,
// addition to existing values. All kernels of products share it.
#pragma once

#include "gelu.cuh"
#include "vector.cuh"

template <class T> struct EpilogueArguments {
  const float* bias;  // [n]
  T* pre_activation;  // [m, n], with the rows of c: BiasGelu writes it if it is not null, GeluGradient reads it
  // Factors that undo the scaling of A and B, or null.
  const float *scale_a, *scale_b;
  EpilogueKind kind;
  Unary gelu;         // the form of GELU
  int add;            // adds to c instead of overwriting it
};

// A product [m, n] of operands that are `k` long, and where it goes.
template <class C> struct ProductArguments {
  C* c;
  size_t batch_c;  // elements from product to product; grid.z counts products
  int m, n, k;
  int row_c;  // elements from row to row
  int split;  // if not 0, product z is a part of one product: that of `split` numbers along k from z * split on
  // If not null, [2 gridDim.z gridDim.y, n]: column sums of what is written, two per block, of its even and its odd rows.
  float* column_sums;
  EpilogueArguments<C> epilogue;
};

// Returns the final value of an element, given its column and its offset in c and in the pre-activation. `before` is
// what c holds.
template <class T> DEVICE float finish(const EpilogueArguments<T>& e, float product, int column, size_t offset, float before) {
  float x = product;
  if (e.scale_a) x *= *e.scale_a;
  if (e.scale_b) x *= *e.scale_b;
  switch (e.kind) {
    case EpilogueKind::Bias: x += e.bias[column]; break;
    case EpilogueKind::BiasGelu:
      x += e.bias[column];
      if (e.pre_activation) {
        T kept;
        store(&kept, {x});
        e.pre_activation[offset] = kept;
        x = to_f32(kept);
      }
      x = gelu(x, e.gelu);
      break;
    case EpilogueKind::GeluGradient: x *= gelu_derivative(to_f32(e.pre_activation[offset]), e.gelu); break;
    default: break;
  }
  return e.add ? __fadd_rn(before, x) : x;
}

// A tile of a product, 128 columns wide, passes through shared memory on its way out: so neighbouring threads write
// neighbouring elements, and the code of the epilogue exists once instead of once per register. Groups of four columns
// are swizzled, so that fewer threads meet in a bank.
constexpr int TILE_COLUMNS = 128;
DEVICE int place_in_tile(int row, int column) { return row * TILE_COLUMNS + (column ^ (row & 7) * 4); }

// Writes `rows` rows of a tile to c, from (first_m, first_n) on. Called by 256 threads, one per element of two rows.
template <class C>
DEVICE void write_tile(const ProductArguments<C>& product, const float* tile, int rows, int first_m, int first_n, int thread) {
  constexpr int threads = 2 * TILE_COLUMNS;
  C* c = product.c + blockIdx.z * product.batch_c;
  EpilogueArguments<C> epilogue = product.epilogue;
  if (epilogue.pre_activation) epilogue.pre_activation += blockIdx.z * product.batch_c;
  // A thread stays in one column and takes every other row.
  float sum = 0;
#pragma unroll 1
  for (int id = thread; id < rows * TILE_COLUMNS; id += threads) {
    int of_row = id / TILE_COLUMNS, of_column = id % TILE_COLUMNS, row = first_m + of_row, column = first_n + of_column;
    if (row >= product.m || column >= product.n) continue;
    size_t offset = size_t(row) * product.row_c + column;
    float before = epilogue.add ? to_f32(c[offset]) : 0.0f;
    float value = finish(epilogue, tile[place_in_tile(of_row, of_column)], column, offset, before);
    store(c + offset, {value});
    sum += value;
  }
  int column = first_n + thread % TILE_COLUMNS, part = int(blockIdx.z * gridDim.y + blockIdx.y) * 2 + thread / TILE_COLUMNS;
  if (product.column_sums && column < product.n) product.column_sums[size_t(part) * product.n + column] = sum;
}
