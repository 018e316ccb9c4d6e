// The last step of a matrix product, fused into it so that the product goes through memory once: bias, GELU, GELU's derivative,
// addition to existing values. All kernels of products share it.
#pragma once

#include "gelu.cuh"
#include "vector.cuh"

// What a product keeps for the derivative of GELU: its input, or, where the product is bf16, the derivative itself, in a quarter of the
// memory of an f32.
template <class C> struct SavedOf;
template <> struct SavedOf<float> {
  using Type = float;
  using Group = float4;  // of four columns
};
template <> struct SavedOf<bf16> {
  using Type = uint8_t;
  using Group = uint32_t;
};
template <class C> using Saved = typename SavedOf<C>::Type;

DEVICE float saved_slope(float x, Unary form) { return gelu_derivative(x, form); }
DEVICE float saved_slope(uint8_t code, Unary) { return slope_of(code); }
DEVICE void saved_slopes(float (&to)[4], const float4& x, Unary form) {
  to[0] = gelu_derivative(x.x, form), to[1] = gelu_derivative(x.y, form);
  to[2] = gelu_derivative(x.z, form), to[3] = gelu_derivative(x.w, form);
}
DEVICE void saved_slopes(float (&to)[4], uint32_t codes, Unary) {
#pragma unroll
  for (int i = 0; i < 4; i++) to[i] = slope_of(codes >> 8 * i & 255);
}
// Replaces inputs of GELU, of neighbouring columns, by its values, and keeps what `saved` is for unless it is null.
template <int N> DEVICE void gelu_and_save(float (&x)[N], float* saved, Unary form) {
  if (saved) store(saved, x);
#pragma unroll
  for (int i = 0; i < N; i++) x[i] = gelu(x[i], form);
}
template <int N> DEVICE void gelu_and_save(float (&x)[N], uint8_t* saved, Unary form) {
  uint32_t codes = 0;
#pragma unroll
  for (int i = 0; i < N; i++) {
    float derivative;
    gelu_in_bf16(x[i], form, x[i], derivative);
    codes |= slope_code(derivative) << 8 * i;
  }
  if (!saved) return;
  if (N == 4)
    *vector_at<uint32_t>(saved) = codes;
  else
    *saved = uint8_t(codes);
}

template <class T> struct EpilogueArguments {
  const float* bias;  // [n]
  Saved<T>* saved;    // [m, n], with the rows of c: BiasGelu writes it if it is not null, GeluGradient reads it
  // Factors that undo the scaling of A and B, or null.
  const float *scale_a, *scale_b;
  EpilogueKind kind;
  Unary gelu;         // the form of GELU
  int add;            // adds to c instead of overwriting it
};

// The weights of several layers in one memory, stacked to a taller one with other rows between them: `rows` of each, a multiple of a
// tile, and `between` of memory that are not theirs. Biases, or their gradients, lie apart likewise. No layers if `rows` is 0.
struct Stack {
  int rows, between;
  int between_biases;  // elements
  // The number of layers that end at a row of the stack or before it.
  DEVICE int before(int row) const { return rows ? row / rows : 0; }
};

