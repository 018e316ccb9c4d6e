// One vector per sequence of a packed batch, the mean of its rows or the maximum of each column, and their gradients. A block
// handles a sequence and a thread a column, so every sum runs over the rows in their order.
#include "vector.cuh"

struct PoolArguments {
  const float* x;          // forward: x [tokens, width]; backward: dy [sequences, width]
  float* y;                // forward: y [sequences, width]; backward: dx [tokens, width]
  const uint32_t* starts;  // [sequences + 1]
  uint32_t* rows;          // [sequences, width], the row of each maximum: forward writes it, backward reads it
  int width;
  int add;                 // backward only
};

KERNEL(pool_mean)(PoolArguments a) {
  uint32_t start = a.starts[blockIdx.x], end = a.starts[blockIdx.x + 1];
  for (int column = threadIdx.x; column < a.width; column += blockDim.x) {
    float sum = 0;
    for (uint32_t row = start; row < end; row++) sum += a.x[size_t(row) * a.width + column];
    a.y[size_t(blockIdx.x) * a.width + column] = sum / float(end - start);
  }
}
EMU_KERNEL(pool_mean)

KERNEL(pool_mean_backward)(PoolArguments a) {
  uint32_t start = a.starts[blockIdx.x], end = a.starts[blockIdx.x + 1];
  for (int column = threadIdx.x; column < a.width; column += blockDim.x) {
    float dx = a.x[size_t(blockIdx.x) * a.width + column] / float(end - start);
    for (uint32_t row = start; row < end; row++) put(a.y + size_t(row) * a.width + column, dx, a.add);
  }
}
EMU_KERNEL(pool_mean_backward)

// The first of equal maxima. NaN counts as the largest, so that it is not hidden.
KERNEL(pool_max)(PoolArguments a) {
  uint32_t start = a.starts[blockIdx.x], end = a.starts[blockIdx.x + 1];
  for (int column = threadIdx.x; column < a.width; column += blockDim.x) {
    uint32_t best = start;
    float largest = a.x[size_t(start) * a.width + column];
    for (uint32_t row = start + 1; row < end; row++) {
      float x = a.x[size_t(row) * a.width + column];
      if (x > largest || (x != x && largest == largest)) best = row, largest = x;
    }
    size_t at = size_t(blockIdx.x) * a.width + column;
    a.y[at] = largest;
    a.rows[at] = best;
  }
}
EMU_KERNEL(pool_max)

KERNEL(pool_max_backward)(PoolArguments a) {
  uint32_t start = a.starts[blockIdx.x], end = a.starts[blockIdx.x + 1];
  for (int column = threadIdx.x; column < a.width; column += blockDim.x) {
    size_t at = size_t(blockIdx.x) * a.width + column;
    for (uint32_t row = start; row < end; row++)
      put(a.y + size_t(row) * a.width + column, row == a.rows[at] ? a.x[at] : 0.0f, a.add);
  }
}
EMU_KERNEL(pool_max_backward)
