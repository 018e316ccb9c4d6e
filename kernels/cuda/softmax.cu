// Softmax over rows and its logarithm, forward and backward. A warp computes a row; the row's largest element is subtracted
// first, so that no exponential overflows.
//
// With y = softmax(x): dx = y (dy - sum(dy y)). With y = log softmax(x): dx = dy - e^y sum(dy).
#include "reduce.cuh"
#include "vector.cuh"

struct SoftmaxArguments {
  const float* x;
  float* y;
  int rows, width, logarithm;
};

DEVICE int warp_row() { return int(blockIdx.x) * int(blockDim.x / 32) + int(threadIdx.x / 32); }

KERNEL(softmax_f32)(SoftmaxArguments a) {
  int row = warp_row(), lane = threadIdx.x % 32;
  if (row >= a.rows) return;
  const float* x = a.x + size_t(row) * a.width;
  float* y = a.y + size_t(row) * a.width;
  float largest = minus_infinity(), sum = 0;
  for (int c = lane; c < a.width; c += 32) largest = fmaxf(largest, x[c]);
  largest = warp_largest(largest);
  for (int c = lane; c < a.width; c += 32) sum += expf(x[c] - largest);
  sum = warp_sum(sum);
  float log_sum = logf(sum), factor = 1.0f / sum;
  for (int c = lane; c < a.width; c += 32) {
    float shifted = x[c] - largest;
    y[c] = a.logarithm ? shifted - log_sum : expf(shifted) * factor;
  }
}
EMU_KERNEL(softmax_f32)

struct SoftmaxBackward {
  const float *y, *dy;
  float* dx;
  int rows, width, logarithm, add;
};
KERNEL(softmax_backward_f32)(SoftmaxBackward a) {
  int row = warp_row(), lane = threadIdx.x % 32;
  if (row >= a.rows) return;
  size_t start = size_t(row) * a.width;
  float sum = 0;
  for (int c = lane; c < a.width; c += 32) {
    float dy = a.dy[start + c];
    sum += a.logarithm ? dy : dy * a.y[start + c];
  }
  sum = warp_sum(sum);
  for (int c = lane; c < a.width; c += 32) {
    float y = a.y[start + c], dy = a.dy[start + c];
    put(a.dx + start + c, a.logarithm ? dy - expf(y) * sum : y * (dy - sum), a.add);
  }
}
EMU_KERNEL(softmax_backward_f32)
