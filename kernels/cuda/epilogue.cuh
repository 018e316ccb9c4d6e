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
  // If not null, [gridDim.z gridDim.y, n]: column sums of what GeluGradient writes, per block.
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

// Threads that write a tile together, and the neighbouring columns that one of them finishes at a time.
constexpr int WRITERS = 256, GROUP = 4;

// Finishes groups of columns, of every eighth row. What a row needs from memory is loaded for several rows before the first is
// used, and the kind of the epilogue is known when this is compiled: loads in flight decide how fast a tile is written.
template <EpilogueKind KIND, Unary GELU, bool ADD, class C>
DEVICE void write_groups(const ProductArguments<C>& product, const float* tile, int rows, int first_m, int first_n, int thread,
                         float (&sums)[GROUP]) {
  constexpr bool has_bias = KIND == EpilogueKind::Bias || KIND == EpilogueKind::BiasGelu;
  // Sums of columns become the gradient of a bias, which only this one has.
  constexpr bool has_sums = KIND == EpilogueKind::GeluGradient;
  // As many as the registers allow.
  constexpr int at_once = KIND == EpilogueKind::BiasGelu ? 2 : 4, step = WRITERS * GROUP / TILE_COLUMNS;
  const EpilogueArguments<C>& e = product.epilogue;
  int of_column = thread * GROUP % TILE_COLUMNS, column = first_n + of_column;
  if (column >= product.n) return;
  C* c = product.c + blockIdx.z * product.batch_c + column;
  C* pre_activation = e.pre_activation ? e.pre_activation + blockIdx.z * product.batch_c + column : nullptr;
  float scale_a = e.scale_a ? *e.scale_a : 1.0f, scale_b = e.scale_b ? *e.scale_b : 1.0f, bias[GROUP] = {};
  if (has_bias) load(bias, e.bias + column);
#pragma unroll 1
  for (int first = thread * GROUP / TILE_COLUMNS; first < rows && first_m + first < product.m; first += step * at_once) {
    float before[at_once][GROUP], saved[at_once][GROUP];
#pragma unroll
    for (int i = 0; i < at_once; i++) {
      int row = first_m + first + i * step;
      if (ADD && row < product.m) load(before[i], c + size_t(row) * product.row_c);
      if (KIND == EpilogueKind::GeluGradient && row < product.m) load(saved[i], pre_activation + size_t(row) * product.row_c);
    }
#pragma unroll
    for (int i = 0; i < at_once; i++) {
      int of_row = first + i * step;
      if (first_m + of_row >= product.m) continue;
      size_t offset = size_t(first_m + of_row) * product.row_c;
      float x[GROUP];
      load(x, tile + place_in_tile(of_row, of_column));
#pragma unroll
      for (int j = 0; j < GROUP; j++) {
        x[j] = x[j] * scale_a * scale_b;
        if (has_bias) x[j] += bias[j];
        if (KIND == EpilogueKind::BiasGelu) x[j] = rounded<C>(x[j]);
      }
      if (KIND == EpilogueKind::BiasGelu && pre_activation) store(pre_activation + offset, x);
#pragma unroll
      for (int j = 0; j < GROUP; j++) {
        if (KIND == EpilogueKind::BiasGelu) x[j] = gelu(x[j], GELU);
        if (KIND == EpilogueKind::GeluGradient) x[j] *= gelu_derivative(saved[i][j], GELU);
        if (ADD) x[j] = __fadd_rn(before[i][j], x[j]);
        if (has_sums) sums[j] += x[j];
      }
      store(c + offset, x);
    }
  }
}

// Returns whether every group of columns lies at a multiple of its size.
template <class C> DEVICE bool is_aligned(const ProductArguments<C>& product) {
  const EpilogueArguments<C>& e = product.epilogue;
  auto is = [](const void* at, size_t bytes) { return reinterpret_cast<size_t>(at) % bytes == 0; };
  return product.n % GROUP == 0 && product.row_c % GROUP == 0 && product.batch_c % GROUP == 0 &&
         is(product.c, GROUP * sizeof(C)) && is(e.pre_activation, GROUP * sizeof(C)) && is(e.bias, GROUP * sizeof(float));
}

// Finishes single elements, for products that lie anywhere.
template <class C>
DEVICE float write_elements(const ProductArguments<C>& product, const float* tile, int rows, int first_m, int first_n, int thread) {
  C* c = product.c + blockIdx.z * product.batch_c;
  EpilogueArguments<C> epilogue = product.epilogue;
  if (epilogue.pre_activation) epilogue.pre_activation += blockIdx.z * product.batch_c;
  // A thread stays in one column and takes every other row.
  float sum = 0;
#pragma unroll 1
  for (int id = thread; id < rows * TILE_COLUMNS; id += WRITERS) {
    int of_row = id / TILE_COLUMNS, of_column = id % TILE_COLUMNS, row = first_m + of_row, column = first_n + of_column;
    if (row >= product.m || column >= product.n) continue;
    size_t offset = size_t(row) * product.row_c + column;
    float before = epilogue.add ? to_f32(c[offset]) : 0.0f;
    float value = finish(epilogue, tile[place_in_tile(of_row, of_column)], column, offset, before);
    store(c + offset, {value});
    sum += value;
  }
  return sum;
}

// Writes `rows` rows of a tile to c, from (first_m, first_n) on, and the sums of its columns. Called by WRITERS threads, for which
// `barrier` waits; the tile is overwritten.
template <class C, class Barrier>
DEVICE void write_tile(const ProductArguments<C>& product, float* tile, int rows, int first_m, int first_n, int thread,
                       const Barrier& barrier) {
  const EpilogueArguments<C>& e = product.epilogue;
  float sums[GROUP] = {};
  bool has_groups = is_aligned(product) && (!e.add || e.kind == EpilogueKind::Plain);
#define WRITE_GROUPS(kind, gelu, add) \
  write_groups<EpilogueKind::kind, Unary::gelu, add>(product, tile, rows, first_m, first_n, thread, sums)
  if (!has_groups) {
    sums[0] = write_elements(product, tile, rows, first_m, first_n, thread);
  } else if (e.kind == EpilogueKind::Bias) {
    WRITE_GROUPS(Bias, Gelu, false);
  } else if (e.kind == EpilogueKind::BiasGelu) {
    e.gelu == Unary::Gelu ? WRITE_GROUPS(BiasGelu, Gelu, false) : WRITE_GROUPS(BiasGelu, GeluTanh, false);
  } else if (e.kind == EpilogueKind::GeluGradient) {
    e.gelu == Unary::Gelu ? WRITE_GROUPS(GeluGradient, Gelu, false) : WRITE_GROUPS(GeluGradient, GeluTanh, false);
  } else {
    e.add ? WRITE_GROUPS(Plain, Gelu, true) : WRITE_GROUPS(Plain, Gelu, false);
  }
#undef WRITE_GROUPS
  if (!product.column_sums) return;
  // The sums that threads have of a column follow each other, in the order of their rows.
  barrier();
  if (has_groups)
    store(tile + thread * GROUP, sums);
  else
    tile[thread] = sums[0];
  barrier();
  int column = first_n + thread, part = int(blockIdx.z * gridDim.y + blockIdx.y);
  if (thread >= TILE_COLUMNS || column >= product.n) return;
  float sum = 0;
  for (int at = thread; at < WRITERS * (has_groups ? GROUP : 1); at += TILE_COLUMNS) sum += tile[at];
  product.column_sums[size_t(part) * product.n + column] = sum;
}
