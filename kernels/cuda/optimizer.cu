// AdamW over flat parameters (I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2019, in PyTorch's
// formulation), and the norm of all gradients, for clipping. Each is one pass over memory: 28 and 4 bytes per
// parameter, and 2 more where the step also writes the parameters in bf16, for the products of the next one.
//
// Learning rate, bias corrections and clip factor change from step to step, so they are read from device memory: every step is
// launched with the same arguments, and the host does not wait for the norm.
#include "vector.cuh"

// Elements per block. A constant, so that the order of additions is the same on every GPU.
constexpr int SEGMENT = 1 << 16;
constexpr int THREADS = 256;

// partials[block] = the sum of the squares of a segment, in f64, which the square of an f32 neither overflows nor underflows.
KERNEL(sum_of_squares)(const float* x, double* partials, uint64_t count) {
  SHARED_MEMORY(memory);
  double* of_threads = reinterpret_cast<double*>(memory);
  uint64_t start = uint64_t(blockIdx.x) * SEGMENT;
  double sum = 0;
#pragma unroll 4
  for (int i = threadIdx.x; i < SEGMENT; i += THREADS)
    if (start + i < count) {
      double value = x[start + i];
      sum += value * value;
    }
  of_threads[threadIdx.x] = sum;
  for (int half = THREADS / 2; half; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half) of_threads[threadIdx.x] += of_threads[threadIdx.x + half];
  }
  if (threadIdx.x == 0) partials[blockIdx.x] = of_threads[0];
}
EMU_KERNEL(sum_of_squares)

// The state of an optimizer step. The host writes the first three fields, `clip_factor` the others.
struct StepState {
  float learning_rate, correction1, correction2;  // corrections are 1 - beta^t in step t, counted from 1
  float factor;                                   // of the gradients
  double norm;                                    // of the gradients before clipping
};

// Adds the partials in a fixed order, with one warp. `most` is the largest norm allowed; 0 disables clipping. If the
// norm is not finite the factor is NaN, and `adamw` then changes nothing.
KERNEL(clip_factor)(const double* partials, int count, float most, StepState* state) {
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += 32) sum += partials[i];
  for (int lanes = 16; lanes; lanes /= 2) sum += __shfl_down_sync(ALL_LANES, sum, lanes);
  if (threadIdx.x != 0) return;
  double norm = sqrt(sum);
  double factor = most > 0 ? most / (norm + 1e-6) : 1.0;
  state->norm = norm;
  state->factor = float(norm - norm == 0 ? fmin(factor, 1.0) : norm - norm);
}
EMU_KERNEL(clip_factor)

// Flat parameters that share a learning rate and a weight decay.
struct Range {
  uint64_t start, count;
  uint32_t first_block;  // the first block that updates the range
  float rate_factor;     // multiplies the learning rate
  float weight_decay;
};
struct AdamWArguments {
  float* parameters;
  const float* gradients;
  float *mean, *mean_of_squares;
  const StepState* state;
  const Range* ranges;
  int count;  // of ranges
  float new1, beta2, new2;  // 1 - beta1, beta2, 1 - beta2: computed in f64, since f32 loses the digits of 1 - beta2
  float eps;
  bf16* rounded;  // the parameters as products read them, or null
};

template <int N> DEVICE void adamw_at(const AdamWArguments& a, const Range& range, uint64_t at) {
  StepState state = *a.state;
  float learning_rate = state.learning_rate * range.rate_factor;
  float keep = 1.0f - learning_rate * range.weight_decay, rate = learning_rate / state.correction1;
  float root = 1.0f / sqrtf(state.correction2);
  float p[N], g[N], m[N], v[N];
  load(p, a.parameters + at);
  load(g, a.gradients + at);
  load(m, a.mean + at);
  load(v, a.mean_of_squares + at);
#pragma unroll
  for (int i = 0; i < N; i++) {
    float gradient = g[i] * state.factor;
    m[i] += (gradient - m[i]) * a.new1;
    v[i] = v[i] * a.beta2 + a.new2 * gradient * gradient;
    p[i] = p[i] * keep - rate * m[i] / (sqrtf(v[i]) * root + a.eps);
  }
  store(a.parameters + at, p);
  if (a.rounded) store(a.rounded + at, p);
  store(a.mean + at, m);
  store(a.mean_of_squares + at, v);
}

// A thread updates four parameters. Ranges start at multiples of 16 bytes, in f32.
KERNEL(adamw)(AdamWArguments a) {
  float factor = a.state->factor;
  if (!(factor == factor)) return;
  // Finds the last range that starts at this block or before it.
  int low = 0, high = a.count;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (a.ranges[middle].first_block <= blockIdx.x)
      low = middle;
    else
      high = middle;
  }
  Range range = a.ranges[low];
  uint64_t at = (uint64_t(blockIdx.x - range.first_block) * blockDim.x + threadIdx.x) * 4;
  if (at + 4 <= range.count)
    adamw_at<4>(a, range, range.start + at);
  else
    for (; at < range.count; at++) adamw_at<1>(a, range, range.start + at);
}
EMU_KERNEL(adamw)
