// primitives [CUBIN ..]: runs the kernels of primitives.cu and compares their results with the definitions.
//
// Without arguments it runs on the emulator, with cubins on a GPU. It prints a line per test and fails if any test fails.
#include <cmath>
#include <cstring>
#include <functional>
#include <random>

#include "../../tests/device.hpp"

static std::mt19937 generator(1);

static std::vector<float> normal(size_t count) {
  std::normal_distribution<float> distribution;
  std::vector<float> values(count);
  for (float& value : values) value = distribution(generator);
  return values;
}

static float widen_bf16(uint16_t bits) {
  uint32_t wide = uint32_t(bits) << 16;
  float value;
  memcpy(&value, &wide, 4);
  return value;
}
static float widen_f16(uint16_t bits) {
  _Float16 value;
  memcpy(&value, &bits, 2);
  return float(value);
}
// Returns numbers that 16-bit floats represent exactly: eighths from -4 to 4.
static std::vector<uint16_t> eighths(size_t count, bool is_f16) {
  std::vector<uint16_t> values(count);
  for (uint16_t& value : values) {
    float x = float(int(generator() % 65) - 32) / 8;
    if (is_f16) {
      _Float16 half = _Float16(x);
      memcpy(&value, &half, 2);
    } else {
      uint32_t bits;
      memcpy(&bits, &x, 4);
      value = uint16_t(bits >> 16);
    }
  }
  return values;
}

