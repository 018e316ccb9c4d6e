// The gradients that the ranks of a job have sent to the one that updates a parameter: their sum and its squares, in one
// pass over memory; and the rounding of gradients that travel as bf16.
//
// Ranks are added in their order and squares in an order that depends on the place in the flat buffer alone, so the results
// have the bits that the host computes for the sum, and the norm does not depend on the number of ranks.
#include "vector.cuh"

// Elements per block, whose squares make one partial sum of the norm. Shares of ranks consist of such blocks.
constexpr int BLOCK = 1 << 12;
constexpr int THREADS = 256;

// sums[i] = parts[0][i] + parts[1][i] + .., where each part has `count` elements, a multiple of 8. squares[block] is the
// sum of the squares of a block of sums, in f64.
template <class T> DEVICE void add_ranks(const T* parts, float* sums, double* squares, uint64_t count, int ranks) {
  SHARED_MEMORY(memory);
  double* of_threads = reinterpret_cast<double*>(memory);
  constexpr int N = PER_16_BYTES<T>;
  uint64_t start = uint64_t(blockIdx.x) * BLOCK;
  double square = 0;
  for (int i = int(threadIdx.x) * N; i < BLOCK && start + i < count; i += THREADS * N) {
    float sum[N];
    load(sum, parts + start + i);
    for (int rank = 1; rank < ranks; rank++) {
      float part[N];
      load(part, parts + rank * count + start + i);
#pragma unroll
      for (int j = 0; j < N; j++) sum[j] += part[j];
    }
#pragma unroll
    for (int j = 0; j < N; j += 4) {
      float four[4] = {sum[j], sum[j + 1], sum[j + 2], sum[j + 3]};
      store(sums + start + i + j, four);
    }
#pragma unroll
    for (int j = 0; j < N; j++) square += double(sum[j]) * sum[j];
  }
  of_threads[threadIdx.x] = square;
  for (int half = THREADS / 2; half; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half) of_threads[threadIdx.x] += of_threads[threadIdx.x + half];
  }
  if (threadIdx.x == 0) squares[blockIdx.x] = of_threads[0];
}
KERNEL(add_ranks_f32)(const float* parts, float* sums, double* squares, uint64_t count, int ranks) {
  add_ranks(parts, sums, squares, count, ranks);
}
EMU_KERNEL(add_ranks_f32)
KERNEL(add_ranks_bf16)(const bf16* parts, float* sums, double* squares, uint64_t count, int ranks) {
  add_ranks(parts, sums, squares, count, ranks);
}
EMU_KERNEL(add_ranks_bf16)

// to[i] = from[i] rounded to bf16. A thread rounds 8 elements; `count` is a multiple of 8.
KERNEL(round_bf16)(const float* from, bf16* to, uint64_t count) {
  uint64_t at = (uint64_t(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
  if (at >= count) return;
  float values[8];
  load(values, from + at);
  store(to + at, values);
}
EMU_KERNEL(round_bf16)
