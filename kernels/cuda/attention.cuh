// What attention's kernels share: packed sequences, tiles in shared memory, masks of dropout.
//
// Tokens of all sequences lie one after the other, without padding; sequence s has rows starts[s] to starts[s + 1] of q, k and v,
// and attention never looks across. Shapes: T tokens, N heads, D head size; row h D of a token begins head h.
#pragma once

#include "random.cuh"
#include "vector.cuh"

// Sequences, as all kernels take them.
struct Sequences {
  const uint32_t* starts;   // [sequences + 1]
  const uint32_t* numbers;  // [sequences], within the optimizer step, for dropout
};

// What numbers are times those that a kernel has, where they were scaled.
DEVICE float scale_at(const float* scale) { return scale ? *scale : 1.0f; }

constexpr float LOG2_E = 1.44269504f, LN_2 = 0.69314718f;
DEVICE float minus_infinity() { return __int_as_float(int(0xff800000)); }

// Chunk `chunk` of 16 bytes of a row of a tile [rows, D], swizzled: eight neighbouring rows have theirs in different banks.
template <int D, class T> DEVICE T* chunk_at(T* tile, int row, int chunk) {
  int swizzled = D == 32 ? chunk ^ (row / 2 & 3) : chunk ^ (row & 7);
  return tile + row * D + swizzled * 8;
}

// Fetches rows `first` and on, 64 of them, of a sequence of `length`; those beyond are zeros. 128 threads.
template <int D, class T> DEVICE void fetch_rows(T* tile, const T* sequence, int first, int length, int row) {
#pragma unroll
  for (int i = 0; i < 64 * D / 8 / 128; i++) {
    int id = i * 128 + int(threadIdx.x), r = id / (D / 8), chunk = id % (D / 8);
    bool inside = first + r < length;
    copy_async(chunk_at<D>(tile, r, chunk), sequence + (inside ? size_t(first + r) * row : 0) + chunk * 8, inside);
  }
}
