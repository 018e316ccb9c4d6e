// elementwise [CUBIN ..]: compares the kernels of elementwise.cu with f64.
#include <functional>

#include "device.hpp"
#include "numbers.hpp"

struct Layout {
  int rank;
  uint32_t sizes[6];
  int64_t strides[6];
};
struct Copy {
  Pointer from, to;
  uint64_t count;
  Layout of_from, of_to;
  int add;
};
struct Zip {
  Pointer a, b, to;
  uint64_t count;
  int op, add;
  Layout of_a, of_b;
};
struct Unary {
  Pointer x, y;
  uint64_t count;
  int op;
  float number;
  int add;
};
struct UnaryBackward {
  Pointer saved, dy, dx;
  uint64_t count;
  int op;
  float number;
  int add;
};
struct Sum {
  Pointer from, to;
  uint64_t count, summed, part;
  Layout kept, over;
  int add;
};

static int launch(const Device& device, const std::string& kernel, uint64_t threads, void* arguments) {
  return device.launch(kernel.c_str(), {unsigned(threads + 127) / 128, 1, 1}, 128, 0, {arguments});
}

template <class Type> static void unary(const Device& device) {
  using T = typename Type::Stored;
  struct Function {
    const char* name;
    std::function<double(double)> value;
    bool from_input, is_positive;
    float number = 0;
  };
  auto phi = [](double x) { return 0.5 * (1 + std::erf(x / std::sqrt(2.0))); };
  auto by_tanh = [](double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); };
  std::vector<Function> functions = {
      {"exp", [](double x) { return std::exp(x); }, false, false},
      {"ln", [](double x) { return std::log(x); }, true, true},
      {"tanh", [](double x) { return std::tanh(x); }, false, false},
      {"sqrt", [](double x) { return std::sqrt(x); }, false, true},
      {"relu", [](double x) { return x > 0 ? x : 0; }, false, false},
      {"reciprocal", [](double x) { return 1 / x; }, false, true},
      {"gelu", [&](double x) { return x * phi(x); }, true, false},
      {"gelu by tanh", by_tanh, true, false},
      {"sigmoid", [](double x) { return 1 / (1 + std::exp(-x)); }, false, false},
      {"abs", [](double x) { return std::fabs(x); }, true, false},
      {"scale", [](double x) { return -1.5 * x; }, true, false, -1.5f},
      {"shift", [](double x) { return x + 0.75; }, true, false, 0.75f},
      {"power", [](double x) { return std::pow(x, -1.25); }, true, true, -1.25f},
      {"at least", [](double x) { return std::fmax(x, 0.123f); }, true, false, 0.123f},
      {"at most", [](double x) { return std::fmin(x, 0.123f); }, true, false, 0.123f},
  };
  size_t count = 300;
  std::vector<T> dy = normal<Type>(count, 2), before = normal<Type>(count, 3);
  for (int op = 0; op < int(functions.size()); op++) {
    const Function& f = functions[op];
    std::string what = Type::NAME + std::string(", ") + f.name + ": ";
    std::vector<T> x = normal<Type>(count, 1);
    for (T& value : x)
      if (f.is_positive) value = Type::store(0.5 + std::fabs(Type::widen(value)));
    std::vector<double> y, dx;
    for (size_t i = 0; i < count; i++) {
      double at = Type::widen(x[i]), step = 1e-5;
      y.push_back(f.value(at));
      double slope = (f.value(at + step) - f.value(at - step)) / (2 * step);
      dx.push_back(Type::widen(before[i]) + Type::widen(dy[i]) * slope);
    }
    Array<T> of_x(device, x), of_y(device, count), of_dy(device, dy), of_dx(device, before);
    std::string type = Type::NAME;
    Unary forward = {of_x.pointer, of_y.pointer, count, op, f.number, 0};
    Device::check(launch(device, "unary_" + type, count, &forward), what);
    expect_near(widened<Type>(of_y.values()), y, Type::TOLERANCE, what + "value");
    UnaryBackward backward = {f.from_input ? of_x.pointer : of_y.pointer, of_dy.pointer, of_dx.pointer, count, op, f.number, 1};
    Device::check(launch(device, "unary_backward_" + type, count, &backward), what);
    expect_near(widened<Type>(of_dx.values()), dx, Type::TOLERANCE, what + "derivative");
  }
}

static const Layout TRANSPOSED = {3, {3, 4, 5}, {1, 3, 12}};

