// Cross-entropy of rows of scores and labels, and its gradient: loss = log(sum exp(s)) - s[label] and
// dscores = (softmax(s) - onehot(label)) factor.
//
// A block handles a row. Maximum and sum come from one pass: the sum is corrected whenever the maximum grows, so the scores, by
// far the largest tensor of a language model, are read once. The gradient may overwrite the scores.
//
// Rows with the label `ignored` have no loss and no gradient. The host checks that all other labels are classes.
#include "reduce.cuh"
#include "vector.cuh"

constexpr int THREADS = 256;

template <class T> struct CrossEntropyArguments {
  const T* scores;       // [rows, classes], `row` elements from row to row
  const int64_t* labels;
  float* losses;         // [rows]
  float* log_sums;       // [rows], for the gradient
  int64_t ignored;
  int rows, classes, row;
};

template <class T> DEVICE void cross_entropy(const CrossEntropyArguments<T>& a) {
  SHARED_MEMORY(memory);
  float* of_warps = reinterpret_cast<float*>(memory);
  int row = blockIdx.x;
  const T* scores = a.scores + size_t(row) * a.row;
  float largest = minus_infinity(), sum = 0;
  for (int c = threadIdx.x; c < a.classes; c += THREADS) {
    float score = to_f32(scores[c]), larger = fmaxf(largest, score);
    sum = sum * expf(largest - larger) + expf(score - larger);
    largest = larger;
  }
  float of_row = block_largest<THREADS>(largest, of_warps);
  // A thread without a class has nothing to correct: its maximum is minus infinity.
  sum = block_sum<THREADS>(sum == 0 ? 0.0f : sum * expf(largest - of_row), of_warps);
  if (threadIdx.x != 0) return;
  float log_sum = of_row + logf(sum);
  int64_t label = a.labels[row];
  a.log_sums[row] = log_sum;
  a.losses[row] = label != a.ignored ? log_sum - to_f32(scores[label]) : 0.0f;
}

template <class T> struct CrossEntropyGradient {
  const T* scores;
  const int64_t* labels;
  const float* log_sums;
  const float* factor;  // one number on the device: the gradient of the loss, divided by the number of rows that count
  T* gradient;          // may be `scores`, without `add`
  int64_t ignored;
  int rows, classes, row, add;
};

template <class T> DEVICE void cross_entropy_gradient(const CrossEntropyGradient<T>& a) {
  int row = blockIdx.x;
  int64_t label = a.labels[row];
  bool counts = label != a.ignored;
  float log_sum = a.log_sums[row], factor = *a.factor;
  for (int c = threadIdx.x; c < a.classes; c += THREADS) {
    size_t at = size_t(row) * a.row + c;
    float probability = counts ? expf(to_f32(a.scores[at]) - log_sum) : 0.0f;
    put(a.gradient + at, counts ? (probability - (c == label ? 1.0f : 0.0f)) * factor : 0.0f, a.add);
  }
}

KERNEL(cross_entropy_f32)(CrossEntropyArguments<float> a) { cross_entropy(a); }
EMU_KERNEL(cross_entropy_f32)
KERNEL(cross_entropy_gradient_f32)(CrossEntropyGradient<float> a) { cross_entropy_gradient(a); }
EMU_KERNEL(cross_entropy_gradient_f32)

// Nothing launches these yet: they are for activations in bf16, where scores take half the memory.
KERNEL(cross_entropy_bf16)(CrossEntropyArguments<bf16> a) { cross_entropy(a); }
EMU_KERNEL(cross_entropy_bf16)
KERNEL(cross_entropy_gradient_bf16)(CrossEntropyGradient<bf16> a) { cross_entropy_gradient(a); }
EMU_KERNEL(cross_entropy_gradient_bf16)
