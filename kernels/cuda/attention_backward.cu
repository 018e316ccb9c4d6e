// Attention, backward. With P = softmax(S), S = Q K^T scale, M the factors of dropout and D_i = sum_d O_id dO_id:
//
//   dV = (P M)^T dO,  dP = M (dO V^T),  dS = P (dP - D),  dQ = dS K scale,  dK = dS^T Q scale
//
// (T. Dao, "FlashAttention-2", 2023, which recomputes the scores from the logarithms of the sums). Every other block handles 64 keys
// and iterates over the queries, those between handle 64 queries and iterate over the keys. So every sum belongs to one warp and has
// one order, without atomics. The price is to recompute the scores twice, where blocks that add to a common dQ would recompute them
// once. Both kinds are in one launch, next to each other, so that what they read of a sequence comes from memory once. For the same
// reason a block computes the D_i that it needs itself.
#include "attention.cuh"

template <class T> struct BackwardArguments {
  const T *q, *k, *v, *d_o;
  const float *scale_qkv, *scale_do;
  const Result<T>* o;     // [T, N D]
  const float* log_sums;  // [N, T]
  Result<T> *dq, *dk, *dv;
  Sequences sequences;
  int row_qkv, row_o, row_dqkv, tokens;
  float scale;
  Dropout dropout;
  int add;  // adds to dq, dk and dv instead of overwriting them
};

// The product of 16 rows of `left`, from 16 `warp` on, and 16 rows of `right`, from `at` on, both [.., D]: two groups of eight
// columns.
template <int D, class T> DEVICE void multiply_rows(float (&even)[4], float (&odd)[4], T* left, int warp, T* right, int at) {
  int lane = threadIdx.x % 32;
  // Fully unrolled, heads of 128 spill registers.
#pragma unroll 4
  for (int d = 0; d < D / 16; d++) {
    uint32_t of_left[4], two[4];
    load_matrices(of_left, chunk_at<D>(left, warp * 16 + lane % 16, d * 2 + lane / 16));
    load_matrices(two, chunk_at<D>(right, at + lane % 8 + lane / 16 * 8, d * 2 + lane / 8 % 2));
    uint32_t first[2] = {two[0], two[1]}, second[2] = {two[2], two[3]};
    multiply(even, of_left, first, T{});
    multiply(odd, of_left, second, T{});
  }
}

// sums [16, D] += a left operand with 16 columns times 16 rows of `right` [.., D], from `at` on.
template <int D, class T> DEVICE void add_product(float (&sums)[D / 8][4], const uint32_t (&left)[4], T* right, int at) {
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int d = 0; d < D / 16; d++) {
    uint32_t two[4];
    load_matrices_transposed(two, chunk_at<D>(right, at + lane % 16, d * 2 + lane / 16));
    uint32_t first[2] = {two[0], two[1]}, second[2] = {two[2], two[3]};
    multiply(sums[2 * d], left, first, T{});
    multiply(sums[2 * d + 1], left, second, T{});
  }
}

// Writes a warp's 16 rows of a gradient, times `factor`, or adds them to those in memory.
template <int D, class R>
DEVICE void write_rows(R* to, const float (&sums)[D / 8][4], int first, int length, int row, float factor, int add) {
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    int at = first + lane / 4 + 8 * r;
    if (at >= length) continue;
    R* pairs = to + size_t(at) * row + lane % 4 * 2;
#pragma unroll
    for (int d = 0; d < D / 8; d++) put(pairs + d * 8, {sums[d][2 * r] * factor, sums[d][2 * r + 1] * factor}, add);
  }
}

// The offsets of the rows of one head of one sequence, and their number.
template <int D> struct Head {
  int start, length;
  size_t qkv, o, statistics;
  uint32_t number;

  template <class T> DEVICE Head(const BackwardArguments<T>& a, int head, int sequence) {
    start = int(a.sequences.starts[sequence]);
    length = int(a.sequences.starts[sequence + 1]) - start;
    number = a.sequences.numbers[sequence];
    qkv = size_t(start) * a.row_qkv + head * D;
    o = size_t(start) * a.row_o + head * D;
    statistics = size_t(head) * a.tokens + start;
  }
};

// The shared memory of a block: its own rows of two matrices, and those of the other two that pass by.
template <int D, class T> struct Tiles {
  T own[2][64 * D], passing[2][64 * D];
  // Of 64 queries: the logarithms of the sums, to the base 2, and the D_i in the scale of the stored dO and V.
  float log_sums[64], deltas[64];
  uint16_t masks[4][2][32];  // [row blocks, column blocks, lanes]
};

