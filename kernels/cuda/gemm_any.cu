// Matrix products C = A B of any shape and any strides, in f32: for full precision, which tensor cores do not have.
//
// A block computes 64 x 64 of C from pieces of 16 along k, a thread 4 x 4 elements that are sixteen apart, so that neighbouring
// threads read neighbouring words of shared memory.
#include "epilogue.cuh"

constexpr int TILE = 64, TILE_K = 16, THREADS = 256, PADDED = TILE + 1;

struct GemmAnyArguments {
  const float *a, *b;
  float* c;
  int m, n, k;
  int row_a, column_a, row_b, column_b, row_c;  // elements from row to row, and from column to column
  size_t batch_a, batch_b, batch_c;             // elements from product to product; grid.z counts products
  EpilogueArguments<float> epilogue;
};

// Fetches a piece into `to` [16, 65], element (outer, k) at to[k * 65 + outer]; elements outside the matrix become zero. The
// index that is contiguous in memory varies fastest over the threads.
DEVICE void fetch(float* to, const float* from, int first, int outer, int at, int k, int of_outer, int of_k) {
#pragma unroll
  for (int i = 0; i < TILE * TILE_K / THREADS; i++) {
    int id = i * THREADS + int(threadIdx.x);
    int o = of_k == 1 ? id / TILE_K : id % TILE, x = of_k == 1 ? id % TILE_K : id / TILE;
    bool inside = first + o < outer && at + x < k;
    to[x * PADDED + o] = inside ? from[size_t(first + o) * of_outer + size_t(at + x) * of_k] : 0.0f;
  }
}

KERNEL(gemm_any_f32)(GemmAnyArguments g) {
  SHARED_MEMORY(memory);
  float* of_a = reinterpret_cast<float*>(memory);
  float* of_b = of_a + TILE_K * PADDED;
  int first_m = int(blockIdx.y) * TILE, first_n = int(blockIdx.x) * TILE;
  int x = threadIdx.x % 16, y = threadIdx.x / 16;
  float sums[4][4] = {};
  for (int at = 0; at < g.k; at += TILE_K) {
    fetch(of_a, g.a + blockIdx.z * g.batch_a, first_m, g.m, at, g.k, g.row_a, g.column_a);
    fetch(of_b, g.b + blockIdx.z * g.batch_b, first_n, g.n, at, g.k, g.column_b, g.row_b);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < TILE_K; k++) {
      float left[4], right[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        left[i] = of_a[k * PADDED + y + 16 * i];
        right[i] = of_b[k * PADDED + x + 16 * i];
      }
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] += left[i] * right[j];
    }
    __syncthreads();
  }
  float* c = g.c + blockIdx.z * g.batch_c;
  EpilogueArguments<float> epilogue = g.epilogue;
  if (epilogue.saved) epilogue.saved += blockIdx.z * g.batch_c;
  // Sums pass through shared memory, eight of a thread's at a time, so that the code of the epilogue exists once.
  float* own = of_a + threadIdx.x * 8;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
#pragma unroll
    for (int part = 0; part < 2; part++)
#pragma unroll
      for (int j = 0; j < 4; j++) own[part * 4 + j] = sums[i + part][j];
#pragma unroll 1
    for (int at = 0; at < 8; at++) {
      int row = first_m + y + 16 * (i + at / 4), column = first_n + x + 16 * (at % 4);
      if (row >= g.m || column >= g.n) continue;
      size_t offset = size_t(row) * g.row_c + column;
      float before = epilogue.add ? c[offset] : 0.0f;
      c[offset] = finish(epilogue, own[at], column, offset, before);
    }
  }
}
EMU_KERNEL(gemm_any_f32)
