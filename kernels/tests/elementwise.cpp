// elementwise [CUBIN ..]: the kernels of elementwise.cu against f64.
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
  int op;
  Layout of_a, of_b;
};
struct Unary {
  Pointer x, y;
  uint64_t count;
  int op;
  float number;
};
struct UnaryBackward {
  Pointer saved, dy, dx;
  uint64_t count;
  int op, add;
};
struct Sum {
  Pointer from, to;
  uint64_t count, summed;
  Layout kept, over;
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
    Unary forward = {of_x.pointer, of_y.pointer, count, op, 0};
    Device::check(launch(device, "unary_" + type, count, &forward), what);
    expect_near(widened<Type>(of_y.values()), y, Type::TOLERANCE, what + "value");
    UnaryBackward backward = {f.from_input ? of_x.pointer : of_y.pointer, of_dy.pointer, of_dx.pointer, count, op, 1};
    Device::check(launch(device, "unary_backward_" + type, count, &backward), what);
    expect_near(widened<Type>(of_dx.values()), dx, Type::TOLERANCE, what + "derivative");
  }
}

// A [3, 4, 5] beside a B [4, 1] that repeats, with A transposed from [5, 4, 3]; copies and sums of the same A.
template <class Type> static void layouts(const Device& device) {
  using T = typename Type::Stored;
  std::string type = Type::NAME;
  std::vector<T> a = normal<Type>(60, 1), b = normal<Type>(4, 2);
  for (T& value : b) value = Type::store(0.5 + std::fabs(Type::widen(value)));
  Layout of_a = {3, {3, 4, 5}, {1, 3, 12}}, of_b = {3, {3, 4, 5}, {0, 1, 0}};
  Array<T> array_a(device, a), array_b(device, b), to(device, 60);
  for (int op = 0; op < 4; op++) {
    std::vector<double> expected;
    for (int i = 0; i < 3; i++)
      for (int j = 0; j < 4; j++)
        for (int k = 0; k < 5; k++) {
          double x = Type::widen(a[i + 3 * j + 12 * k]), y = Type::widen(b[j]);
          expected.push_back(op == 0 ? x + y : op == 1 ? x - y : op == 2 ? x * y : x / y);
        }
    Zip zip = {array_a.pointer, array_b.pointer, to.pointer, 60, op, of_a, of_b};
    Device::check(launch(device, "zip_" + type, 60, &zip), "zip");
    expect_near(widened<Type>(to.values()), expected, Type::TOLERANCE, type + ", operation " + std::to_string(op));
  }
  std::vector<double> copied, sums(4);
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 4; j++)
      for (int k = 0; k < 5; k++) {
        copied.push_back(Type::widen(a[i + 3 * j + 12 * k]));
        sums[j] += copied.back();
      }
  Copy copy = {array_a.pointer, to.pointer, 60, of_a, {1, {60}, {1}}, 0};
  Device::check(launch(device, "copy_" + type + "_" + type, 60, &copy), "copy");
  expect_near(widened<Type>(to.values()), copied, 0, type + ", copy");
  // There and back again, and added: twice the first operand as it lies.
  Copy back = {to.pointer, array_a.pointer, 60, {1, {60}, {1}}, of_a, 1};
  Device::check(launch(device, "copy_" + type + "_" + type, 60, &back), "copy");
  std::vector<double> doubled;
  for (auto value : a) doubled.push_back(2 * Type::widen(value));
  expect_near(widened<Type>(array_a.values()), doubled, 0, type + ", added");
  for (double& x : sums) x *= 2;
  Array<T> of_sums(device, 4);
  Sum sum = {array_a.pointer, of_sums.pointer, 4, 15, {1, {4}, {3}}, {2, {3, 5}, {1, 12}}};
  Device::check(launch(device, "sum_" + type, 4 * 32, &sum), "sum");
  expect_near(widened<Type>(of_sums.values()), sums, Type::TOLERANCE, type + ", sum");
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
    layouts<F32>(device);
    layouts<Bf16>(device);
    casts(device);
    printf("elementwise: ok\n");
    return 0;
  } catch (std::exception& error) {
    printf("elementwise: FAILED: %s\n", error.what());
    return 1;
  }
}
