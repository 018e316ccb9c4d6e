// What happens to a product before it is written: bias, GELU, its derivative, addition to what is there.
#pragma once

#include "gelu.cuh"

enum Epilogue : int {
  PLAIN = 0,
  BIAS = 1,       // c = a b + bias
  BIAS_GELU = 2,  // c = gelu(a b + bias), and the pre-activation is kept where there is a place for it
  DGELU = 3,      // c = a b gelu'(pre-activation)
};

template <class T> struct EpilogueArguments {
  const float* bias;  // [n]
  T* pre_activation;  // [m, n], with the rows of c
  // What the numbers of A and of B are times the operands', where they were scaled.
  const float *scale_a, *scale_b;
  int epilogue, gelu;
  int add;            // to what c is
};

// A product [m, n] of operands that are `k` long, and what becomes of it.
template <class C> struct ProductArguments {
  C* c;
  size_t batch_c;  // elements from product to product, grid.z of them
  int m, n, k;
  int row_c;  // elements from row to row
  int split;  // where it is not 0, product z is of `split` numbers along k from z * split on: parts of one product
  // [2 gridDim.z gridDim.y, n], where sums of the columns of what is written are wanted: of every other row of a block.
  float* column_sums;
  EpilogueArguments<C> epilogue;
};

// The element of column `column`, at `offset` in c and in the pre-activation.
template <class T> DEVICE float finish(const EpilogueArguments<T>& e, float product, int column, size_t offset, float before) {
  float x = product;
  if (e.scale_a) x *= *e.scale_a;
  if (e.scale_b) x *= *e.scale_b;
  switch (e.epilogue) {
    case BIAS: x += e.bias[column]; break;
    case BIAS_GELU:
      x += e.bias[column];
      if (e.pre_activation) {
        T kept;
        store(&kept, {x});
        e.pre_activation[offset] = kept;
        x = to_f32(kept);
      }
      x = gelu(x, e.gelu);
      break;
    case DGELU: x *= gelu_derivative(to_f32(e.pre_activation[offset]), e.gelu); break;
    default: break;
  }
  return e.add ? x + before : x;
}

// A tile of a product, 128 columns wide, on its way through shared memory: so that neighbouring threads write neighbouring
// elements, and the code of the endings is there once. Chunks of four are swizzled, for fewer threads to meet in a bank.
constexpr int TILE_COLUMNS = 128;
DEVICE int place_in_tile(int row, int column) { return row * TILE_COLUMNS + (column ^ (row & 7) * 4); }

// Writes `rows` rows of a tile to c from (first_m, first_n) on, by as many threads as have two rows, of which this is `thread`.
template <class C>
DEVICE void write_tile(const ProductArguments<C>& product, const float* tile, int rows, int first_m, int first_n, int thread) {
  constexpr int threads = 2 * TILE_COLUMNS;
  C* c = product.c + blockIdx.z * product.batch_c;
  EpilogueArguments<C> epilogue = product.epilogue;
  if (epilogue.pre_activation) epilogue.pre_activation += blockIdx.z * product.batch_c;
  // A thread has one column.
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
