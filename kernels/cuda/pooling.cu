// One vector for each sequence of a packed batch, the mean of its rows or the largest of each column, and the gradients. A block
// a sequence, a thread a column: sums run over the rows in their order.
#include "vector.cuh"

struct PoolArguments {
  const float* x;          // [tokens, width]; in backward dy [sequences, width]
  float* y;                // [sequences, width]; in backward dx [tokens, width]
  const uint32_t* starts;  // [sequences + 1]
  uint32_t* rows;          // [sequences, width], of the largest: written in forward, read in backward
  int width;
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
    for (uint32_t row = start; row < end; row++) a.y[size_t(row) * a.width + column] = dx;
  }
}
EMU_KERNEL(pool_mean_backward)

// The first of equal ones. What is not a number is the largest, and stays what it is.
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
      a.y[size_t(row) * a.width + column] = row == a.rows[at] ? a.x[at] : 0.0f;
  }
}
EMU_KERNEL(pool_max_backward)
