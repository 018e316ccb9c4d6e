// Attention in f32, forward and backward, for heads of any size up to 256: for full precision, and for head sizes that have no
// kernel on tensor cores. It computes what attention_forward.cu and attention_backward.cu compute, by multiply-adds.
//
// A warp handles a row: a query with its output or gradient, or in the last kernel a key with the gradients of key and
// value. The rows on the other side come 32 at a time. Each lane computes the score of one of them; for the sums over
// them, a lane owns the columns lane, lane + 32, and so on. Every sum has one order.
#include "random.cuh"
#include "reduce.cuh"
#include "vector.cuh"

constexpr int WARPS = 4, MOST = 256, COLUMNS = MOST / 32;

struct AttentionAny {
  const float *q, *k, *v;  // head h of a token starts at column h D
  float* o;
  float* log_sums;  // [N, T]
  const float *d_o;
  float* deltas;    // [N, T]: for each row the sum of O dO
  float *dq, *dk, *dv;
  const uint32_t *starts, *numbers;  // as in attention.cuh
  int row_qkv, row_o, tokens, size;
  float scale;
  Dropout dropout;
  int add;  // adds to dq, dk and dv instead of overwriting them
};

// The row of a warp in its sequence; `is_there` is false past the end.
struct Place {
  int head, start, length, row, lane;
  uint32_t number;
  bool is_there;
};
DEVICE Place place_of(const AttentionAny& a) {
  int start = int(a.starts[blockIdx.z]), length = int(a.starts[blockIdx.z + 1]) - start;
  int row = int(blockIdx.x) * WARPS + int(threadIdx.x) / 32;
  return Place{int(blockIdx.y), start, length, row, int(threadIdx.x) % 32, a.numbers[blockIdx.z], row < length};
}

// The factor that dropout applies to the probability of key j for query i.
DEVICE float factor_of(const AttentionAny& a, const Place& p, int i, int j) {
  if (!a.dropout.threshold) return 1.0f;
  uint4 bytes = attention_bytes(a.dropout, p.number, uint32_t(p.head), uint32_t(i / 16), uint32_t(j / 32),
                                uint32_t(4 * (i % 8) + j % 8 / 2));
  int byte = 4 * (j % 32 / 8) + 2 * (i % 16 / 8) + j % 2;
  return byte_of(bytes, byte / 4, byte % 4) >= a.dropout.threshold ? kept_scale(a.dropout) : 0.0f;
}

DEVICE float dot(const float* a, const float* b, int size) {
  float sum = 0;
  for (int d = 0; d < size; d++) sum += a[d] * b[d];
  return sum;
}

// sums += the sum over `count` rows of a row times its lane's weight. Rows are `step` apart, starting at `first`.
DEVICE void add_rows(float (&sums)[COLUMNS], float weight, const float* first, int step, int count, int size, int lane) {
  for (int j = 0; j < count; j++) {
    float of_row = __shfl_sync(ALL_LANES, weight, j);
#pragma unroll
    for (int c = 0; c < COLUMNS; c++)
      if (c * 32 + lane < size) sums[c] += of_row * first[size_t(j) * step + c * 32 + lane];
  }
}
DEVICE void write_row(float* to, const float (&sums)[COLUMNS], float factor, int size, int lane, int add) {
#pragma unroll
  for (int c = 0; c < COLUMNS; c++)
    if (c * 32 + lane < size) put(to + c * 32 + lane, sums[c] * factor, add);
}

