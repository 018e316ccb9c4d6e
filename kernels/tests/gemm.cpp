// gemm [CUBIN ..]: compares the kernels of gemm.cu, gemm_hopper.cu and gemm_any.cu with f64.
#include <algorithm>

#include "device.hpp"
#include "numbers.hpp"

struct Epilogue {
  Pointer bias, pre_activation, scale_a, scale_b;
  int kind, gelu, add;
};
struct Product {
  Pointer c;
  size_t batch_c;
  int m, n, k, row_c, split;
  Pointer column_sums;
  Epilogue epilogue;
};
struct Gemm {
  Pointer a, b;
  size_t batch_a, batch_b;
  int row_a, row_b;
  Product product;
};
struct GemmAny {
  Pointer a, b, c;
  int m, n, k, row_a, column_a, row_b, column_b, row_c;
  size_t batch_a, batch_b, batch_c;
  Epilogue epilogue;
};
enum { PLAIN, BIAS, BIAS_GELU, DGELU };
// Forms of GELU, by their numbers among the functions of one variable.
constexpr int GELU = 6, GELU_TANH = 7;

static double gelu(double x, int kind) {
  if (kind == GELU) return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}
static double gelu_derivative(double x, int kind) {
  double step = 1e-5;
  return (gelu(x + step, kind) - gelu(x - step, kind)) / (2 * step);
}

// Returns a tensor map of a matrix of bf16: boxes of 64 x 64 with the 128-byte swizzle.
static Map map_of(const Device& device, Pointer matrix, int rows, int columns) {
  Map map;
  uint64_t sizes[2] = {uint64_t(columns), uint64_t(rows)}, row_bytes[1] = {uint64_t(columns) * 2};
  unsigned box[2] = {64, 64}, steps[2] = {1, 1};
  using Encode = int(Map*, int, unsigned, void*, const uint64_t*, const uint64_t*, const unsigned*, const unsigned*, int, int,
                     int, int);
  Device::check(device.call<Encode>("cuTensorMapEncodeTiled")(&map, 9, 2, reinterpret_cast<void*>(matrix), sizes, row_bytes,
                                                              box, steps, 0, 3, 2, 0),
                "cuTensorMapEncodeTiled");
  return map;
}

enum Kind { CORES, HOPPER, ANY };  // gemm.cu, gemm_hopper.cu, gemm_any.cu

// Compares products with f64. `layout` says whether A and B are stored as usual or transposed: "nn", "nt" or "tn".
// HOPPER computes one product, the others two at a time or, with `split`, the parts of one. ANY takes A and B in f32.
template <class Type, class Operand = Bf16>
static void run(const Device& device, Kind by, const std::string& layout, int m, int n, int k, int kind, int add, int split = 0) {
  using T = typename Type::Stored;
  std::string name = by == ANY ? "gemm_any_" : (by == HOPPER ? "gemm_hopper_" : "gemm_") + layout + "_" + Operand::NAME + "_";
  name += Type::NAME;
  std::string what = name + " " + std::to_string(m) + " x " + std::to_string(n) + " x " + std::to_string(k) + ", epilogue " +
                     std::to_string(kind) + ", split " + std::to_string(split) + ": ";
  bool a_across = layout[0] == 't', b_along = layout[1] == 't';
  int operands = by == HOPPER || split ? 1 : 2, products = split ? (k + split - 1) / split : operands, gelu_kind = m % 2 ? GELU_TANH : GELU;
  size_t size_a = size_t(m) * k, size_b = size_t(k) * n, size_c = size_t(m) * n;
  auto a = normal<Operand>(operands * size_a, 1), b = normal<Operand>(operands * size_b, 2);
  // The same numbers in f32.
  std::vector<float> wide_a, wide_b;
  for (uint16_t x : a) wide_a.push_back(float(Operand::widen(x)));
  for (uint16_t x : b) wide_b.push_back(float(Operand::widen(x)));
  auto c = normal<Type>(products * size_c, 3), pre = normal<Type>(products * size_c, 4);
  auto bias = normal<F32>(size_t(n), 5);
  std::vector<float> scales = {0.25f, 2.0f};
  std::vector<double> expected(products * size_c), kept(products * size_c);
  for (int z = 0; z < products; z++)
    for (int i = 0; i < m; i++)
      for (int j = 0; j < n; j++) {
        double sum = 0;
        int operand = split ? 0 : z, first = split ? z * split : 0, end = split ? std::min(k, first + split) : k;
        for (int x = first; x < end; x++)
          sum += Operand::widen(a[operand * size_a + (a_across ? x * m + i : i * k + x)]) *
                 Operand::widen(b[operand * size_b + (b_along ? j * k + x : x * n + j)]);
        size_t at = z * size_c + size_t(i) * n + j;
        double value = sum * scales[0] * scales[1];
        if (kind == BIAS || kind == BIAS_GELU) value += bias[j];
        kept[at] = value;
        if (kind == BIAS_GELU) value = gelu(value, gelu_kind);
        if (kind == DGELU) value *= gelu_derivative(Type::widen(pre[at]), gelu_kind);
        expected[at] = value + (add ? Type::widen(c[at]) : 0);
      }
  Array<uint16_t> of_a(device, a), of_b(device, b);
  Array<float> of_wide_a(device, wide_a), of_wide_b(device, wide_b);
  Array<T> of_c(device, c), of_pre(device, pre);
  Array<float> of_bias(device, bias), of_scales(device, scales);
  Epilogue epilogue = {of_bias.pointer, kind >= BIAS_GELU ? of_pre.pointer : 0, of_scales.pointer, of_scales.pointer + 4,
                       kind, gelu_kind, add};
  int row_a = a_across ? m : k, row_b = b_along ? k : n;
  unsigned tile = by == ANY ? 64 : 128;
  size_t parts = size_t(products) * ((unsigned(m) + tile - 1) / tile);
  Array<float> sums(device, parts * n);
  Product product = {of_c.pointer, size_c, m, n, k, n, split, kind == DGELU ? sums.pointer : 0, epilogue};
  unsigned grid[3] = {(unsigned(n) + tile - 1) / tile, (unsigned(m) + tile - 1) / tile, unsigned(products)};
  auto launch = [&](unsigned threads, unsigned shared, const std::vector<void*>& arguments) {
    Device::check(device.launch(name.c_str(), grid, threads, shared, arguments), what);
  };
  if (by == ANY) {
    GemmAny arguments = {of_wide_a.pointer, of_wide_b.pointer, of_c.pointer, m, n, k, a_across ? 1 : k, a_across ? m : 1,
                         b_along ? 1 : n, b_along ? k : 1, n, size_a, size_b, size_c, epilogue};
    launch(256, 2 * 16 * 65 * 4, {&arguments});
  } else if (by == HOPPER) {
    Map map_a = map_of(device, of_a.pointer, a_across ? k : m, row_a), map_b = map_of(device, of_b.pointer, b_along ? n : k, row_b);
    launch(288, 3 * 32768 + 48, {&map_a, &map_b, &product});
  } else {
    Gemm arguments = {of_a.pointer, of_b.pointer, split ? 0 : size_a, split ? 0 : size_b, row_a, row_b, product};
    launch(256, 65536, {&arguments});
  }
  expect_near(widened<Type>(of_c.values()), expected, std::max(Type::TOLERANCE, 2e-5), what + "c");
  if (kind == DGELU && by != ANY) {
    std::vector<double> of_columns(n), found(n);
    std::vector<float> of_parts = sums.values();
    for (size_t i = 0; i < expected.size(); i++) of_columns[i % n] += expected[i];
    for (size_t i = 0; i < of_parts.size(); i++) found[i % n] += of_parts[i];
    expect_near(found, of_columns, 2e-5, what + "sums of columns");
  }
  if (kind == BIAS_GELU) expect_near(widened<Type>(of_pre.values()), kept, std::max(Type::TOLERANCE, 2e-5), what + "pre-activation");
}

