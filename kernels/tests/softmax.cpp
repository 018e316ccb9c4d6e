// softmax [CUBIN ..]: the kernels of softmax.cu against f64.
#include <algorithm>

#include "device.hpp"
#include "numbers.hpp"

struct Forward {
  Pointer x, y;
  int rows, width, logarithm;
};
struct Backward {
  Pointer y, dy, dx;
  int rows, width, logarithm, add;
};

template <class Type> static void run(const Device& device, int rows, int width, int logarithm, double size) {
  using T = typename Type::Stored;
  std::string what = Type::NAME + std::string(logarithm ? ", logarithm, " : ", ") + std::to_string(width) + " wide: ";
  size_t count = size_t(rows) * width;
  std::vector<T> x = normal<Type>(count, 1), dy = normal<Type>(count, 2), before = normal<Type>(count, 3);
  for (T& value : x) value = Type::store(Type::widen(value) * size);
  std::vector<double> y(count), dx(count);
  for (int row = 0; row < rows; row++) {
    size_t start = size_t(row) * width;
    double largest = -1e300, sum = 0, of_dy = 0;
    for (int c = 0; c < width; c++) largest = std::max(largest, Type::widen(x[start + c]));
    for (int c = 0; c < width; c++) sum += std::exp(Type::widen(x[start + c]) - largest);
    for (int c = 0; c < width; c++) {
      double shifted = Type::widen(x[start + c]) - largest;
      y[start + c] = logarithm ? shifted - std::log(sum) : std::exp(shifted) / sum;
      of_dy += Type::widen(dy[start + c]) * (logarithm ? 1 : y[start + c]);
    }
    for (int c = 0; c < width; c++) {
      double d = Type::widen(dy[start + c]);
      dx[start + c] = Type::widen(before[start + c]) +
                      (logarithm ? d - std::exp(y[start + c]) * of_dy : y[start + c] * (d - of_dy));
    }
  }
  Array<T> of_x(device, x), of_y(device, count), of_dy(device, dy), of_dx(device, before);
  std::string type = Type::NAME;
  unsigned blocks = unsigned(rows + 3) / 4;
  Forward forward = {of_x.pointer, of_y.pointer, rows, width, logarithm};
  Device::check(device.launch(("softmax_" + type).c_str(), {blocks, 1, 1}, 128, 0, {&forward}), what);
  expect_near(widened<Type>(of_y.values()), y, Type::TOLERANCE, what + "y");
  Backward backward = {of_y.pointer, of_dy.pointer, of_dx.pointer, rows, width, logarithm, 1};
  Device::check(device.launch(("softmax_backward_" + type).c_str(), {blocks, 1, 1}, 128, 0, {&backward}), what);
  // The logarithm's backward takes e^y of a y that is rounded.
  if (size == 1) expect_near(widened<Type>(of_dx.values()), dx, logarithm ? 4 * Type::TOLERANCE : Type::TOLERANCE, what + "dx");
}

int main(int count, char** arguments) {
  try {
    Device device(count - 1, arguments + 1);
    for (int logarithm : {0, 1})
      for (double size : {1.0, 1e4})
        for (auto [rows, width] : {std::pair{5, 33}, {4, 1}, {2, 300}}) {
          run<F32>(device, rows, width, logarithm, size);
          run<Bf16>(device, rows, width, logarithm, size);
        }
    printf("softmax: ok\n");
    return 0;
  } catch (std::exception& error) {
    printf("softmax: FAILED: %s\n", error.what());
    return 1;
  }
}
