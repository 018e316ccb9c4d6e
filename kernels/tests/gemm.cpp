// gemm [CUBIN]: the kernels of gemm.cu and gemm_any.cu against f64. On a GPU the cubin has both.
#include <algorithm>

#include "device.hpp"
#include "numbers.hpp"

struct Epilogue {
  Pointer bias, pre_activation;
  int epilogue, gelu, add;
  float scale;
};
struct Gemm {
  Pointer a, b, c;
  int m, n, k, row_a, row_b, row_c;
  size_t batch_a, batch_b, batch_c;
  Epilogue epilogue;
};
struct GemmAny {
  Pointer a, b, c;
  int m, n, k, row_a, column_a, row_b, column_b, row_c;
  size_t batch_a, batch_b, batch_c;
  Epilogue epilogue;
};
enum { PLAIN, BIAS, BIAS_GELU, DGELU };

static double gelu(double x, int kind) {
  if (kind == 0) return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}
static double gelu_derivative(double x, int kind) {
  double step = 1e-5;
  return (gelu(x + step, kind) - gelu(x - step, kind)) / (2 * step);
}

// `layout` says whether A and B lie as they are or transposed: "nn", "nt" or "tn"; two products at a time. By `gemm_any`, A and
// B are of the type of C too.
template <class Type>
static void run(const Device& device, const std::string& layout, int m, int n, int k, int kind, int add, bool any = false) {
  using T = typename Type::Stored;
  std::string name = any ? std::string("gemm_any_") + Type::NAME : "gemm_" + layout + "_" + Type::NAME;
  std::string what = name + " " + std::to_string(m) + " x " + std::to_string(n) + " x " + std::to_string(k) + ", epilogue " +
                     std::to_string(kind) + ": ";
  bool a_across = layout[0] == 't', b_along = layout[1] == 't';
  int batch = 2, gelu_kind = m % 2;
  size_t size_a = size_t(m) * k, size_b = size_t(k) * n, size_c = size_t(m) * n;
  auto a = normal<Bf16>(batch * size_a, 1), b = normal<Bf16>(batch * size_b, 2);
  // The same numbers in the type of C.
  std::vector<T> typed_a, typed_b;
  for (uint16_t x : a) typed_a.push_back(Type::store(Bf16::widen(x)));
  for (uint16_t x : b) typed_b.push_back(Type::store(Bf16::widen(x)));
  auto c = normal<Type>(batch * size_c, 3), pre = normal<Type>(batch * size_c, 4);
  auto bias = normal<F32>(size_t(n), 5);
  float scale = 0.5f;
  std::vector<double> expected(batch * size_c), kept(batch * size_c);
  for (int z = 0; z < batch; z++)
    for (int i = 0; i < m; i++)
      for (int j = 0; j < n; j++) {
        double sum = 0;
        for (int x = 0; x < k; x++)
          sum += Bf16::widen(a[z * size_a + (a_across ? x * m + i : i * k + x)]) *
                 Bf16::widen(b[z * size_b + (b_along ? j * k + x : x * n + j)]);
        size_t at = z * size_c + size_t(i) * n + j;
        double value = sum * scale;
        if (kind == BIAS || kind == BIAS_GELU) value += bias[j];
        kept[at] = value;
        if (kind == BIAS_GELU) value = gelu(value, gelu_kind);
        if (kind == DGELU) value *= gelu_derivative(Type::widen(pre[at]), gelu_kind);
        expected[at] = value + (add ? Type::widen(c[at]) : 0);
      }
  Array<uint16_t> of_a(device, a), of_b(device, b);
  Array<T> of_typed_a(device, typed_a), of_typed_b(device, typed_b);
  Array<T> of_c(device, c), of_pre(device, pre);
  Array<float> of_bias(device, bias);
  Epilogue epilogue = {of_bias.pointer, kind >= BIAS_GELU ? of_pre.pointer : 0, kind, gelu_kind, add, scale};
  int row_a = a_across ? m : k, row_b = b_along ? k : n;
  Gemm gemm = {of_a.pointer, of_b.pointer, of_c.pointer, m, n, k, row_a, row_b, n, size_a, size_b, size_c, epilogue};
  GemmAny gemm_any = {of_typed_a.pointer, of_typed_b.pointer, of_c.pointer, m, n, k, a_across ? 1 : k, a_across ? m : 1,
                      b_along ? 1 : n, b_along ? k : 1, n, size_a, size_b, size_c, epilogue};
  unsigned tile = any ? 64 : 128, shared = any ? 2 * 16 * 65 * 4 : 65536;
  void* arguments = any ? static_cast<void*>(&gemm_any) : &gemm;
  Device::check(device.launch(name.c_str(), {(unsigned(n) + tile - 1) / tile, (unsigned(m) + tile - 1) / tile, 2}, 256, shared,
                              {arguments}),
                what);
  expect_near(widened<Type>(of_c.values()), expected, std::max(Type::TOLERANCE, 2e-5), what + "c");
  if (kind == BIAS_GELU) expect_near(widened<Type>(of_pre.values()), kept, std::max(Type::TOLERANCE, 2e-5), what + "pre-activation");
}

int main(int count, char** arguments) {
  try {
    Device device(count > 1 ? arguments[1] : nullptr);
    for (std::string layout : {"nn", "nt", "tn"}) {
      run<Bf16>(device, layout, 136, 264, 72, BIAS, 0);
      run<F32>(device, layout, 40, 24, 200, PLAIN, 1);
    }
    run<Bf16>(device, "nt", 24, 48, 32, BIAS_GELU, 0);
    run<F32>(device, "nt", 33, 48, 40, BIAS_GELU, 0);
    run<Bf16>(device, "nn", 40, 56, 16, DGELU, 0);
    run<F32>(device, "nn", 41, 56, 8, DGELU, 0);
    for (std::string layout : {"nn", "nt", "tn"}) {
      run<F32>(device, layout, 70, 33, 50, BIAS_GELU, 0, true);
      run<Bf16>(device, layout, 5, 131, 17, BIAS, 1, true);
    }
    run<F32>(device, "nn", 3, 5, 1, DGELU, 0, true);
    printf("gemm: ok\n");
    return 0;
  } catch (std::exception& error) {
    printf("gemm: FAILED: %s\n", error.what());
    return 1;
  }
}
