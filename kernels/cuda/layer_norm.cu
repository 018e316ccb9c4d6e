// Layer normalisation (J. L. Ba, J. R. Kiros, G. E. Hinton, 2016), plain or fused with the dropout and residual that
// precede it in BERT: z = residual + dropout(x), y = (z - mean) rstd gamma + beta.
//
// A warp normalises a row. Its lanes read pieces of 16 bytes and keep them in registers between the passes for mean and
// variance: two passes, because the one-pass formula cancels. If the width is not a multiple of a piece, a lane reads
// single elements.
//
// With h = (z - mean) rstd and w = dy gamma: dz = rstd (w - mean(w) - h mean(w h)), dgamma = sum(dy h), dbeta =
// sum(dy). A block sums dgamma and dbeta over its rows, and a second kernel sums over the blocks in their order:
// without atomics, so that every run gives the same bits.
#include "random.cuh"
#include "reduce.cuh"
#include "vector.cuh"

constexpr int WARPS = 4;
// Pieces of a row that a lane keeps in registers. The rest of a wider row is read again, from the cache.
constexpr int KEPT = 4;

// The factors that dropout applies to N elements of a row, from `column` on.
template <int N> DEVICE void dropout_factors(float (&factors)[N], const Dropout& dropout, uint32_t sequence, uint32_t position,
                                             int column, int width) {
  uint32_t group = position * uint32_t((width + 15) / 16) + uint32_t(column / 16);
  uint4 bytes = hidden_bytes(dropout, sequence, group);
  float scale = kept_scale(dropout);
#pragma unroll
  for (int i = 0; i < N; i++) {
    int at = (column + i) % 16;
    factors[i] = byte_of(bytes, at / 4, at % 4) >= dropout.threshold ? scale : 0.0f;
  }
}

template <class T> struct ForwardArguments {
  const T* x;
  const T* residual;  // null for plain layer normalisation
  const RowCoordinate* coordinates;  // [rows], for dropout
  Dropout dropout;
  const float *gamma, *beta;
  T *z, *y;  // z is written only if there is a residual; otherwise it is x
  float *mean, *rstd;
  int rows, width;
  float eps;
};

template <class T, int N> DEVICE void forward_row(const ForwardArguments<T>& a, int row) {
  int lane = threadIdx.x % 32;
  const T* x = a.x + size_t(row) * a.width;
  RowCoordinate at = a.dropout.threshold ? a.coordinates[row] : RowCoordinate{0, 0};
  // z from `column` on: `compute` writes it, `again` reads it.
  auto compute = [&](float (&z)[N], int column) {
    load(z, x + column);
    if (!a.residual) return;
    size_t offset = size_t(row) * a.width + column;
    float residual[N], factors[N];
    load(residual, a.residual + offset);
    if (a.dropout.threshold) {
      dropout_factors(factors, a.dropout, at.sequence, at.position, column, a.width);
#pragma unroll
      for (int i = 0; i < N; i++) z[i] *= factors[i];
    }
#pragma unroll
    for (int i = 0; i < N; i++) z[i] = rounded<T>(z[i] + residual[i]);
    store(a.z + offset, z);
  };
  auto again = [&](float (&z)[N], int column) { load(z, (a.residual ? a.z + size_t(row) * a.width : x) + column); };

  float kept[KEPT][N], sum = 0;
#pragma unroll
  for (int piece = 0; piece < KEPT; piece++) {
    int column = (piece * 32 + lane) * N;
    if (column < a.width) {
      compute(kept[piece], column);
#pragma unroll
      for (int i = 0; i < N; i++) sum += kept[piece][i];
    }
  }
  for (int column = (KEPT * 32 + lane) * N; column < a.width; column += 32 * N) {
    float z[N];
    compute(z, column);
#pragma unroll
    for (int i = 0; i < N; i++) sum += z[i];
  }
  float mean = warp_sum(sum) / float(a.width), squares = 0, rest = 0;
  auto add_squares = [&](const float (&z)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) {
      float difference = z[i] - mean;
      squares += difference * difference;
      rest += difference;
    }
  };