static double largest_difference(const std::vector<float>& found, const std::vector<double>& expected) {
  double largest = 0;
  for (size_t i = 0; i < expected.size(); i++) {
    double difference = std::fabs(found[i] - expected[i]);
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}

static void expect(bool is_so, const std::string& what) {
  if (!is_so) throw std::runtime_error(what);
}

static void row_sums(const Device& device) {
  unsigned rows = 5;
  int columns = 1000;
  std::vector<float> x = normal(rows * size_t(columns));
  std::vector<double> sums(rows), squares(rows);
  for (size_t i = 0; i < x.size(); i++) sums[i / 1000] += x[i], squares[i / 1000] += double(x[i]) * x[i];
  Array<float> input(device, x), of_rows(device, rows), of_squares(device, rows);
  Device::check(device.launch("row_sums", {rows, 1, 1}, 256, 128,
                              {input.argument(), of_rows.argument(), of_squares.argument(), &columns}),
                "row_sums");
  expect(largest_difference(of_rows.values(), sums) < 1e-4, "sums");
  expect(largest_difference(of_squares.values(), squares) < 1e-3, "sums of squares");
}

static void shuffles(const Device& device) {
  Array<int> to(device, 14 * 32);
  Device::check(device.launch("shuffles", {1, 1, 1}, 32, 0, {to.argument()}), "shuffles");
  std::vector<int> found = to.values();
  auto row = [&](int row, const std::function<int(int)>& expected) {
    for (int lane = 0; lane < 32; lane++)
      expect(found[row * 32 + lane] == expected(lane), "row " + std::to_string(row) + ", lane " + std::to_string(lane));
  };
  row(0, [](int) { return 105; });
  row(1, [](int lane) { return 100 + lane / 8 * 8 + (lane + 3) % 8; });
  row(2, [](int lane) { return 100 + (lane ^ 6); });
  // A lane cannot read from a later segment, but it can from an earlier one.
  row(3, [](int lane) { return 100 + ((lane ^ 12) / 8 <= lane / 8 ? lane ^ 12 : lane); });
  row(4, [](int lane) { return 100 + (lane >= 3 ? lane - 3 : lane); });
  row(5, [](int lane) { return 100 + (lane % 8 >= 3 ? lane - 3 : lane); });
  row(6, [](int lane) { return 100 + (lane + 3 < 32 ? lane + 3 : lane); });
  row(7, [](int lane) { return 100 + (lane % 8 + 3 < 8 ? lane + 3 : lane); });
  row(8, [](int) { return int(0x49249249u); });
  row(9, [](int) { return 1; });
  row(10, [](int) { return 1; });
  row(11, [](int lane) { return 100 + (lane < 16 ? lane ^ 1 : lane ^ 2); });
  row(12, [](int lane) { return int(lane < 16 ? 0x0000aaaau : 0xcccc0000u); });
  row(13, [](int lane) { return 131 - lane; });
}

static void small_product(const Device& device) {
  for (bool is_f16 : {false, true}) {
    std::vector<uint16_t> a = eighths(16 * 64, is_f16), b = eighths(64 * 16, is_f16);
    auto widen = is_f16 ? widen_f16 : widen_bf16;
    std::vector<double> expected(16 * 16);
    for (int r = 0; r < 16; r++)
      for (int c = 0; c < 16; c++)
        for (int k = 0; k < 64; k++) expected[r * 16 + c] += double(widen(a[r * 64 + k])) * widen(b[k * 16 + c]);
    Array<uint16_t> left(device, a), right(device, b);
    Array<float> product(device, 256);
    const char* kernel = is_f16 ? "small_product_f16" : "small_product_bf16";
    Device::check(
        device.launch(kernel, {1, 1, 1}, 32, 4096, {left.argument(), right.argument(), product.argument()}), kernel);
    expect(largest_difference(product.values(), expected) == 0, kernel);
  }
}

static void reversed_tiles(const Device& device) {
  int count = 4500, tiles = 5;
  std::vector<float> x = normal(size_t(count));
  std::vector<double> expected(5 * 1024);
  for (int i = 0; i < 5 * 1024; i++) {
    int from = i / 1024 * 1024 + 1023 - i % 1024;
    expected[i] = from < count ? x[from] : 0;
  }
  Array<float> input(device, x), output(device, 5 * 1024);
  Device::check(device.launch("reversed_tiles", {1, 1, 1}, 256, 8192,
                              {input.argument(), output.argument(), &count, &tiles}),
                "reversed_tiles");
  expect(largest_difference(output.values(), expected) == 0, "tiles");
}

static void handed_over(const Device& device) {
  int rounds = 6;
  Array<float> output(device, std::vector<float>(6 * 32 + 2, 0.0f));
  Device::check(device.launch("handed_over", {1, 1, 1}, 96, 128, {output.argument(), &rounds}), "handed_over");
  std::vector<double> expected;
  for (int i = 0; i < 6 * 32; i++) expected.push_back(i / 32 * 100 + 31 - i % 32);
  expected.push_back(0);
  std::vector<float> found = output.values();
  expect(largest_difference(found, expected) == 0, "numbers");
  uint32_t counted;
  memcpy(&counted, &found[6 * 32 + 1], 4);
  expect(counted == 2, "atomicAdd");
}

static void tile_product(const Device& device) {
  int m = 100, n = 72, k = 200;
  std::vector<uint16_t> a = eighths(size_t(m) * k, false), b = eighths(size_t(n) * k, false);
  std::vector<double> expected(size_t(m) * n);
  for (int r = 0; r < m; r++)
    for (int c = 0; c < n; c++)
      for (int i = 0; i < k; i++) expected[r * n + c] += double(widen_bf16(a[r * k + i])) * widen_bf16(b[c * k + i]);
  Array<uint16_t> left(device, a), right(device, b);
  Array<float> product(device, size_t(m) * n);
  auto map = [&](Pointer pointer, int rows) {
    Map map;
    uint64_t sizes[2] = {uint64_t(k), uint64_t(rows)}, row_bytes[1] = {uint64_t(k) * 2};
    unsigned box[2] = {64, 64}, every[2] = {1, 1};
    using Encode = int(Map*, int, unsigned, void*, const uint64_t*, const uint64_t*, const unsigned*, const unsigned*, int,
                       int, int, int);
    int result = device.call<Encode>("cuTensorMapEncodeTiled")(&map, 9, 2, reinterpret_cast<void*>(pointer), sizes,
                                                               row_bytes, box, every, 0, 3, 0, 0);
    Device::check(result, "cuTensorMapEncodeTiled");
    return map;
  };
  Map of_a = map(left.pointer, m), of_b = map(right.pointer, n);
  unsigned shared = 4 * 64 * 64 * 2 + 4 * 8;
  Device::check(device.launch("tile_product", {2, 2, 1}, 256, shared, {&of_a, &of_b, product.argument(), &m, &n, &k}),
                "tile_product");
  expect(largest_difference(product.values(), expected) == 0, "product");
}

int main(int count, char** arguments) {
  try {
    Device device(count - 1, arguments + 1);
    bool is_hopper = device.attribute(75) == 9, failed = false;
    auto test = [&](const char* name, void (*run)(const Device&)) {
      try {
        run(device);
        printf("%s: ok\n", name);
      } catch (std::exception& error) {
        failed = true;
        printf("%s: FAILED: %s\n", name, error.what());
      }
    };
    test("row_sums", row_sums);
    test("shuffles", shuffles);
    test("small_product", small_product);
    test("reversed_tiles", reversed_tiles);
    test("handed_over", handed_over);
    if (is_hopper) test("tile_product", tile_product);
    return failed;
  } catch (std::exception& error) {
    printf("FAILED: %s\n", error.what());
    return 1;
  }
}
