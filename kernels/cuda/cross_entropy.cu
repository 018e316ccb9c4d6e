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

// The logarithm of the sum of exponentials of a row, in every thread of its block.
template <class T> DEVICE float log_sum_of(const T* scores, int classes, float* of_warps) {
  float largest = lowest(), sum = 0;
  for (int c = threadIdx.x; c < classes; c += THREADS) {
    float score = to_f32(scores[c]), larger = fmaxf(largest, score);
    sum = sum * expf(largest - larger) + expf(score - larger);
    largest = larger;
  }
  float of_row = block_largest<THREADS>(largest, of_warps);
  sum = block_sum<THREADS>(sum * expf(largest - of_row), of_warps);
  return of_row + logf(sum);
}

template <class T> DEVICE void cross_entropy(const CrossEntropyArguments<T>& a) {
  SHARED_MEMORY(memory);
  int row = blockIdx.x;
  const T* scores = a.scores + size_t(row) * a.row;
  float log_sum = log_sum_of(scores, a.classes, reinterpret_cast<float*>(memory));
  if (threadIdx.x != 0) return;
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

// The same with a distribution, or any weights, for each row instead of a label: loss = sum(p (log_sum - s)) and
// dscores = (softmax(s) sum(p) - p) factor, dp = (log_sum - s) factor. Where p is 0 there is no loss, whatever the score.
struct SoftCrossEntropy {
  const float *scores, *targets;  // [rows, classes]
  float *losses, *log_sums, *totals;  // [rows]; the last two for the gradient
  int rows, classes;
};
KERNEL(soft_cross_entropy_f32)(SoftCrossEntropy a) {
  SHARED_MEMORY(memory);
  float* of_warps = reinterpret_cast<float*>(memory);
  int row = blockIdx.x;
  const float *scores = a.scores + size_t(row) * a.classes, *targets = a.targets + size_t(row) * a.classes;
  float log_sum = log_sum_of(scores, a.classes, of_warps), loss = 0, total = 0;
  for (int c = threadIdx.x; c < a.classes; c += THREADS) {
    float p = targets[c];
    loss += p == 0 ? 0.0f : p * (log_sum - scores[c]);
    total += p;
  }
  loss = block_sum<THREADS>(loss, of_warps);
  total = block_sum<THREADS>(total, of_warps);
  if (threadIdx.x != 0) return;
  a.losses[row] = loss, a.log_sums[row] = log_sum, a.totals[row] = total;
}
EMU_KERNEL(soft_cross_entropy_f32)

struct SoftCrossEntropyGradient {
  const float *scores, *targets, *log_sums, *totals;
  const float* factor;  // as in CrossEntropyGradient
  float *of_scores, *of_targets;  // null if it is not wanted
  int rows, classes, add_scores, add_targets;
};
KERNEL(soft_cross_entropy_gradient_f32)(SoftCrossEntropyGradient a) {
  int row = blockIdx.x;
  float log_sum = a.log_sums[row], total = a.totals[row], factor = *a.factor;
  for (int c = threadIdx.x; c < a.classes; c += THREADS) {
    size_t at = size_t(row) * a.classes + c;
    float shifted = a.scores[at] - log_sum;
    if (a.of_scores) put(a.of_scores + at, (expf(shifted) * total - a.targets[at]) * factor, a.add_scores);
    if (a.of_targets) put(a.of_targets + at, -shifted * factor, a.add_targets);
  }
}
EMU_KERNEL(soft_cross_entropy_gradient_f32)

KERNEL(cross_entropy_f32)(CrossEntropyArguments<float> a) { cross_entropy(a); }
EMU_KERNEL(cross_entropy_f32)
KERNEL(cross_entropy_gradient_f32)(CrossEntropyGradient<float> a) { cross_entropy_gradient(a); }
EMU_KERNEL(cross_entropy_gradient_f32)

KERNEL(cross_entropy_bf16)(CrossEntropyArguments<bf16> a) { cross_entropy(a); }
EMU_KERNEL(cross_entropy_bf16)
KERNEL(cross_entropy_gradient_bf16)(CrossEntropyGradient<bf16> a) { cross_entropy_gradient(a); }
EMU_KERNEL(cross_entropy_gradient_bf16)