// Kernels on tensor cores with operands in bf16.
static void on_tensor_cores(const Device& device, Kind by) {
  for (std::string layout : {"nn", "nt", "tn"}) {
    run<Bf16>(device, by, layout, 136, 264, 72, BIAS, 0);
    run<F32>(device, by, layout, 40, 24, 264, PLAIN, 1);
    run<F32>(device, by, layout, 136, 40, 200, PLAIN, 0, 64);
    // Eleven pieces along k: each barrier of gemm_hopper.cu goes through three phases and more.
    run<F32>(device, by, layout, 40, 24, 680, PLAIN, 0);
  }
  run<Bf16>(device, by, "nt", 24, 48, 32, BIAS_GELU, 0);
  run<F32>(device, by, "nt", 33, 48, 40, BIAS_GELU, 0);
  run<Bf16>(device, by, "nn", 40, 56, 16, DGELU, 0);
  run<F32>(device, by, "nn", 141, 136, 8, DGELU, 0);
  // Both forms of GELU, by groups of columns; then rows that are no multiple of a group.
  run<F32>(device, by, "nt", 132, 140, 40, BIAS_GELU, 0);
  run<F32>(device, by, "nn", 136, 144, 16, DGELU, 0);
  for (int kind : {PLAIN, BIAS, BIAS_GELU, DGELU}) run<F32>(device, by, "nt", 37, 46, 24, kind, kind == PLAIN);
  run<Bf16>(device, by, "nt", 130, 45, 24, BIAS_GELU, 0);
}

int main(int count, char** arguments) {
  try {
    Device device(count - 1, arguments + 1);
    bool is_turing = device.attribute(75) == 7, is_hopper = device.attribute(75) == 9;
    for (std::string layout : {"nn", "nt", "tn"}) {
      run<F32, F16>(device, CORES, layout, 136, 264, 72, BIAS, 0);
      run<F32, F16>(device, CORES, layout, 136, 40, 200, PLAIN, 1, 64);
    }
    if (!is_turing) on_tensor_cores(device, CORES);
    if (device.is_emulated || is_hopper) on_tensor_cores(device, HOPPER);
    for (std::string layout : {"nn", "nt", "tn"}) {
      run<F32>(device, ANY, layout, 70, 33, 50, BIAS_GELU, 0);
      run<F32>(device, ANY, layout, 5, 131, 17, BIAS, 1);
    }
    run<F32>(device, ANY, "nn", 3, 5, 1, DGELU, 0);
    printf("gemm: ok\n");
    return 0;
  } catch (std::exception& error) {
    printf("gemm: FAILED: %s\n", error.what());
    return 1;
  }
}
