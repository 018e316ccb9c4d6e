// gemm [CUBIN ..]: compares the kernels of gemm.cu, gemm_hopper.cu and gemm_any.cu with f64.
#include <algorithm>
#include <type_traits>

#include "device.hpp"
#include "numbers.hpp"

struct Epilogue {
  Pointer bias, saved, scale_a, scale_b;
  int kind, gelu, add;
};
struct Product {
  Pointer c;
  size_t batch_c;
  int m, n, k, row_c, split;
  int rows, between, between_biases;  // of a stack of layers
  int add_sums;
  Pointer row_sums;
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

// The derivative of GELU in eight bits.
static double slope_of(uint8_t code) { return (code - 26) / 200.0; }

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
  auto c = normal<Type>(products * size_c, 3);
  auto pre = normal<F32>(products * size_c, 4);
  // What a product in bf16 keeps.
  constexpr bool has_codes = std::is_same_v<Type, Bf16>;
  std::vector<uint8_t> codes(pre.size());
  for (size_t i = 0; i < codes.size(); i++) codes[i] = uint8_t(i * 37 % 252);
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
        if (kind == DGELU) value *= has_codes ? slope_of(codes[at]) : gelu_derivative(pre[at], gelu_kind);
        expected[at] = value + (add ? Type::widen(c[at]) : 0);
      }
  Array<uint16_t> of_a(device, a), of_b(device, b);
  Array<float> of_wide_a(device, wide_a), of_wide_b(device, wide_b);
  Array<T> of_c(device, c);
  Array<uint8_t> of_codes(device, codes);
  Array<float> of_pre(device, pre), of_bias(device, bias), of_scales(device, scales);
  Epilogue epilogue = {of_bias.pointer, kind < BIAS_GELU ? 0 : has_codes ? of_codes.pointer : of_pre.pointer, of_scales.pointer, of_scales.pointer + 4,
                       kind, gelu_kind, add};
  int row_a = a_across ? m : k, row_b = b_along ? k : n;
  unsigned tile = by == ANY ? 64 : 128;
  // Sums of rows, where A lies across k; those of products and parts are as far apart as these.
  std::vector<float> before_sums = normal<F32>(products * size_c + m, 6);
  Array<float> sums(device, before_sums);
  bool has_sums = a_across && by != ANY;
  Product product = {of_c.pointer, size_c, m, n, k, n, split, 0, 0, 0, add, has_sums ? sums.pointer : 0, epilogue};
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
  if (has_sums) {
    std::vector<double> of_rows, found;
    for (int z = 0; z < products; z++)
      for (int i = 0; i < m; i++) {
        double sum = 0;
        int first = split ? z * split : 0, end = split ? std::min(k, first + split) : k;
        for (int x = first; x < end; x++) sum += Operand::widen(a[(split ? 0 : z) * size_a + size_t(x) * m + i]);
        of_rows.push_back(sum * scales[0] + (add ? before_sums[z * size_c + i] : 0));
        found.push_back(sums.values()[z * size_c + i]);
      }
    expect_near(found, of_rows, 2e-5, what + "sums of rows");
  }
  if (kind == BIAS_GELU && !has_codes) expect_near(widened<F32>(of_pre.values()), kept, 2e-5, what + "pre-activation");
  if (kind == BIAS_GELU && has_codes) {
    std::vector<double> found, slopes;
    for (uint8_t code : of_codes.values()) found.push_back(slope_of(code));
    for (double x : kept) slopes.push_back(gelu_derivative(x, gelu_kind));
    expect_near(found, slopes, 0.00252 / 0.9, what + "derivatives of GELU");
  }
}