// A [3, 4, 5], transposed from [5, 4, 3], and B [4, 1], which broadcasts; and sums of A.
static void broadcasts(const Device& device) {
  std::vector<float> a = normal<F32>(60, 1), b = normal<F32>(4, 2), before = normal<F32>(60, 3);
  for (float& value : b) value = 0.5f + std::fabs(value);
  b[1] = a[3];  // a pair that is equal
  Layout of_a = TRANSPOSED, of_b = {3, {3, 4, 5}, {0, 1, 0}};
  Array<float> array_a(device, a), array_b(device, b), to(device, 60);
  for (int op = 0; op < 9; op++) {
    std::vector<double> expected;
    for (int i = 0; i < 3; i++)
      for (int j = 0; j < 4; j++)
        for (int k = 0; k < 5; k++) {
          double x = a[i + 3 * j + 12 * k], y = b[j];
          double of[] = {x + y, x - y, x * y, x / y, std::fmax(x, y), std::fmin(x, y), double(x > y), double(x >= y), double(x == y)};
          expected.push_back(of[op]);
        }
    Zip zip = {array_a.pointer, array_b.pointer, to.pointer, 60, op, 0, of_a, of_b};
    std::string what = "operation " + std::to_string(op);
    Device::check(launch(device, "zip_f32", 60, &zip), what);
    expect_near(widened<F32>(to.values()), expected, F32::TOLERANCE, what);
    Array<float> sum(device, before);
    Zip add = {array_a.pointer, array_b.pointer, sum.pointer, 60, op, 1, of_a, of_b};
    Device::check(launch(device, "zip_f32", 60, &add), what);
    expect_added(sum.values(), before, to.values(), what);
  }
  std::vector<double> expected(4);
  for (size_t i = 0; i < a.size(); i++) expected[i / 3 % 4] += a[i];
  Array<float> sums(device, 4), added(device, before);
  Sum sum = {array_a.pointer, sums.pointer, 4, 15, 15, {1, {4}, {3}}, {2, {3, 5}, {1, 12}}, 0};
  Device::check(launch(device, "sum_f32", 4 * 32, &sum), "sum");
  expect_near(widened<F32>(sums.values()), expected, F32::TOLERANCE, "sum");
  sum.to = added.pointer, sum.add = 1;
  Device::check(launch(device, "sum_f32", 4 * 32, &sum), "sum");
  std::vector<float> first = added.values();
  first.resize(4);
  expect_added(first, before, sums.values(), "sum");
}

// Sums over the last dimension of [3, 1000] in parts, of which the last one is shorter.
static void sums_in_parts(const Device& device) {
  uint64_t count = 3, summed = 1000, part = 96, parts = (summed + part - 1) / part;
  std::vector<float> x = normal<F32>(count * summed, 1);
  std::vector<double> expected(count * parts);
  for (uint64_t i = 0; i < x.size(); i++) expected[i / summed * parts + i % summed / part] += x[i];
  Array<float> of_x(device, x), sums(device, expected.size());
  Sum sum = {of_x.pointer, sums.pointer, count, summed, part, {1, {3}, {1000}}, {1, {1000}, {1}}, 0};
  Device::check(launch(device, "sum_f32", count * parts * 32, &sum), "sums in parts");
  expect_near(widened<F32>(sums.values()), expected, F32::TOLERANCE, "sums in parts");
}

// Copies of a transposed A [3, 4, 5] to a row-major tensor and back.
template <class Type> static void copies(const Device& device) {
  using T = typename Type::Stored;
  std::string type = Type::NAME;
  std::vector<T> a = normal<Type>(60, 1);
  Array<T> array_a(device, a), to(device, 60);
  std::vector<double> copied;
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 4; j++)
      for (int k = 0; k < 5; k++) copied.push_back(Type::widen(a[i + 3 * j + 12 * k]));
  Copy copy = {array_a.pointer, to.pointer, 60, TRANSPOSED, {1, {60}, {1}}, 0};
  Device::check(launch(device, "copy_" + type + "_" + type, 60, &copy), "copy");
  expect_near(widened<Type>(to.values()), copied, 0, type + ", copy");
  // Added to the original on the way back, the copy doubles it.
  Copy back = {to.pointer, array_a.pointer, 60, {1, {60}, {1}}, TRANSPOSED, 1};
  Device::check(launch(device, "copy_" + type + "_" + type, 60, &back), "copy");
  std::vector<double> doubled;
  for (auto value : a) doubled.push_back(2 * Type::widen(value));
  expect_near(widened<Type>(array_a.values()), doubled, 0, type + ", added");
}

static void casts(const Device& device) {
  std::vector<float> x = normal<F32>(100, 1);
  Array<float> of_x(device, x), back(device, 100);
  Array<uint16_t> narrow(device, 100);
  for (std::string type : {"bf16", "f16"}) {
    std::vector<double> expected;
    for (float value : x) expected.push_back(type == "bf16" ? Bf16::widen(Bf16::store(value)) : double(float(_Float16(value))));
    Layout row = {1, {100}, {1}};
    Copy there = {of_x.pointer, narrow.pointer, 100, row, row, 0}, and_back = {narrow.pointer, back.pointer, 100, row, row, 0};
    Device::check(launch(device, "copy_f32_" + type, 100, &there), type);
    Device::check(launch(device, "copy_" + type + "_f32", 100, &and_back), type);
    expect_near(widened<F32>(back.values()), expected, 0, "through " + type);
  }
}

int main(int count, char** arguments) {
  try {
    Device device(count - 1, arguments + 1);
    unary<F32>(device);
    unary<Bf16>(device);
    broadcasts(device);
    sums_in_parts(device);
    copies<F32>(device);
    copies<Bf16>(device);
    casts(device);
    printf("elementwise: ok\n");
    return 0;
  } catch (std::exception& error) {
    printf("elementwise: FAILED: %s\n", error.what());
    return 1;
  }
}
