// Common parts of the attention kernels on tensor cores: packed sequences, and tiles in shared memory.
//
// The tokens of all sequences follow one another without padding: sequence s has rows starts[s] to starts[s + 1] of q,
// k and v, and attention never crosses these boundaries. Shapes: T tokens, N heads, D head size. Head h of a token
// starts at column h D.
#pragma once

#include "random.cuh"
#include "reduce.cuh"
#include "vector.cuh"

// The type of outputs and gradients: that of bf16 operands, which has the range of f32, and f32 for those in f16, which are scaled.
template <class T> struct ResultOf {
  using Type = float;
};
template <> struct ResultOf<bf16> {
  using Type = bf16;
};
template <class T> using Result = typename ResultOf<T>::Type;

// The sequences of a batch.
struct Sequences {
  const uint32_t* starts;   // [sequences + 1]
  const uint32_t* numbers;  // [sequences], numbers within the optimizer step, for dropout
};

// The factor that undoes the scaling of a matrix in f16; 1 for others.
DEVICE float scale_at(const float* scale) { return scale ? *scale : 1.0f; }

constexpr float LOG2_E = 1.44269504f, LN_2 = 0.69314718f;

// The address of a chunk of 16 bytes in a row of a tile [rows, D]. Chunks are swizzled, so that the same chunk of eight
// neighbouring rows lies in different banks.
template <int D, class T> DEVICE T* chunk_at(T* tile, int row, int chunk) {
  int swizzled = D == 32 ? chunk ^ (row / 2 & 3) : chunk ^ (row & 7);
  return tile + row * D + swizzled * 8;
}

// Fetches 64 rows of a sequence, from `first` on; rows beyond its `length` become zero. Called by 128 threads.
template <int D, class T> DEVICE void fetch_rows(T* tile, const T* sequence, int first, int length, int row) {
#pragma unroll
  for (int i = 0; i < 64 * D / 8 / 128; i++) {
    int id = i * 128 + int(threadIdx.x), r = id / (D / 8), chunk = id % (D / 8);
    bool inside = first + r < length;
    copy_async(chunk_at<D>(tile, r, chunk), sequence + (inside ? size_t(first + r) * row : 0) + chunk * 8, inside);
  }
}