#pragma unroll
  for (int piece = 0; piece < KEPT; piece++)
    if ((piece * 32 + lane) * N < a.width) add_squares(kept[piece]);
  for (int column = (KEPT * 32 + lane) * N; column < a.width; column += 32 * N) {
    float z[N];
    again(z, column);
    add_squares(z);
  }
  // The rounding error of the mean. If all elements are equal, nothing else would be left of them, and it would be normalised.
  float error = warp_sum(rest) / float(a.width);
  mean += error;
  float rstd = 1.0f / sqrtf(fmaxf(warp_sum(squares) / float(a.width) - error * error, 0.0f) + a.eps);
  auto finish = [&](const float (&z)[N], int column) {
    float gamma[N], beta[N], y[N];
    load(gamma, a.gamma + column);
    load(beta, a.beta + column);
#pragma unroll
    for (int i = 0; i < N; i++) y[i] = (z[i] - mean) * rstd * gamma[i] + beta[i];
    store(a.y + size_t(row) * a.width + column, y);
  };
#pragma unroll
  for (int piece = 0; piece < KEPT; piece++) {
    int column = (piece * 32 + lane) * N;
    if (column < a.width) finish(kept[piece], column);
  }
  for (int column = (KEPT * 32 + lane) * N; column < a.width; column += 32 * N) {
    float z[N];
    again(z, column);
    finish(z, column);
  }
  if (lane == 0) {
    a.mean[row] = mean;
    a.rstd[row] = rstd;
  }
}

template <class T> DEVICE void forward(const ForwardArguments<T>& a) {
  int row = int(blockIdx.x) * WARPS + int(threadIdx.x) / 32;
  if (row >= a.rows) return;
  if (a.width % PER_16_BYTES<T> == 0)
    forward_row<T, PER_16_BYTES<T>>(a, row);
  else
    forward_row<T, 1>(a, row);
}

template <class T> struct BackwardArguments {
  const T *dy, *z;
  const float *gamma, *mean, *rstd;
  const RowCoordinate* coordinates;
  Dropout dropout;
  T *dz, *dx;          // gradients of z, which is also that of the residual, and of x through the dropout; either may be null
  int add_dz, add_dx;  // add to dz and dx instead of overwriting them
  float* sums;         // [blocks, 2, width]: dgamma and dbeta of each block, or null
  int rows, width, block_rows;  // the last of a block
};

// `sums` [2, width] belong to the warp. A lane has N neighbouring columns at a time, whose sums lie width / N apart: so the lanes of a
// warp meet in no bank.
template <class T, int N> DEVICE void backward_row(const BackwardArguments<T>& a, int row, float* sums) {
  int lane = threadIdx.x % 32, pieces = a.width / N;
  float mean = a.mean[row], rstd = a.rstd[row];
  const T* dy_row = a.dy + size_t(row) * a.width;
  const T* z_row = a.z + size_t(row) * a.width;
  float of_w = 0, of_wh = 0;
  auto each = [&](int column, auto&& use) {
    float dy[N], z[N], gamma[N];
    load(dy, dy_row + column);
    load(z, z_row + column);
    load(gamma, a.gamma + column);
    float h[N], w[N];
#pragma unroll
    for (int i = 0; i < N; i++) {
      h[i] = (z[i] - mean) * rstd;
      w[i] = dy[i] * gamma[i];
    }
    use(dy, h, w);
  };
  for (int piece = lane; piece < pieces; piece += 32)
    each(piece * N, [&](const float (&dy)[N], const float (&h)[N], const float (&w)[N]) {
#pragma unroll
      for (int i = 0; i < N; i++) {
        of_w += w[i];
        of_wh += w[i] * h[i];
        if (sums) {
          sums[i * pieces + piece] += dy[i] * h[i];
          sums[a.width + i * pieces + piece] += dy[i];
        }
      }
    });
  if (!a.dz && !a.dx) return;
  float mean_w = warp_sum(of_w) / float(a.width), mean_wh = warp_sum(of_wh) / float(a.width);
  RowCoordinate at = a.dropout.threshold ? a.coordinates[row] : RowCoordinate{0, 0};
  for (int column = lane * N; column < a.width; column += 32 * N)
    each(column, [&](const float (&)[N], const float (&h)[N], const float (&w)[N]) {
      size_t offset = size_t(row) * a.width + column;
      float dz[N];
#pragma unroll
      for (int i = 0; i < N; i++) dz[i] = rstd * (w[i] - mean_w - h[i] * mean_wh);
      if (a.dx) {
        float dx[N];
        if (a.dropout.threshold) dropout_factors(dx, a.dropout, at.sequence, at.position, column, a.width);
#pragma unroll
        for (int i = 0; i < N; i++) dx[i] = a.dropout.threshold ? dx[i] * dz[i] : dz[i];
        put(a.dx + offset, dx, a.add_dx);
      }
      if (a.dz) put(a.dz + offset, dz, a.add_dz);
    });
}

