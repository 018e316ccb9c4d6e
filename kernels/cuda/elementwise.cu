// Functions of one element or two, copies between layouts and types, and sums over dimensions.
//
// An operand is addressed by its strides, so it may be transposed, sliced or, with a stride of 0, repeated: broadcasting copies
// nothing. Results are row-major. Which function a kernel computes is an argument, not a template parameter: memory limits
// these kernels, and one kernel per function would only make the library larger.
#include "gelu.cuh"
#include "reduce.cuh"
#include "vector.cuh"

constexpr int RANK = 6;

// Sizes of the dimensions, outermost first, and the distance between neighbours in each.
struct Layout {
  int rank;
  uint32_t sizes[RANK];
  int64_t strides[RANK];
};

// The offset of element `index`, counted row-major.
DEVICE int64_t place(const Layout& layout, uint64_t index) {
  // The host merges dimensions, so contiguous memory has one and needs no division.
  if (layout.rank <= 1) return int64_t(index) * layout.strides[0];
  int64_t at = 0;
  for (int axis = layout.rank - 1; axis >= 0; axis--) {
    at += int64_t(index % layout.sizes[axis]) * layout.strides[axis];
    index /= layout.sizes[axis];
  }
  return at;
}

DEVICE uint64_t thread_index() { return uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

template <class From, class To> struct CopyArguments {
  const From* from;
  To* to;
  uint64_t count;
  Layout of_from, of_to;
  int add;
};
template <class From, class To> DEVICE void copy(const CopyArguments<From, To>& a) {
  uint64_t i = thread_index();
  if (i < a.count) put(a.to + place(a.of_to, i), to_f32(a.from[place(a.of_from, i)]), a.add);
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

template <class T> struct ZipArguments {
  const T *a, *b;
  T* to;
  uint64_t count;
  Binary op;
  int add;
  Layout of_a, of_b;  // with the shape of the result
};
DEVICE float value_of(Binary op, float x, float y) {
  bool is_ordered = x <= y || x > y;
  switch (op) {
    case Binary::Add: return x + y;
    case Binary::Sub: return x - y;
    case Binary::Mul: return x * y;
    case Binary::Div: return x / y;
    case Binary::Maximum: return !is_ordered ? x + y : x > y ? x : y;
    case Binary::Minimum: return !is_ordered ? x + y : x < y ? x : y;
    case Binary::Greater: return x > y ? 1.0f : 0.0f;
    case Binary::AtLeast: return x >= y ? 1.0f : 0.0f;
    default: return x == y ? 1.0f : 0.0f;
  }
}
template <class T> DEVICE void zip(const ZipArguments<T>& a) {
  uint64_t i = thread_index();
  if (i >= a.count) return;
  float x = to_f32(a.a[place(a.of_a, i)]), y = to_f32(a.b[place(a.of_b, i)]);
  put(a.to + i, value_of(a.op, x, y), a.add);
}
KERNEL(zip_f32)(ZipArguments<float> a) { zip(a); }
EMU_KERNEL(zip_f32)
KERNEL(zip_bf16)(ZipArguments<bf16> a) { zip(a); }
EMU_KERNEL(zip_bf16)

DEVICE float value_of(Unary op, float x, float number) {
  switch (op) {
    case Unary::Exp: return expf(x);
    case Unary::Ln: return logf(x);
    case Unary::Tanh: return tanhf(x);
    case Unary::Sqrt: return sqrtf(x);
    case Unary::Relu: return x > 0 ? x : 0.0f;
    case Unary::Reciprocal: return 1.0f / x;
    case Unary::Gelu: return gelu(x, Unary::Gelu);
    case Unary::GeluTanh: return gelu(x, Unary::GeluTanh);
    case Unary::Sigmoid: return 1.0f / (1.0f + expf(-x));
    case Unary::Abs: return fabsf(x);
    case Unary::Scale: return x * number;
    case Unary::Power: return number == 2.0f ? x * x : powf(x, number);
    case Unary::AtLeast: return x < number ? number : x;
    case Unary::AtMost: return x > number ? number : x;
    default: return x + number;
  }
}
// The derivative, from the output for Exp, Tanh, Sqrt, Relu, Reciprocal and Sigmoid, and from the input for the others: backward
// keeps the one it needs.
DEVICE float derivative_of(Unary op, float saved, float number) {
  switch (op) {
    case Unary::Exp: return saved;
    case Unary::Ln: return 1.0f / saved;
    case Unary::Tanh: return 1.0f - saved * saved;
    case Unary::Sqrt: return 0.5f / saved;
    case Unary::Relu: return saved > 0 ? 1.0f : 0.0f;
    case Unary::Reciprocal: return -(saved * saved);
    case Unary::Gelu: return gelu_derivative(saved, Unary::Gelu);
    case Unary::GeluTanh: return gelu_derivative(saved, Unary::GeluTanh);
    case Unary::Sigmoid: return saved * (1.0f - saved);
    case Unary::Abs: return saved > 0 ? 1.0f : saved < 0 ? -1.0f : 0.0f;
    case Unary::Scale: return number;
    // The formula gives 0 times infinity for 0 to the power of 0.
    case Unary::Power: return number == 0.0f ? 0.0f : number == 2.0f ? saved + saved : number * powf(saved, number - 1.0f);
    case Unary::AtLeast: return saved >= number ? 1.0f : 0.0f;
    case Unary::AtMost: return saved <= number ? 1.0f : 0.0f;
    default: return 1.0f;
  }
}

template <class T> struct UnaryArguments {
  const T* x;
  T* y;
  uint64_t count;
  Unary op;
  float number;
  int add;
};
template <class T> DEVICE void unary(const UnaryArguments<T>& a) {
  uint64_t i = thread_index();
  if (i < a.count) put(a.y + i, value_of(a.op, to_f32(a.x[i]), a.number), a.add);
}
KERNEL(unary_f32)(UnaryArguments<float> a) { unary(a); }
EMU_KERNEL(unary_f32)

template <class T> struct UnaryBackward {
  const T *saved, *dy;
  T* dx;
  uint64_t count;
  Unary op;
  float number;
  int add;
};
template <class T> DEVICE void unary_backward(const UnaryBackward<T>& a) {
  uint64_t i = thread_index();
  if (i < a.count) put(a.dx + i, to_f32(a.dy[i]) * derivative_of(a.op, to_f32(a.saved[i]), a.number), a.add);
}
KERNEL(unary_backward_f32)(UnaryBackward<float> a) { unary_backward(a); }
EMU_KERNEL(unary_backward_f32)

KERNEL(unary_bf16)(UnaryArguments<bf16> a) { unary(a); }
EMU_KERNEL(unary_bf16)
KERNEL(unary_backward_bf16)(UnaryBackward<bf16> a) { unary_backward(a); }
EMU_KERNEL(unary_backward_bf16)

// to [kept sizes, parts] = the sums over the other dimensions, each in parts of `part` elements. A warp computes a part, its
// lanes taking elements in turns: the order of additions does not depend on the launch.
struct SumArguments {
  const float* from;
  float* to;
  uint64_t count, summed, part;  // the number of sums, of elements in each, and of elements in a part
  Layout kept, over;
  int add;
};
KERNEL(sum_f32)(SumArguments a) {
  uint64_t i = uint64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  uint64_t parts = (a.summed + a.part - 1) / a.part;
  if (i >= a.count * parts) return;
  const float* from = a.from + place(a.kept, i / parts);
  uint64_t start = i % parts * a.part, end = a.summed - start < a.part ? a.summed : start + a.part;
  float sum = 0;
  for (uint64_t j = start + threadIdx.x % 32; j < end; j += 32) sum += from[place(a.over, j)];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) put(a.to + i, sum, a.add);
}
EMU_KERNEL(sum_f32)
