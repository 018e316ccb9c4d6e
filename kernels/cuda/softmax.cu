// Softmax over rows and its logarithm, forward and backward. The largest element of a row is subtracted first, so that nothing
// overflows. A warp a row.
//
// With y = softmax(x): dx = y (dy - sum(dy y)). With y = log softmax(x): dx = dy - e^y sum(dy).
#include "vector.cuh"

template <class T> struct SoftmaxArguments {
  const T* x;
  T* y;
  int rows, width, logarithm;
};

DEVICE float warp_largest(float x) {
  for (int lanes = 16; lanes; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, lanes));
  return x;
}
DEVICE int warp_row() { return int(blockIdx.x) * int(blockDim.x / 32) + int(threadIdx.x / 32); }

template <class T> DEVICE void softmax(const SoftmaxArguments<T>& a) {
  int row = warp_row(), lane = threadIdx.x % 32;
  if (row >= a.rows) return;
  const T* x = a.x + size_t(row) * a.width;
  T* y = a.y + size_t(row) * a.width;
  float largest = __int_as_float(int(0xff800000)), sum = 0;
  for (int c = lane; c < a.width; c += 32) largest = fmaxf(largest, to_f32(x[c]));
  largest = warp_largest(largest);
  for (int c = lane; c < a.width; c += 32) sum += expf(to_f32(x[c]) - largest);
  sum = warp_sum(sum);
  float log_sum = logf(sum), factor = 1.0f / sum;
  for (int c = lane; c < a.width; c += 32) {
    float shifted = to_f32(x[c]) - largest;
    store(y + c, {a.logarithm ? shifted - log_sum : expf(shifted) * factor});
  }
}
KERNEL(softmax_f32)(SoftmaxArguments<float> a) { softmax(a); }
EMU_KERNEL(softmax_f32)
KERNEL(softmax_bf16)(SoftmaxArguments<bf16> a) { softmax(a); }
EMU_KERNEL(softmax_bf16)

template <class T> struct SoftmaxBackward {
  const T *y, *dy;
  T* dx;
  int rows, width, logarithm, add;
};
template <class T> DEVICE void softmax_backward(const SoftmaxBackward<T>& a) {
  int row = warp_row(), lane = threadIdx.x % 32;
  if (row >= a.rows) return;
  size_t start = size_t(row) * a.width;
  float sum = 0;
  for (int c = lane; c < a.width; c += 32) {
    float dy = to_f32(a.dy[start + c]);
    sum += a.logarithm ? dy : dy * to_f32(a.y[start + c]);
  }
  sum = warp_sum(sum);
  for (int c = lane; c < a.width; c += 32) {
    float y = to_f32(a.y[start + c]), dy = to_f32(a.dy[start + c]);
    float dx = a.logarithm ? dy - expf(y) * sum : y * (dy - sum);
    store(a.dx + start + c, {a.add ? to_f32(a.dx[start + c]) + dx : dx});
  }
}
KERNEL(softmax_backward_f32)(SoftmaxBackward<float> a) { softmax_backward(a); }
EMU_KERNEL(softmax_backward_f32)
KERNEL(softmax_backward_bf16)(SoftmaxBackward<bf16> a) { softmax_backward(a); }
EMU_KERNEL(softmax_backward_bf16)