// A block has one warp or more; `sums` needs shared memory for [warps, 2, width] floats.
template <class T, int N> DEVICE void backward_rows(const BackwardArguments<T>& a) {
  SHARED_MEMORY(memory);
  float* all = reinterpret_cast<float*>(memory);
  int warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
  float* own = a.sums ? all + warp * 2 * a.width : nullptr;
  if (a.sums) {
    for (int i = threadIdx.x; i < warps * 2 * a.width; i += blockDim.x) all[i] = 0;
    __syncthreads();
  }
  int first = int(blockIdx.x) * a.block_rows, end = min(first + a.block_rows, a.rows);
  for (int row = first + warp; row < end; row += warps) backward_row<T, N>(a, row, own);
  if (!a.sums) return;
  __syncthreads();
  int pieces = a.width / N;
  float* to = a.sums + size_t(blockIdx.x) * 2 * a.width;
  for (int at = threadIdx.x; at < 2 * pieces; at += blockDim.x) {
    int start = at < pieces ? 0 : a.width, piece = at < pieces ? at : at - pieces;
#pragma unroll
    for (int i = 0; i < N; i++) {
      float sum = 0;
      for (int w = 0; w < warps; w++) sum += all[w * 2 * a.width + start + i * pieces + piece];
      to[start + piece * N + i] = sum;
    }
  }
}

template <class T> DEVICE void backward(const BackwardArguments<T>& a) {
  if (a.width % PER_16_BYTES<T> == 0)
    backward_rows<T, PER_16_BYTES<T>>(a);
  else
    backward_rows<T, 1>(a);
}

KERNEL(layer_norm_forward_f32)(ForwardArguments<float> a) { forward(a); }
EMU_KERNEL(layer_norm_forward_f32)
KERNEL(layer_norm_backward_f32)(BackwardArguments<float> a) { backward(a); }
EMU_KERNEL(layer_norm_backward_f32)

KERNEL(layer_norm_forward_bf16)(ForwardArguments<bf16> a) { forward(a); }
EMU_KERNEL(layer_norm_forward_bf16)
KERNEL(layer_norm_backward_bf16)(BackwardArguments<bf16> a) { backward(a); }
EMU_KERNEL(layer_norm_backward_bf16)

// sums [grid.y, width] = the sums of every `summed` rows of `parts` [count, stride], in their order. `sharers` threads of a block sum
// the rows of a column, each of a run of them; with several, a block has SHARED_COLUMNS columns. Other operations use these kernels
// too: the gradient of a bias is a sum of rows, and so is a product that was split along k.
constexpr int SHARED_COLUMNS = 32;
template <class T>
DEVICE void column_sums(const T* parts, float* sums, int count, int summed, int stride, int width, int sharers, Accumulate accumulate) {
  SHARED_MEMORY(memory);
  float* shared = reinterpret_cast<float*>(memory);
  int columns = sharers > 1 ? SHARED_COLUMNS : blockDim.x, sharer = int(threadIdx.x) / columns;
  int column = int(blockIdx.x) * columns + int(threadIdx.x) % columns;
  int first = int(blockIdx.y) * summed, end = min(first + summed, count), run = (end - first + sharers - 1) / sharers;
  int start = first + sharer * run;
  float* to = sums + size_t(blockIdx.y) * width + column;
  float sum = 0;
  if (column < width) {
    if (accumulate == Accumulate::Continue && sharer == 0) sum = *to;
    // The loads of an iteration are in flight together: 32 bytes.
#pragma unroll 32 / sizeof(T)
    for (int part = start; part < min(start + run, end); part++) sum += to_f32(parts[size_t(part) * stride + column]);
  }
  if (sharers > 1) {
    shared[threadIdx.x] = sum;
    __syncthreads();
    for (int other = 1; sharer == 0 && other < sharers; other++) sum += shared[other * columns + threadIdx.x];
  }
  if (column < width && sharer == 0) put(to, sum, accumulate == Accumulate::Add);
}
#define COLUMN_SUMS(name, T)                                                                                                        \
  KERNEL(name)(const T* parts, float* sums, int count, int summed, int stride, int width, int sharers, Accumulate accumulate) {     \
    column_sums(parts, sums, count, summed, stride, width, sharers, accumulate);                                                    \
  }                                                                                                                                 \
  EMU_KERNEL(name)
COLUMN_SUMS(column_sums_f32, float)
COLUMN_SUMS(column_sums_bf16, bf16)