// The weights of three layers of 128 rows, with some rows of memory and others between them: products with the stack, and its gradient.
template <class Type> static void stacked(const Device& device, Kind by, const std::string& layout) {
  using T = typename Type::Stored;
  constexpr int LAYERS = 3, ROWS = 128, BETWEEN = 2, BETWEEN_BIASES = 5;
  bool a_across = layout[0] == 't', b_along = layout[1] == 't', is_gradient = a_across;
  int tall = LAYERS * ROWS, m = is_gradient ? tall : 72, n = b_along ? tall : 40, k = layout == "nn" ? tall : 56;
  // Rows of memory, and the row of a row of the stack.
  auto there = [&](int row) { return size_t(row + row / ROWS * BETWEEN); };
  size_t rows_there = there(tall - 1) + 1;
  auto bias_there = [&](int row) { return size_t(row + row / ROWS * BETWEEN_BIASES); };
  auto a = normal<Bf16>(size_t(m) * k, 1), b = normal<Bf16>(is_gradient ? size_t(k) * n : rows_there * (b_along ? k : n), 2);
  std::vector<T> c = normal<Type>(is_gradient ? rows_there * n : size_t(m) * n, 3);
  std::vector<float> bias = normal<F32>(bias_there(tall - 1) + 1, 4);
  std::vector<double> expected = widened<Type>(c), of_rows = widened<F32>(bias);
  for (int i = 0; i < m; i++) {
    for (int j = 0; j < n; j++) {
      double sum = b_along ? bias[bias_there(j)] : 0;
      for (int x = 0; x < k; x++) {
        size_t of_b = b_along ? there(j) * k + x : is_gradient ? size_t(x) * n + j : there(x) * n + j;
        sum += Bf16::widen(a[a_across ? size_t(x) * m + i : size_t(i) * k + x]) * Bf16::widen(b[of_b]);
      }
      expected[(is_gradient ? there(i) : size_t(i)) * n + j] = sum;
    }
    double sum = 0;
    for (int x = 0; is_gradient && x < k; x++) sum += Bf16::widen(a[size_t(x) * m + i]);
    if (is_gradient) of_rows[bias_there(i)] = sum;
  }
  Array<uint16_t> of_a(device, a), of_b(device, b);
  Array<T> of_c(device, c);
  Array<float> of_bias(device, bias), sums(device, bias);
  Epilogue epilogue = {of_bias.pointer, 0, 0, 0, b_along ? BIAS : PLAIN, GELU, 0};
  Product product = {of_c.pointer, 0, m, n, k, n, 0, ROWS, BETWEEN, BETWEEN_BIASES, 0, is_gradient ? sums.pointer : 0, epilogue};
  int row_a = a_across ? m : k, row_b = b_along ? k : n;
  unsigned grid[3] = {unsigned(n + 127) / 128, unsigned(m + 127) / 128, 1};
  std::string name = (by == HOPPER ? "gemm_hopper_" : "gemm_") + layout + "_bf16_" + Type::NAME, what = "a stack by " + name + ": ";
  if (by == HOPPER) {
    int rows_of_b = int(b.size()) / row_b;
    Map map_a = map_of(device, of_a.pointer, a_across ? k : m, row_a), map_b = map_of(device, of_b.pointer, rows_of_b, row_b);
    Device::check(device.launch(name.c_str(), grid, 288, 3 * 32768 + 48, {&map_a, &map_b, &product}), what);
  } else {
    Gemm arguments = {of_a.pointer, of_b.pointer, 0, 0, row_a, row_b, product};
    Device::check(device.launch(name.c_str(), grid, 256, 65536, {&arguments}), what);
  }
  // What lies between layers has its values of before.
  expect_near(widened<Type>(of_c.values()), expected, std::max(Type::TOLERANCE, 2e-5), what + "c");
  if (is_gradient) expect_near(widened<F32>(sums.values()), of_rows, 2e-5, what + "sums of rows");
}

// Kernels on tensor cores with operands in bf16.
static void on_tensor_cores(const Device& device, Kind by) {
  for (std::string layout : {"nn", "nt", "tn"}) {
    run<Bf16>(device, by, layout, 136, 264, 72, BIAS, 0);
    run<F32>(device, by, layout, 40, 24, 264, PLAIN, 1);
    run<F32>(device, by, layout, 136, 40, 200, PLAIN, 0, 64);
    // Eleven pieces along k: each barrier of gemm_hopper.cu goes through three phases and more.
    run<F32>(device, by, layout, 40, 24, 680, PLAIN, 0);
    stacked<F32>(device, by, layout);
    stacked<Bf16>(device, by, layout);
  }
  // Sums of rows that are added to, of more rows than a tile has and of fewer than a group.
  run<F32>(device, by, "tn", 200, 136, 264, PLAIN, 1);
  run<F32>(device, by, "tn", 8, 136, 96, PLAIN, 0, 64);
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