// Writes log_sums and deltas of 64 queries from `first` on, two threads for each.
template <int D, class T>
DEVICE void fetch_statistics(Tiles<D, T>& tiles, const BackwardArguments<T>& a, const Head<D>& at, int first, float scale_qkv) {
  int of_tile = threadIdx.x / 2, row = first + of_tile;
  bool inside = row < at.length;
  size_t start = at.o + size_t(inside ? row : 0) * a.row_o + threadIdx.x % 2 * (D / 2);
  float delta = 0;
#pragma unroll 2
  for (int d = 0; inside && d < D / 2; d += 8) {
    float o[8], d_o[8];
    load(o, a.o + start + d);
    load(d_o, a.d_o + start + d);
#pragma unroll
    for (int i = 0; i < 8; i++) delta += o[i] * d_o[i];
  }
  delta += __shfl_xor_sync(ALL_LANES, delta, 1);
  if (threadIdx.x % 2 != 0) return;
  tiles.log_sums[of_tile] = inside ? a.log_sums[at.statistics + row] * LOG2_E : 0.0f;
  tiles.deltas[of_tile] = delta / scale_qkv;
}

// dQ of 64 queries. Keys and values arrive 64 at a time, in one buffer each: other blocks of the multiprocessor compute meanwhile.
template <int D, class T> DEVICE void attention_dq(const BackwardArguments<T>& a, const Head<D>& at, int first) {
  SHARED_MEMORY(memory);
  Tiles<D, T>& tiles = *reinterpret_cast<Tiles<D, T>*>(memory);
  T *of_q = tiles.own[0], *of_do = tiles.own[1], *of_k = tiles.passing[0], *of_v = tiles.passing[1];
  int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  fetch_rows<D>(of_q, a.q + at.qkv, first, at.length, a.row_qkv);
  fetch_rows<D>(of_do, a.d_o + at.o, first, at.length, a.row_o);
  float sums[D / 8][4] = {}, log_sum[2], delta[2];
  float kept = kept_scale(a.dropout), scale_qkv = scale_at(a.scale_qkv), to_log2 = a.scale * LOG2_E * scale_qkv * scale_qkv;
  fetch_statistics(tiles, a, at, first, scale_qkv);
  __syncthreads();
#pragma unroll
  for (int r = 0; r < 2; r++) {
    int of_tile = warp * 16 + lane / 4 + 8 * r;
    log_sum[r] = tiles.log_sums[of_tile], delta[r] = tiles.deltas[of_tile];
  }
  for (int key = 0; key < at.length; key += 64) {
    __syncthreads();  // no thread still reads the previous keys
    fetch_rows<D>(of_k, a.k + at.qkv, key, at.length, a.row_qkv);
    fetch_rows<D>(of_v, a.v + at.qkv, key, at.length, a.row_qkv);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int half = 0; half < 2; half++) {
      uint4 bytes = {0, 0, 0, 0};
      if (a.dropout.threshold)
        bytes = attention_bytes(a.dropout, at.number, uint32_t(head), uint32_t(first / 16 + warp), uint32_t(key / 32 + half),
                                uint32_t(lane));
#pragma unroll
      for (int group = 0; group < 2; group++) {  // of 16 keys
        int column = half * 32 + group * 16;
        float scores[2][4] = {}, dp[2][4] = {};
        multiply_rows<D>(scores[0], scores[1], of_q, warp, of_k, column);
        multiply_rows<D>(dp[0], dp[1], of_do, warp, of_v, column);
        uint32_t ds[4];
#pragma unroll
        for (int j = 0; j < 2; j++) {
#pragma unroll
          for (int e = 0; e < 4; e++) {
            int of_key = key + column + j * 8 + lane % 4 * 2 + e % 2;
            float p = of_key < at.length ? exp2_fast(scores[j][e] * to_log2 - log_sum[e / 2]) : 0.0f;
            if (a.dropout.threshold) dp[j][e] = byte_of(bytes, group * 2 + j, e) >= a.dropout.threshold ? dp[j][e] * kept : 0.0f;
            scores[j][e] = p * (dp[j][e] - delta[e / 2]);
          }
          ds[j * 2] = pack(scores[j][0], scores[j][1], T{});
          ds[j * 2 + 1] = pack(scores[j][2], scores[j][3], T{});
        }
        add_product<D>(sums, ds, of_k, column);
      }
    }
  }
  write_rows<D>(a.dq + size_t(at.start) * a.row_dqkv + head * D, sums, first + warp * 16, at.length, a.row_dqkv,
                a.scale * scale_qkv * scale_qkv * scale_at(a.scale_do), a.add);
}

