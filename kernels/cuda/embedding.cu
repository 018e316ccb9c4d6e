// Embeddings: z = word[id] + position[p] + token_type[t] for every token, their gradients, and rows of any matrix.
//
// Many tokens share a row of a table, and adding their gradients with atomics would give another order, and other bits,
// in every run. So the host sorts the tokens by row: `order` lists the tokens of the first row that occurs, then those
// of the second. A block sums a segment of the tokens of one row in that order, so that a row that half of the tokens share does not
// keep one block busy alone; the sums of the segments of a row are summed by another launch. Rows that do not occur are not touched.
// The host checks that all ids are within their tables.
#include "vector.cuh"

template <class T> struct EmbeddingArguments {
  const T *word, *position, *token_type;
  const uint32_t *ids, *positions, *token_types;
  T* z;
  int tokens, width;
};

template <class T, int N> DEVICE void embed_row(const EmbeddingArguments<T>& a, int token, const uint32_t (&ids)[3]) {
  for (int column = (threadIdx.x % 32) * N; column < a.width; column += 32 * N) {
    float word[N], position[N], type[N];
    load(word, a.word + size_t(ids[0]) * a.width + column);
    load(position, a.position + size_t(ids[1]) * a.width + column);
    load(type, a.token_type + size_t(ids[2]) * a.width + column);
#pragma unroll
    for (int i = 0; i < N; i++) word[i] += position[i] + type[i];
    store(a.z + size_t(token) * a.width + column, word);
  }
}

// A warp computes a token.
template <class T> DEVICE void embed(const EmbeddingArguments<T>& a) {
  int token = int(blockIdx.x) * 4 + int(threadIdx.x) / 32;
  if (token >= a.tokens) return;
  uint32_t ids[3] = {a.ids[token], a.positions[token], a.token_types[token]};
  if (a.width % PER_16_BYTES<T> == 0)
    embed_row<T, PER_16_BYTES<T>>(a, token, ids);
  else
    embed_row<T, 1>(a, token, ids);
}

// y [rows, width] = rows `ids` of the matrix x. A warp copies a row.
template <class T> struct GatherArguments {
  const T* x;
  const uint32_t* ids;
  T* y;
  int rows, width, add;
};
template <class T> DEVICE void gather(const GatherArguments<T>& a) {
  int row = int(blockIdx.x) * 4 + int(threadIdx.x) / 32;
  if (row >= a.rows) return;
  const T* x = a.x + size_t(a.ids[row]) * a.width;
  T* y = a.y + size_t(row) * a.width;
  for (int column = threadIdx.x % 32; column < a.width; column += 32) {
    if (a.add)
      put(y + column, to_f32(x[column]), a.add);
    else
      y[column] = x[column];
  }
}

// Sums rows of dz. A block sums a segment: the rows that `order` lists from starts[block] to starts[block + 1], or dz itself has
// there if `order` is null. If rows[block] has its highest bit, the sum becomes the row of `partials` that the other bits name, else
// it is added to that row of a gradient.
template <class T, class G> struct ScatterArguments {
  const T* dz;
  const uint32_t *order, *starts, *rows;
  G* gradient;
  float* partials;
  int width;
};
template <int N, class T, class G> DEVICE void scatter_row(const ScatterArguments<T, G>& a) {
  // Rows that are loaded before the first is added.
  constexpr int at_once = 4;
  constexpr uint32_t partial = 1u << 31;
  uint32_t start = a.starts[blockIdx.x], end = a.starts[blockIdx.x + 1], row = a.rows[blockIdx.x];
  for (int column = threadIdx.x * N; column < a.width; column += blockDim.x * N) {
    float sum[N] = {};
    for (uint32_t i = start; i < end; i += at_once) {
      float loaded[at_once][N];
#pragma unroll
      for (int j = 0; j < at_once; j++)
        if (i + j < end) load(loaded[j], a.dz + size_t(a.order ? a.order[i + j] : i + j) * a.width + column);
#pragma unroll
      for (int j = 0; j < at_once; j++)
        for (int k = 0; k < N && i + j < end; k++) sum[k] += loaded[j][k];
    }
    // A gradient may start at any element.
#pragma unroll
    for (int k = 0; k < N; k++) {
      if (row & partial)
        a.partials[size_t(row - partial) * a.width + column + k] = sum[k];
      else
        put(a.gradient + size_t(row) * a.width + column + k, sum[k], 1);
    }
  }
}
template <class T, class G> DEVICE void scatter_sums(const ScatterArguments<T, G>& a) {
  if (a.width % 4 == 0)
    scatter_row<4>(a);
  else
    scatter_row<1>(a);
}

KERNEL(embed_f32)(EmbeddingArguments<float> a) { embed(a); }
EMU_KERNEL(embed_f32)
KERNEL(gather_f32)(GatherArguments<float> a) { gather(a); }
EMU_KERNEL(gather_f32)
KERNEL(gather_bf16)(GatherArguments<bf16> a) { gather(a); }
EMU_KERNEL(gather_bf16)

// Named after the types of dz and of the gradient. Sums of segments are f32, and so is what is read of them.
#define SCATTER_SUMS(name, T, G)                                            \
  KERNEL(scatter_sums_##name)(ScatterArguments<T, G> a) { scatter_sums(a); } \
  EMU_KERNEL(scatter_sums_##name)
SCATTER_SUMS(f32_f32, float, float)
SCATTER_SUMS(bf16_bf16, bf16, bf16)
SCATTER_SUMS(f32_bf16, float, bf16)
