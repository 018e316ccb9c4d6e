// Attention, forward: O = dropout(softmax(Q K^T scale)) V for every head of every sequence, without ever storing the matrix of
// scores (T. Dao, D. Fu, S. Ermon, A. Rudra, C. Re, "FlashAttention", 2022; T. Dao, "FlashAttention-2", 2023).
//
// A block handles 64 queries of a head, a warp 16 of them. Keys and values arrive 64 at a time, in two buffers each, so
// that the next ones are fetched while these are used. The softmax is online: each row keeps its largest score so far
// and the sum of exponentials relative to it, and both the sum and the output are rescaled whenever the largest score
// grows. The logarithm of each row's sum is kept for backward. Inputs are bf16 or f16, sums are f32. The output is bf16 if the
// inputs are, else f32, because f16 has not its range.
#include "attention.cuh"

template <class T> struct AttentionArguments {
  const T *q, *k, *v;
  const float* scale_qkv;
  Result<T>* o;
  float* log_sums;  // [N, T]
  Sequences sequences;
  int row_qkv, row_o, tokens;
  float scale;
  Dropout dropout;
};

template <int D, class T> DEVICE void attention_forward(const AttentionArguments<T>& a) {
  SHARED_MEMORY(memory);
  T* of_q = reinterpret_cast<T*>(memory);
  T* of_k = of_q + 64 * D;
  T* of_v = of_k + 2 * 64 * D;
  int head = blockIdx.y, sequence = blockIdx.z;
  int start = int(a.sequences.starts[sequence]), length = int(a.sequences.starts[sequence + 1]) - start;
  int first = int(blockIdx.x) * 64;
  if (first >= length) return;
  size_t offset = size_t(start) * a.row_qkv + head * D;
  const T *q = a.q + offset, *k = a.k + offset, *v = a.v + offset;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  fetch_rows<D>(of_q, q, first, length, a.row_qkv);
  fetch_rows<D>(of_k, k, 0, length, a.row_qkv);
  copy_async_commit();
  fetch_rows<D>(of_v, v, 0, length, a.row_qkv);
  copy_async_commit();

  float output[D / 8][4] = {}, largest[2] = {lowest(), lowest()}, sum[2] = {0, 0};
  uint32_t query[D / 16][4];
  float scale_qkv = scale_at(a.scale_qkv), to_log2 = a.scale * LOG2_E * scale_qkv * scale_qkv;
  int tiles = (length + 63) / 64;
  for (int tile = 0; tile < tiles; tile++) {
    T* keys = of_k + tile % 2 * 64 * D;
    T* values = of_v + tile % 2 * 64 * D;
    copy_async_wait<1>();
    __syncthreads();  // the keys have arrived for all threads, and none still reads the previous ones
    if (tile == 0) {
#pragma unroll
      for (int d = 0; d < D / 16; d++) load_matrices(query[d], chunk_at<D>(of_q, warp * 16 + lane % 16, d * 2 + lane / 16));
    }
    if (tile + 1 < tiles) fetch_rows<D>(of_k + (tile + 1) % 2 * 64 * D, k, (tile + 1) * 64, length, a.row_qkv);
    copy_async_commit();

    float scores[8][4] = {};
#pragma unroll
    for (int d = 0; d < D / 16; d++)
#pragma unroll
      for (int j = 0; j < 4; j++) {
        uint32_t two[4];
        load_matrices(two, chunk_at<D>(keys, j * 16 + lane % 8 + lane / 16 * 8, d * 2 + lane / 8 % 2));
        uint32_t even[2] = {two[0], two[1]}, odd[2] = {two[2], two[3]};
        multiply(scores[2 * j], query[d], even, T{});
        multiply(scores[2 * j + 1], query[d], odd, T{});
      }
    float larger[2] = {largest[0], largest[1]};
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        int key = tile * 64 + j * 8 + lane % 4 * 2 + e % 2;
        scores[j][e] = key < length ? scores[j][e] * to_log2 : minus_infinity();
        larger[e / 2] = fmaxf(larger[e / 2], scores[j][e]);
      }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      // A row is spread over four lanes.
      larger[r] = fmaxf(larger[r], __shfl_xor_sync(ALL_LANES, larger[r], 1));
      larger[r] = fmaxf(larger[r], __shfl_xor_sync(ALL_LANES, larger[r], 2));
      float correction = exp2_fast(largest[r] - larger[r]);
      largest[r] = larger[r];
      sum[r] *= correction;
#pragma unroll
      for (int d = 0; d < D / 8; d++) {
        output[d][2 * r] *= correction;
        output[d][2 * r + 1] *= correction;
      }
    }
    uint32_t probabilities[4][4];