// dK and dV of 64 keys, 16 per warp; queries arrive 64 at a time. A warp computes transposed scores, whose rows are
// keys, so the element that a lane holds is not the one that it drew for. Masks therefore pass through shared memory, a
// bit per element.
template <int D, class T> DEVICE void attention_dkv(const BackwardArguments<T>& a, const Head<D>& at, int first) {
  SHARED_MEMORY(memory);
  Tiles<D, T>& tiles = *reinterpret_cast<Tiles<D, T>*>(memory);
  T *of_k = tiles.own[0], *of_v = tiles.own[1], *of_q = tiles.passing[0], *of_do = tiles.passing[1];
  int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  fetch_rows<D>(of_k, a.k + at.qkv, first, at.length, a.row_qkv);
  fetch_rows<D>(of_v, a.v + at.qkv, first, at.length, a.row_qkv);
  float dk[D / 8][4] = {}, dv[D / 8][4] = {};
  float kept = kept_scale(a.dropout), scale_qkv = scale_at(a.scale_qkv), scale = a.scale * scale_qkv * scale_qkv;
  float to_log2 = scale * LOG2_E;
  for (int query = 0; query < at.length; query += 64) {
    __syncthreads();  // no thread still reads the previous queries
    fetch_rows<D>(of_q, a.q + at.qkv, query, at.length, a.row_qkv);
    fetch_rows<D>(of_do, a.d_o + at.o, query, at.length, a.row_o);
    copy_async_commit();
    fetch_statistics(tiles, a, at, query, scale_qkv);
    if (a.dropout.threshold)
      for (int i = threadIdx.x; i < 256; i += 128) {
        uint4 bytes = attention_bytes(a.dropout, at.number, uint32_t(head), uint32_t(query / 16 + i / 64),
                                      uint32_t(first / 32 + i / 32 % 2), uint32_t(i % 32));
        uint32_t mask = 0;
#pragma unroll
        for (int bit = 0; bit < 16; bit++) mask |= uint32_t(byte_of(bytes, bit / 4, bit % 4) >= a.dropout.threshold) << bit;
        tiles.masks[i / 64][i / 32 % 2][i % 32] = uint16_t(mask);
      }
    copy_async_wait<0>();
    __syncthreads();
#pragma unroll 1  // unrolled, heads of 128 spill registers
    for (int column = 0; column < 64; column += 16) {  // 16 queries
      float scores[2][4] = {}, dp[2][4] = {};
      multiply_rows<D>(scores[0], scores[1], of_k, warp, of_q, column);
      multiply_rows<D>(dp[0], dp[1], of_v, warp, of_do, column);
      uint32_t p_dropped[4], ds[4];
#pragma unroll
      for (int j = 0; j < 2; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          int key = warp * 16 + lane / 4 + e / 2 * 8, of_query = column + j * 8 + lane % 4 * 2 + e % 2;
          bool inside = first + key < at.length && query + of_query < at.length;
          float p = inside ? exp2_fast(scores[j][e] * to_log2 - tiles.log_sums[of_query]) : 0.0f;
          scores[j][e] = p;
          if (a.dropout.threshold) {
            int owner = 4 * (of_query % 8) + key % 8 / 2, bit = 4 * (key % 32 / 8) + 2 * (of_query % 16 / 8) + key % 2;
            bool is_kept = tiles.masks[of_query / 16][key / 32][owner] >> bit & 1;
            scores[j][e] = is_kept ? p * kept : 0.0f;
            dp[j][e] = is_kept ? dp[j][e] * kept : 0.0f;
          }
          dp[j][e] = p * (dp[j][e] - tiles.deltas[of_query]);
        }
        p_dropped[j * 2] = pack(scores[j][0], scores[j][1], T{});
        p_dropped[j * 2 + 1] = pack(scores[j][2], scores[j][3], T{});
        ds[j * 2] = pack(dp[j][0], dp[j][1], T{});
        ds[j * 2 + 1] = pack(dp[j][2], dp[j][3], T{});
      }
      add_product<D>(dv, p_dropped, of_do, column);
      add_product<D>(dk, ds, of_q, column);
    }
  }
  size_t to = size_t(at.start) * a.row_dqkv + head * D;
  float scale_do = scale_at(a.scale_do);
  write_rows<D>(a.dk + to, dk, first + warp * 16, at.length, a.row_dqkv, scale * scale_do, a.add);
  write_rows<D>(a.dv + to, dv, first + warp * 16, at.length, a.row_dqkv, scale_do, a.add);
}

template <int D, class T> DEVICE void attention_backward(const BackwardArguments<T>& a) {
  int first = int(blockIdx.x) / 2 * 64;
  Head<D> at(a, blockIdx.y, blockIdx.z);
  if (first >= at.length) return;
  if (blockIdx.x % 2)
    attention_dq<D>(a, at, first);
  else
    attention_dkv<D>(a, at, first);
}

// Small heads leave registers for several blocks on a multiprocessor, except on Turing, which has memory for one of 64.
#ifdef MULTIPLIES_BF16
constexpr int BLOCKS_OF_64 = 3;
#else
constexpr int BLOCKS_OF_64 = 1;
#endif
#define ATTENTION_BACKWARD(T, D)                                                                                        \
  extern "C" __global__ void __launch_bounds__(128, D == 32 ? 4 : D == 64 ? BLOCKS_OF_64 : 1)                           \
      attention_backward_##T##_##D(BackwardArguments<T> a) {                                                            \
    attention_backward<D>(a);                                                                                           \
  }                                                                                                                     \
  EMU_KERNEL(attention_backward_##T##_##D)
ATTENTION_BACKWARD(f16, 32)
ATTENTION_BACKWARD(f16, 64)
#ifdef MULTIPLIES_BF16
ATTENTION_BACKWARD(f16, 128)  // heads of 128 need more shared memory than Turing has
ATTENTION_BACKWARD(bf16, 32)
ATTENTION_BACKWARD(bf16, 64)
ATTENTION_BACKWARD(bf16, 128)
#endif
