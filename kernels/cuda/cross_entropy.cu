// Cross-entropy of rows of scores with the class that is right, and its gradient: loss = log(sum exp(s)) - s[label], and
// dscores = (softmax(s) - onehot(label)) factor, which may take the place of the scores. A block a row; maximum and sum in one
// pass, the sum corrected as the maximum grows.
//
// A label of `ignored` has no loss and no gradient; the others are classes that there are: the host has looked.
#include "vector.cuh"

constexpr int THREADS = 256;

template <class T> struct CrossEntropyArguments {
  const T* scores;       // [rows, classes], `row` elements from one to the next
  const int64_t* labels;
  float* losses;         // [rows]
  float* log_sums;       // [rows], for the gradient
  int64_t ignored;
  int rows, classes, row;
};

// What a block agrees on.
DEVICE float block_largest(float x, float* of_warps) {
  for (int lanes = 16; lanes; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, lanes));
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = x;
  __syncthreads();
  x = of_warps[0];
  for (int warp = 1; warp < THREADS / 32; warp++) x = fmaxf(x, of_warps[warp]);
  __syncthreads();
  return x;
}
DEVICE float block_sum(float x, float* of_warps) {
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = x;
  __syncthreads();
  x = 0;
  for (int warp = 0; warp < THREADS / 32; warp++) x += of_warps[warp];
  __syncthreads();
  return x;
}

template <class T> DEVICE void cross_entropy(const CrossEntropyArguments<T>& a) {
  SHARED_MEMORY(memory);
  float* of_warps = reinterpret_cast<float*>(memory);
  int row = blockIdx.x;
  const T* scores = a.scores + size_t(row) * a.row;
  float largest = __int_as_float(int(0xff800000)), sum = 0;
  for (int c = threadIdx.x; c < a.classes; c += THREADS) {
    float score = to_f32(scores[c]), larger = fmaxf(largest, score);
    sum = sum * expf(largest - larger) + expf(score - larger);
    largest = larger;
  }
  float of_row = block_largest(largest, of_warps);
  // A thread without a class has nothing to correct.
  sum = block_sum(sum == 0 ? 0.0f : sum * expf(largest - of_row), of_warps);
  if (threadIdx.x != 0) return;
  float log_sum = of_row + logf(sum);
  int64_t label = a.labels[row];
  a.log_sums[row] = log_sum;
  a.losses[row] = label != a.ignored ? log_sum - to_f32(scores[label]) : 0.0f;
}

template <class T> struct CrossEntropyGradient {
  const T* scores;  // may be `gradient`
  const int64_t* labels;
  const float* log_sums;
  const float* factor;  // on the device: the gradient of the loss, by the number of rows that count
  T* gradient;
  int64_t ignored;
  int rows, classes, row;
};

template <class T> DEVICE void cross_entropy_gradient(const CrossEntropyGradient<T>& a) {
  int row = blockIdx.x;
  int64_t label = a.labels[row];
  bool counts = label != a.ignored;
  float log_sum = a.log_sums[row], factor = *a.factor;
  for (int c = threadIdx.x; c < a.classes; c += THREADS) {
    size_t at = size_t(row) * a.row + c;
    float probability = counts ? expf(to_f32(a.scores[at]) - log_sum) : 0.0f;
    store(a.gradient + at, {counts ? (probability - (c == label ? 1.0f : 0.0f)) * factor : 0.0f});
  }
}

KERNEL(cross_entropy_f32)(CrossEntropyArguments<float> a) { cross_entropy(a); }
EMU_KERNEL(cross_entropy_f32)
KERNEL(cross_entropy_bf16)(CrossEntropyArguments<bf16> a) { cross_entropy(a); }
EMU_KERNEL(cross_entropy_bf16)
KERNEL(cross_entropy_gradient_f32)(CrossEntropyGradient<float> a) { cross_entropy_gradient(a); }
EMU_KERNEL(cross_entropy_gradient_f32)
KERNEL(cross_entropy_gradient_bf16)(CrossEntropyGradient<bf16> a) { cross_entropy_gradient(a); }
EMU_KERNEL(cross_entropy_gradient_bf16)