#pragma unroll
    for (int half = 0; half < 2; half++) {  // 32 keys, for which one draw decides
      uint4 bytes = {0, 0, 0, 0};
      if (a.dropout.threshold)
        bytes = attention_bytes(a.dropout, a.sequences.numbers[sequence], uint32_t(head), uint32_t(first / 16 + warp),
                                uint32_t(tile * 2 + half), uint32_t(lane));
#pragma unroll
      for (int j = 0; j < 4; j++) {
        float p[4];
#pragma unroll
        for (int e = 0; e < 4; e++) {
          p[e] = exp2_fast(scores[half * 4 + j][e] - largest[e / 2]);
          sum[e / 2] += p[e];
          if (a.dropout.threshold && byte_of(bytes, j, e) < a.dropout.threshold) p[e] = 0;
        }
        // Accumulators and left operands have the same layout: two groups of eight keys make one of sixteen.
        int group = half * 4 + j;
        probabilities[group / 2][group % 2 * 2] = pack(p[0], p[1], T{});
        probabilities[group / 2][group % 2 * 2 + 1] = pack(p[2], p[3], T{});
      }
    }
    copy_async_wait<1>();
    __syncthreads();  // the values have arrived for all threads, and none still reads the previous ones
    if (tile + 1 < tiles) fetch_rows<D>(of_v + (tile + 1) % 2 * 64 * D, v, (tile + 1) * 64, length, a.row_qkv);
    copy_async_commit();
#pragma unroll
    for (int key = 0; key < 4; key++)
#pragma unroll
      for (int d = 0; d < D / 16; d++) {
        uint32_t two[4];
        load_matrices_transposed(two, chunk_at<D>(values, key * 16 + lane % 16, d * 2 + lane / 16));
        uint32_t even[2] = {two[0], two[1]}, odd[2] = {two[2], two[3]};
        multiply(output[2 * d], probabilities[key], even, T{});
        multiply(output[2 * d + 1], probabilities[key], odd, T{});
      }
  }
  copy_async_wait<0>();

  float kept = a.dropout.threshold ? kept_scale(a.dropout) : 1.0f;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    sum[r] += __shfl_xor_sync(ALL_LANES, sum[r], 1);
    sum[r] += __shfl_xor_sync(ALL_LANES, sum[r], 2);
    int row = first + warp * 16 + lane / 4 + 8 * r;
    if (row >= length) continue;
    float factor = kept / sum[r] * scale_qkv;
    Result<T>* to = a.o + size_t(start + row) * a.row_o + head * D + lane % 4 * 2;
#pragma unroll
    for (int d = 0; d < D / 8; d++) store(to + d * 8, {output[d][2 * r] * factor, output[d][2 * r + 1] * factor});
    if (lane % 4 == 0) a.log_sums[size_t(head) * a.tokens + start + row] = largest[r] * LN_2 + logf(sum[r]);
  }
}

#define ATTENTION_FORWARD(T, D)                                                                          \
  KERNEL(attention_forward_##T##_##D)(AttentionArguments<T> a) { attention_forward<D>(a); }              \
  EMU_KERNEL(attention_forward_##T##_##D)
ATTENTION_FORWARD(f16, 32)
ATTENTION_FORWARD(f16, 64)
#ifdef MULTIPLIES_BF16
ATTENTION_FORWARD(f16, 128)  // heads of 128 need more shared memory than Turing has
ATTENTION_FORWARD(bf16, 32)
ATTENTION_FORWARD(bf16, 64)
ATTENTION_FORWARD(bf16, 128)
#endif
