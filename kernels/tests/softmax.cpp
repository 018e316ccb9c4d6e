// softmax [CUBIN ..]: compares the kernels of softmax.cu with f64.
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

static void run(const Device& device, int rows, int width, int logarithm, double size) {
  std::string what = (logarithm ? "logarithm, " : "") + std::to_string(width) + " wide: ";
  size_t count = size_t(rows) * width;
  std::vector<float> x = normal<F32>(count, 1), dy = normal<F32>(count, 2), before = normal<F32>(count, 3);
  for (float& value : x) value = float(value * size);
  std::vector<double> y(count), dx(count);
  for (int row = 0; row < rows; row++) {
    size_t start = size_t(row) * width;
    double largest = -1e300, sum = 0, of_dy = 0;
    for (int c = 0; c < width; c++) largest = std::max(largest, double(x[start + c]));
    for (int c = 0; c < width; c++) sum += std::exp(x[start + c] - largest);
    for (int c = 0; c < width; c++) {
      double shifted = x[start + c] - largest;
      y[start + c] = logarithm ? shifted - std::log(sum) : std::exp(shifted) / sum;
      of_dy += dy[start + c] * (logarithm ? 1 : y[start + c]);
    }
    for (int c = 0; c < width; c++) {
      double d = dy[start + c];
      dx[start + c] = logarithm ? d - std::exp(y[start + c]) * of_dy : y[start + c] * (d - of_dy);
    }
  }
  Array<float> of_x(device, x), of_y(device, count), of_dy(device, dy), of_dx(device, count), added(device, before);
  unsigned blocks = unsigned(rows + 3) / 4;
  Forward forward = {of_x.pointer, of_y.pointer, rows, width, logarithm};
  Device::check(device.launch("softmax_f32", {blocks, 1, 1}, 128, 0, {&forward}), what);
  expect_near(widened<F32>(of_y.values()), y, F32::TOLERANCE, what + "y");
  Backward backward = {of_y.pointer, of_dy.pointer, of_dx.pointer, rows, width, logarithm, 0};
  Device::check(device.launch("softmax_backward_f32", {blocks, 1, 1}, 128, 0, {&backward}), what);
  // The backward of the logarithm computes e^y from a y that was rounded.
  if (size == 1) expect_near(widened<F32>(of_dx.values()), dx, logarithm ? 4 * F32::TOLERANCE : F32::TOLERANCE, what + "dx");
  backward.dx = added.pointer, backward.add = 1;
  Device::check(device.launch("softmax_backward_f32", {blocks, 1, 1}, 128, 0, {&backward}), what);
  expect_added(added.values(), before, of_dx.values(), what + "dx");
}

int main(int count, char** arguments) {
  try {
    Device device(count - 1, arguments + 1);
    for (int logarithm : {0, 1})
      for (double size : {1.0, 1e4})
        for (auto [rows, width] : {std::pair{5, 33}, {4, 1}, {2, 300}}) run(device, rows, width, logarithm, size);
    printf("softmax: ok\n");
    return 0;
  } catch (std::exception& error) {
    printf("softmax: FAILED: %s\n", error.what());
    return 1;
  }
}