KERNEL(attention_any_forward)(AttentionAny a) {
  Place p = place_of(a);
  if (!p.is_there) return;
  size_t of_sequence = size_t(p.start) * a.row_qkv + p.head * a.size;
  const float *q = a.q + of_sequence + size_t(p.row) * a.row_qkv, *k = a.k + of_sequence, *v = a.v + of_sequence;
  float sums[COLUMNS] = {}, largest = lowest(), sum = 0;
  for (int first = 0; first < p.length; first += 32) {
    int j = first + p.lane, count = min(32, p.length - first);
    float score = j < p.length ? dot(q, k + size_t(j) * a.row_qkv, a.size) * a.scale : minus_infinity();
    float larger = fmaxf(largest, warp_largest(score));
    float before = expf(largest - larger), weight = j < p.length ? expf(score - larger) : 0.0f;
    largest = larger;
    sum = sum * before + warp_sum(weight);
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) sums[c] *= before;
    if (j < p.length) weight *= factor_of(a, p, p.row, j);
    add_rows(sums, weight, v + size_t(first) * a.row_qkv, a.row_qkv, count, a.size, p.lane);
  }
  write_row(a.o + size_t(p.start + p.row) * a.row_o + p.head * a.size, sums, 1.0f / sum, a.size, p.lane, 0);
  if (p.lane == 0) a.log_sums[size_t(p.head) * a.tokens + p.start + p.row] = largest + logf(sum);
}
EMU_KERNEL(attention_any_forward)

// Also writes the deltas, which attention_any_dkv reads; so this kernel goes first.
KERNEL(attention_any_dq)(AttentionAny a) {
  Place p = place_of(a);
  if (!p.is_there) return;
  size_t of_sequence = size_t(p.start) * a.row_qkv + p.head * a.size;
  size_t of_row = size_t(p.start + p.row) * a.row_o + p.head * a.size, statistic = size_t(p.head) * a.tokens + p.start + p.row;
  const float *q = a.q + of_sequence + size_t(p.row) * a.row_qkv, *k = a.k + of_sequence, *v = a.v + of_sequence;
  float delta = 0, log_sum = a.log_sums[statistic];
  for (int d = p.lane; d < a.size; d += 32) delta += a.o[of_row + d] * a.d_o[of_row + d];
  delta = warp_sum(delta);
  if (p.lane == 0) a.deltas[statistic] = delta;
  float sums[COLUMNS] = {};
  for (int first = 0; first < p.length; first += 32) {
    int j = first + p.lane;
    float ds = 0;
    if (j < p.length) {
      float probability = expf(dot(q, k + size_t(j) * a.row_qkv, a.size) * a.scale - log_sum);
      float dp = dot(a.d_o + of_row, v + size_t(j) * a.row_qkv, a.size) * factor_of(a, p, p.row, j);
      ds = probability * (dp - delta);
    }
    add_rows(sums, ds, k + size_t(first) * a.row_qkv, a.row_qkv, min(32, p.length - first), a.size, p.lane);
  }
  write_row(a.dq + of_sequence + size_t(p.row) * a.row_qkv, sums, a.scale, a.size, p.lane, a.add);
}
EMU_KERNEL(attention_any_dq)

KERNEL(attention_any_dkv)(AttentionAny a) {
  Place p = place_of(a);
  if (!p.is_there) return;
  size_t of_sequence = size_t(p.start) * a.row_qkv + p.head * a.size, of_key = of_sequence + size_t(p.row) * a.row_qkv;
  const float *q = a.q + of_sequence, *d_o = a.d_o + size_t(p.start) * a.row_o + p.head * a.size;
  float of_k[COLUMNS] = {}, of_v[COLUMNS] = {};
  for (int first = 0; first < p.length; first += 32) {
    int i = first + p.lane, count = min(32, p.length - first);
    float ds = 0, weight = 0;
    if (i < p.length) {
      size_t statistic = size_t(p.head) * a.tokens + p.start + i;
      float probability = expf(dot(q + size_t(i) * a.row_qkv, a.k + of_key, a.size) * a.scale - a.log_sums[statistic]);
      float factor = factor_of(a, p, i, p.row);
      float dp = dot(d_o + size_t(i) * a.row_o, a.v + of_key, a.size) * factor;
      ds = probability * (dp - a.deltas[statistic]);
      weight = probability * factor;
    }
    add_rows(of_k, ds, q + size_t(first) * a.row_qkv, a.row_qkv, count, a.size, p.lane);
    add_rows(of_v, weight, d_o + size_t(first) * a.row_o, a.row_o, count, a.size, p.lane);
  }
  write_row(a.dk + of_key, of_k, a.scale, a.size, p.lane, a.add);
  write_row(a.dv + of_key, of_v, 1.0f, a.size, p.lane, a.add);
}
EMU_KERNEL(attention_any_dkv)