// A product [m, n] of operands that are `k` long, and where it goes.
template <class C> struct ProductArguments {
  C* c;
  size_t batch_c;  // elements from product to product; grid.z counts products
  int m, n, k;
  int row_c;  // elements from row to row
  int split;  // if not 0, product z is a part of one product: that of `split` numbers along k from z * split on
  Stack stack;   // of the weight, B in a product with it, C in its gradient
  int add_sums;  // adds to row_sums instead of overwriting them
  // If not null, [m], `batch_c` elements from product to product: the sums of the rows of A. If A is the transposed gradient of
  // outputs, and C that of a weight, they are the gradient of the bias. Only kernels whose A lies across k write them.
  float* row_sums;
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
    case EpilogueKind::BiasGelu: {
      float one[1] = {x + e.bias[column]};
      gelu_and_save(one, e.saved ? e.saved + offset : nullptr, e.gelu);
      x = one[0];
      break;
    }
    case EpilogueKind::GeluGradient: x *= saved_slope(e.saved[offset], e.gelu); break;
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
DEVICE void write_groups(const ProductArguments<C>& product, const float* tile, int rows, int first_m, int first_n, int thread) {
  constexpr bool has_bias = KIND == EpilogueKind::Bias || KIND == EpilogueKind::BiasGelu;
  // As many as the registers allow.
  constexpr int at_once = KIND == EpilogueKind::BiasGelu ? 2 : 4, step = WRITERS * GROUP / TILE_COLUMNS;
  const EpilogueArguments<C>& e = product.epilogue;
  int of_column = thread * GROUP % TILE_COLUMNS, column = first_n + of_column;
  if (column >= product.n) return;
  C* c = product.c + blockIdx.z * product.batch_c + column;
  Saved<C>* saved = e.saved ? e.saved + blockIdx.z * product.batch_c + column : nullptr;
  float scale_a = e.scale_a ? *e.scale_a : 1.0f, scale_b = e.scale_b ? *e.scale_b : 1.0f, bias[GROUP] = {};
  if (has_bias) load(bias, e.bias + column);
#pragma unroll 1
  for (int first = thread * GROUP / TILE_COLUMNS; first < rows && first_m + first < product.m; first += step * at_once) {
    float before[at_once][GROUP];
    typename SavedOf<C>::Group kept[at_once];
#pragma unroll
    for (int i = 0; i < at_once; i++) {
      int row = first_m + first + i * step;
      if (ADD && row < product.m) load(before[i], c + size_t(row) * product.row_c);
      if (KIND == EpilogueKind::GeluGradient && row < product.m)
        kept[i] = *vector_at<typename SavedOf<C>::Group>(saved + size_t(row) * product.row_c);
    }
#pragma unroll
    for (int i = 0; i < at_once; i++) {
      int of_row = first + i * step;
      if (first_m + of_row >= product.m) continue;
      size_t offset = size_t(first_m + of_row) * product.row_c;
      float x[GROUP], slopes[GROUP];
      load(x, tile + place_in_tile(of_row, of_column));
      if (KIND == EpilogueKind::GeluGradient) saved_slopes(slopes, kept[i], GELU);
#pragma unroll
      for (int j = 0; j < GROUP; j++) {
        x[j] = x[j] * scale_a * scale_b;
        if (has_bias) x[j] += bias[j];
      }
      if (KIND == EpilogueKind::BiasGelu) gelu_and_save(x, saved ? saved + offset : nullptr, GELU);
#pragma unroll
      for (int j = 0; j < GROUP; j++) {
        if (KIND == EpilogueKind::GeluGradient) x[j] *= slopes[j];
        if (ADD) x[j] = __fadd_rn(before[i][j], x[j]);
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
         is(product.c, GROUP * sizeof(C)) && is(e.saved, GROUP * sizeof(Saved<C>)) && is(e.bias, GROUP * sizeof(float));
}

// Finishes single elements, for products that lie anywhere.
template <class C>
DEVICE void write_elements(const ProductArguments<C>& product, const float* tile, int rows, int first_m, int first_n, int thread) {
  C* c = product.c + blockIdx.z * product.batch_c;
  EpilogueArguments<C> epilogue = product.epilogue;
  if (epilogue.saved) epilogue.saved += blockIdx.z * product.batch_c;
#pragma unroll 1
  for (int id = thread; id < rows * TILE_COLUMNS; id += WRITERS) {
    int of_row = id / TILE_COLUMNS, of_column = id % TILE_COLUMNS, row = first_m + of_row, column = first_n + of_column;
    if (row >= product.m || column >= product.n) continue;
    size_t offset = size_t(row) * product.row_c + column;
    float before = epilogue.add ? to_f32(c[offset]) : 0.0f;
    store(c + offset, {finish(epilogue, tile[place_in_tile(of_row, of_column)], column, offset, before)});
  }
}

// Writes `rows` rows of a tile to c, from (first_m, first_n) on. Called by WRITERS threads.
template <class C>
DEVICE void write_tile(const ProductArguments<C>& product, const float* tile, int rows, int first_m, int first_n, int thread) {
  const EpilogueArguments<C>& e = product.epilogue;
#define WRITE_GROUPS(kind, gelu, add) \
  write_groups<EpilogueKind::kind, Unary::gelu, add>(product, tile, rows, first_m, first_n, thread)
  if (!is_aligned(product) || (e.add && e.kind != EpilogueKind::Plain)) {
    write_elements(product, tile, rows, first_m, first_n, thread);
  } else if (e.kind == EpilogueKind::Bias) {
    WRITE_GROUPS(Bias, Gelu, false);
  } else if (e.kind == EpilogueKind::BiasGelu) {
    e.gelu == Unary::Gelu ? WRITE_GROUPS(BiasGelu, Gelu, false) : WRITE_GROUPS(BiasGelu, GeluTanh, false);
  } else if (e.kind == EpilogueKind::GeluGradient) {
    // A derivative that was kept has no form.
    e.gelu == Unary::Gelu || sizeof(Saved<C>) == 1 ? WRITE_GROUPS(GeluGradient, Gelu, false)
                                                   : WRITE_GROUPS(GeluGradient, GeluTanh, false);
  } else {
    e.add ? WRITE_GROUPS(Plain, Gelu, true) : WRITE_GROUPS(Plain, Gelu, false);
  }
#undef WRITE_GROUPS
}

// Writes the sum of a row of A.
template <class C> DEVICE void write_row_sum(const ProductArguments<C>& product, int row, float sum) {
  if (row >= product.m) return;
  const float* scale = product.epilogue.scale_a;
  put(product.row_sums + blockIdx.z * product.batch_c + row, scale ? sum * *scale : sum, product.add_sums);
}

// The product of a block whose tile begins at (first_m, first_n). In a stack of layers, addresses count from the layer of the tile.
template <bool IS_GRADIENT, class C> DEVICE ProductArguments<C> in_layer(ProductArguments<C> product, int first_m, int first_n) {
  int before = product.stack.before(IS_GRADIENT ? first_m : first_n);
  int biases = before * product.stack.between_biases;
  if (!IS_GRADIENT) {
    product.epilogue.bias += biases;
    return product;
  }
  product.c += size_t(before) * product.stack.between * product.row_c;
  if (product.row_sums) product.row_sums += biases;
  return product;
}
