// Dropout of hidden states (N. Srivastava et al., 2014) that is not fused with anything: y = x times 0 or 256 / (256 -
// threshold). The mask is a function of the coordinates, so the same kernel, applied to dy, is the backward. One draw
// decides over 16 columns of a row, and a thread handles those 16.
#include "random.cuh"
#include "vector.cuh"

struct DropoutArguments {
  const float* x;
  float* y;
  const RowCoordinate* rows;
  uint64_t groups;  // of 16 columns, in all rows
  int width;
  Dropout dropout;
  int add;
};

KERNEL(dropout_f32)(DropoutArguments a) {
  uint64_t group = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (group >= a.groups) return;
  uint32_t per_row = uint32_t(a.width + 15) / 16;
  uint64_t row = group / per_row;
  uint32_t within = uint32_t(group % per_row);
  RowCoordinate at = a.rows[row];
  uint4 bytes = hidden_bytes(a.dropout, at.sequence, at.position * per_row + within);
  float scale = kept_scale(a.dropout);
  for (int i = 0; i < 16 && int(within) * 16 + i < a.width; i++) {
    size_t offset = row * a.width + within * 16 + i;
    bool kept = byte_of(bytes, i / 4, i % 4) >= a.dropout.threshold;
    put(a.y + offset, kept ? a.x[offset] * scale : 0.0f, a.add);
  }
}
EMU_KERNEL(dropout_f32)
