// scaled_f16 [CUBIN ..]: compares the kernels of scaled_f16.cu with f64.
#include "device.hpp"
#include "numbers.hpp"

struct Scaled {
  Pointer from, to, scale;
  uint64_t rows, columns, row, column, row_to;
  int limit;
};

// Scales a matrix of 21 x 13 numbers up to `largest`, row-major or transposed, and pads its rows to 16.
static void run(const Device& device, float largest, bool is_transposed, int limit) {
  std::string what = "numbers up to " + std::to_string(largest) + ": ";
  int rows = 21, columns = 13, padded = 16;
  auto from = normal<F32>(size_t(rows) * columns, 1);
  for (float& x : from) x *= largest / 8;  // normally distributed numbers stay below 8
  from[100] = -largest;
  Array<float> of_from(device, from);
  Array<uint16_t> to(device, size_t(rows) * padded);
  std::vector<uint32_t> zeros = {0, 7};
  Array<uint32_t> scale(device, zeros);
  Scaled arguments = {of_from.pointer, to.pointer, scale.pointer, uint64_t(rows), uint64_t(columns),
                      uint64_t(is_transposed ? 1 : columns), uint64_t(is_transposed ? rows : 1), uint64_t(padded), limit};
  Device::check(device.launch("scaled_f16_largest", {2, 1, 1}, 64, 0, {&arguments}), what + "largest");
  Device::check(device.launch("scaled_f16", {unsigned(rows * padded + 63) / 64, 1, 1}, 64, 0, {&arguments}), what + "scaled");
  uint32_t bits = scale.values()[1];
  float back;
  memcpy(&back, &bits, 4);
  std::vector<double> found, expected;
  double top = 0;
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < padded; j++) {
      double there = F16::widen(to.values()[size_t(i) * padded + j]);
      top = std::fmax(top, std::fabs(there));
      found.push_back(there * back);
      expected.push_back(j < columns ? from[is_transposed ? j * rows + i : i * columns + j] : 0);
    }
  expect_near(found, expected, 5e-4, what + "rounded");
  if (largest == 0 ? back != 1 : top < std::ldexp(0.5, limit) || top >= std::ldexp(1.0, limit))
    throw std::runtime_error(what + "scaled to " + std::to_string(top));
}

int main(int count, char** arguments) {
  try {
    Device device(count - 1, arguments + 1);
    for (float largest : {1e-30f, 3e-5f, 1.0f, 4.0f, 7e4f, 1e30f, 0.0f})
      for (int limit : {0, 15}) run(device, largest, limit == 0, limit);
    printf("scaled_f16: ok\n");
    return 0;
  } catch (std::exception& error) {
    printf("scaled_f16: FAILED: %s\n", error.what());
    return 1;
  }
}
