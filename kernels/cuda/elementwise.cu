// Functions of every element, of one operand or two that broadcast, copies between layouts and types, and sums over dimensions.
//
// An operand lies as its strides say: transposed, sliced, or repeated where a stride is 0. Results are row-major.
#include "gelu.cuh"
#include "vector.cuh"

constexpr int RANK = 6;

// Sizes of the dimensions, outermost first, and how far apart neighbours lie in each.
struct Layout {
  int rank;
  uint32_t sizes[RANK];
  int64_t strides[RANK];
};

// Where element `index`, counted row-major, lies.
DEVICE int64_t place(const Layout& layout, uint64_t index) {
  // What lies together has one dimension, and needs no division.
  if (layout.rank <= 1) return int64_t(index) * layout.strides[0];
  int64_t at = 0;
  for (int axis = layout.rank - 1; axis >= 0; axis--) {
    at += int64_t(index % layout.sizes[axis]) * layout.strides[axis];
    index /= layout.sizes[axis];
  }
  return at;
}

DEVICE uint64_t thread_index() { return uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

// What is copied may be added to what is there.
template <class From, class To> struct CopyArguments {
  const From* from;
  To* to;
  uint64_t count;
  Layout of_from, of_to;
  int add;
};
DEVICE void put(float* to, float x) { *to = x; }
DEVICE void put(bf16* to, float x) { *to = to_bf16(x); }
DEVICE void put(f16* to, float x) { *to = to_f16(x); }

template <class From, class To> DEVICE void copy(const CopyArguments<From, To>& a) {
  uint64_t i = thread_index();
  if (i >= a.count) return;
  To* to = a.to + place(a.of_to, i);
  float x = to_f32(a.from[place(a.of_from, i)]);
  put(to, a.add ? to_f32(*to) + x : x);
}
#define COPY(name, From, To)                                       \
  KERNEL(copy_##name)(CopyArguments<From, To> a) { copy(a); }      \
  EMU_KERNEL(copy_##name)
COPY(f32_f32, float, float)
COPY(f32_bf16, float, bf16)
COPY(f32_f16, float, f16)
COPY(bf16_f32, bf16, float)
COPY(bf16_bf16, bf16, bf16)
COPY(f16_f32, f16, float)
COPY(f16_f16, f16, f16)
COPY(f16_bf16, f16, bf16)
COPY(bf16_f16, bf16, f16)

enum Binary : int { ADD, SUB, MUL, DIV };
template <class T> struct ZipArguments {
  const T *a, *b;
  T* to;
  uint64_t count;
  int op;
  Layout of_a, of_b;  // of the shape of the result
};
template <class T> DEVICE void zip(const ZipArguments<T>& a) {
  uint64_t i = thread_index();
  if (i >= a.count) return;
  float x = to_f32(a.a[place(a.of_a, i)]), y = to_f32(a.b[place(a.of_b, i)]);
  put(a.to + i, a.op == ADD ? x + y : a.op == SUB ? x - y : a.op == MUL ? x * y : x / y);
}
KERNEL(zip_f32)(ZipArguments<float> a) { zip(a); }
EMU_KERNEL(zip_f32)
KERNEL(zip_bf16)(ZipArguments<bf16> a) { zip(a); }
EMU_KERNEL(zip_bf16)

// Of one variable; derivatives are computed from the output, but those of ln and GELU from the input. SCALE and SHIFT are
// x times and plus a number.
enum Unary : int { EXP, LN, TANH, SQRT, RELU, RECIPROCAL, GELU, GELU_BY_TANH, SCALE, SHIFT };
DEVICE float value_of(int op, float x, float number) {
  switch (op) {
    case EXP: return expf(x);
    case LN: return logf(x);
    case TANH: return tanhf(x);
    case SQRT: return sqrtf(x);
    case RELU: return x > 0 ? x : 0.0f;
    case RECIPROCAL: return 1.0f / x;
    case GELU: return gelu(x, GELU_ERF);
    case GELU_BY_TANH: return gelu(x, GELU_TANH);
    case SCALE: return x * number;
    default: return x + number;
  }
}
DEVICE float derivative_of(int op, float saved) {
  switch (op) {
    case EXP: return saved;
    case LN: return 1.0f / saved;
    case TANH: return 1.0f - saved * saved;
    case SQRT: return 0.5f / saved;
    case RELU: return saved > 0 ? 1.0f : 0.0f;
    case RECIPROCAL: return -(saved * saved);
    case GELU: return gelu_derivative(saved, GELU_ERF);
    case GELU_BY_TANH: return gelu_derivative(saved, GELU_TANH);
    default: return 1.0f;
  }
}

template <class T> struct UnaryArguments {
  const T* x;
  T* y;
  uint64_t count;
  int op;
  float number;
};
template <class T> DEVICE void unary(const UnaryArguments<T>& a) {
  uint64_t i = thread_index();
  if (i < a.count) put(a.y + i, value_of(a.op, to_f32(a.x[i]), a.number));
}
KERNEL(unary_f32)(UnaryArguments<float> a) { unary(a); }
EMU_KERNEL(unary_f32)
KERNEL(unary_bf16)(UnaryArguments<bf16> a) { unary(a); }
EMU_KERNEL(unary_bf16)

template <class T> struct UnaryBackward {
  const T *saved, *dy;
  T* dx;
  uint64_t count;
  int op, add;
};
template <class T> DEVICE void unary_backward(const UnaryBackward<T>& a) {
  uint64_t i = thread_index();
  if (i >= a.count) return;
  float gradient = to_f32(a.dy[i]) * derivative_of(a.op, to_f32(a.saved[i]));
  put(a.dx + i, a.add ? to_f32(a.dx[i]) + gradient : gradient);
}
KERNEL(unary_backward_f32)(UnaryBackward<float> a) { unary_backward(a); }
EMU_KERNEL(unary_backward_f32)
KERNEL(unary_backward_bf16)(UnaryBackward<bf16> a) { unary_backward(a); }
EMU_KERNEL(unary_backward_bf16)

// to [kept sizes] = the sums over the other dimensions. A warp a sum, its lanes in turns: one order, whatever the launch.
template <class T> struct SumArguments {
  const T* from;
  T* to;
  uint64_t count, summed;  // results, and elements of each
  Layout kept, over;
};
template <class T> DEVICE void sum_over(const SumArguments<T>& a) {
  uint64_t i = uint64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (i >= a.count) return;
  const T* from = a.from + place(a.kept, i);
  float sum = 0;
  for (uint64_t j = threadIdx.x % 32; j < a.summed; j += 32) sum += to_f32(from[place(a.over, j)]);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) put(a.to + i, sum);
}
KERNEL(sum_f32)(SumArguments<float> a) { sum_over(a); }
EMU_KERNEL(sum_f32)
KERNEL(sum_bf16)(SumArguments<bf16> a) { sum_over(a); }
EMU_KERNEL(sum_bf16)
