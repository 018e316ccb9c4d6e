// layer_norm [CUBIN ..]: compares the kernels of layer_norm.cu with f64.
#include "device.hpp"
#include "numbers.hpp"

struct Dropout {
  uint32_t threshold, key[2], site, step;
};
struct Coordinate {
  uint32_t sequence, position;
};

// The arguments of the kernels.
enum { OVERWRITE, CONTINUE, ADD };

struct Forward {
  Pointer x, residual, coordinates;
  Dropout dropout;
  Pointer gamma, beta, z, y, mean, rstd;
  int rows, width;
  float eps;
};
struct Backward {
  Pointer dy, z, gamma, mean, rstd, coordinates;
  Dropout dropout;
  Pointer dz, dx;
  int add_dz, add_dx;
  Pointer sums;
  int rows, width, block_rows;
};

// With `flat`, all elements of a row are equal or, in every other row of bf16, all but one, by a unit in the last place.
template <class Type>
static void run(const Device& device, int rows, int width, uint32_t threshold, bool has_residual, bool flat = false) {
  using T = typename Type::Stored;
  std::string name = Type::NAME + std::string(", ") + std::to_string(rows) + " x " + std::to_string(width) +
                     ", threshold " + std::to_string(threshold) + ": ";
  size_t count = size_t(rows) * size_t(width);
  uint64_t seed = 0x123456789abcull;
  Dropout dropout = {threshold, {uint32_t(seed), uint32_t(seed >> 32)}, 5, 3};
  std::vector<T> x = normal<Type>(count, 1), residual = normal<Type>(count, 2), dy = normal<Type>(count, 3),
                 before = normal<Type>(count, 4);
  std::vector<float> gamma = normal<F32>(size_t(width), 5), beta = normal<F32>(size_t(width), 6);
  std::vector<Coordinate> coordinates;
  for (int row = 0; row < rows; row++) coordinates.push_back({uint32_t(row / 3), uint32_t(row % 3)});
  float eps = flat ? 1e-12f : 1e-5f;
  for (size_t i = 0; flat && i < count; i++) {
    size_t row = i / size_t(width);
    bool differs = Type::NAME == Bf16::NAME && row % 2 && i % size_t(width) == 2;
    x[i] = Type::store((0.1 + 33.3 * double(row)) * (differs ? 1.0 + 1.0 / 128 : 1.0));
  }

  // The expected results.
  std::vector<double> z(count), y(count), dz(count), dx(count), dgamma(size_t(width), 0), dbeta(size_t(width), 0);
  for (int row = 0; row < rows; row++) {
    std::vector<double> factors(size_t(width), 1);
    for (int column = 0; threshold && column < width; column++) {
      uint32_t group = coordinates[row].position * uint32_t((width + 15) / 16) + uint32_t(column / 16);
      auto bytes = philox_bytes(dropout.site << 8, dropout.step, coordinates[row].sequence, group, seed);
      factors[column] = bytes[column % 16] >= threshold ? 256.0 / (256 - threshold) : 0;
    }
    double mean = 0, variance = 0;
    size_t start = size_t(row) * size_t(width);
    for (int c = 0; c < width; c++) {
      double sum = Type::widen(x[start + c]) * factors[c] + (has_residual ? Type::widen(residual[start + c]) : 0);
      z[start + c] = has_residual ? Type::widen(Type::store(sum)) : sum;
    }
    // Relative to the first element, so that equal ones have exactly this mean.
    for (int c = 0; c < width; c++) mean += (z[start + c] - z[start]) / width;
    mean += z[start];
    for (int c = 0; c < width; c++) variance += (z[start + c] - mean) * (z[start + c] - mean) / width;
    double rstd = 1 / std::sqrt(variance + eps), mean_w = 0, mean_wh = 0;
    for (int c = 0; c < width; c++) {
      double h = (z[start + c] - mean) * rstd, g = Type::widen(dy[start + c]), w = g * gamma[c];
      y[start + c] = h * gamma[c] + beta[c];
      mean_w += w / width;
      mean_wh += w * h / width;
      dgamma[c] += g * h;
      dbeta[c] += g;
    }
    for (int c = 0; c < width; c++) {
      double h = (z[start + c] - mean) * rstd, w = Type::widen(dy[start + c]) * gamma[c];
      double gradient = rstd * (w - mean_w - h * mean_wh);
      dz[start + c] = gradient + Type::widen(before[start + c]);
      dx[start + c] = gradient * factors[c];
    }
  }

  Array<T> of_x(device, x), of_residual(device, residual), of_z(device, count), of_y(device, count);
  Array<float> of_gamma(device, gamma), of_beta(device, beta), of_mean(device, size_t(rows)), of_rstd(device, size_t(rows));
  Array<Coordinate> of_coordinates(device, coordinates);
  Forward forward = {of_x.pointer, has_residual ? of_residual.pointer : 0, of_coordinates.pointer, dropout,
                     of_gamma.pointer, of_beta.pointer, of_z.pointer, of_y.pointer, of_mean.pointer, of_rstd.pointer,
                     rows, width, eps};
  std::string type = Type::NAME;
  Device::check(device.launch(("layer_norm_forward_" + type).c_str(), {unsigned(rows + 3) / 4, 1, 1}, 128, 0, {&forward}),
                name + "forward");
  expect_near(widened<Type>(of_y.values()), y, Type::TOLERANCE, name + "y");
  if (has_residual) expect_near(widened<Type>(of_z.values()), z, Type::TOLERANCE, name + "z");

  int block_rows = 20;
  unsigned blocks = unsigned(rows + block_rows - 1) / unsigned(block_rows);
  Array<T> of_dy(device, dy), of_dz(device, before), of_dx(device, count);
  Array<float> sums(device, blocks * 2 * size_t(width)), of_dgamma(device, size_t(width)), of_dbeta(device, size_t(width));
  Backward backward = {of_dy.pointer, has_residual ? of_z.pointer : of_x.pointer, of_gamma.pointer, of_mean.pointer,
                       of_rstd.pointer, of_coordinates.pointer, dropout, of_dz.pointer, of_dx.pointer, 1, 0, sums.pointer,
                       rows, width, block_rows};
  unsigned warps = width <= 1536 ? 4 : width <= 3072 ? 2 : 1, shared = warps * 2 * unsigned(width) * 4;
  Device::check(device.launch(("layer_norm_backward_" + type).c_str(), {blocks, 1, 1}, 32 * warps, shared, {&backward}),
                name + "backward");
  int parts = int(blocks), stride = 2 * width;
  Pointer second = sums.pointer + size_t(width) * 4;
  int sharers = 1;
  auto column_sums = [&](Pointer from, Array<float>& to, int accumulate) {
    Device::check(device.launch("column_sums_f32", {unsigned(width + 127) / 128, 1, 1}, 128, 0,
                                {&from, to.argument(), &parts, &parts, &stride, &width, &sharers, &accumulate}),
                  name + "sums");
  };
  column_sums(sums.pointer, of_dgamma, OVERWRITE);
  column_sums(second, of_dbeta, OVERWRITE);
  // Added to a gradient, and continued from the first sum, which the second one then contains.
  Array<float> added(device, gamma);
  column_sums(sums.pointer, added, ADD);
  expect_added(added.values(), gamma, of_dgamma.values(), name + "dgamma");
  Array<float> twice(device, gamma);
  column_sums(sums.pointer, twice, OVERWRITE);
  column_sums(sums.pointer, twice, CONTINUE);
  std::vector<double> doubled = dgamma;
  for (double& x : doubled) x *= 2;
  expect_near(widened<F32>(twice.values()), doubled, Type::TOLERANCE, name + "twice dgamma");
  expect_near(widened<Type>(of_dz.values()), dz, Type::TOLERANCE, name + "dz");
  expect_near(widened<Type>(of_dx.values()), dx, Type::TOLERANCE, name + "dx");
  expect_near(widened<F32>(of_dgamma.values()), dgamma, Type::TOLERANCE, name + "dgamma");
  expect_near(widened<F32>(of_dbeta.values()), dbeta, Type::TOLERANCE, name + "dbeta");
}

// Sums of the columns of a part of a matrix, all rows at once and in groups, by `sharers` threads each.
template <class Type> static void sums_of_columns(const Device& device, int rows, int stride, int width, int sharers) {
  auto x = normal<Type>(size_t(rows) * stride, 7);
  std::vector<double> expected(width), in_groups(width), twice(width);
  for (int row = 0; row < rows; row++)
    for (int column = 0; column < width; column++) expected[column] += Type::widen(x[size_t(row) * stride + column]);
  Array<typename Type::Stored> of_x(device, x);
  std::string name = std::string("column_sums_") + Type::NAME, what = name + " of " + std::to_string(sharers) + " sharers";
  int summed = 20, groups = (rows + summed - 1) / summed;
  Array<float> whole(device, size_t(width)), parts(device, size_t(groups) * width);
  unsigned columns = sharers > 1 ? 32 : 128, threads = columns * unsigned(sharers);
  auto launch = [&](Array<float>& to, int of_group, int blocks, int accumulate) {
    Device::check(device.launch(name.c_str(), {(unsigned(width) + columns - 1) / columns, unsigned(blocks), 1}, threads, threads * 4,
                                {of_x.argument(), to.argument(), &rows, &of_group, &stride, &width, &sharers, &accumulate}),
                  what);
  };
  launch(whole, rows, 1, OVERWRITE);
  launch(parts, summed, groups, OVERWRITE);
  std::vector<double> of_groups = widened<F32>(parts.values());
  for (size_t i = 0; i < of_groups.size(); i++) in_groups[i % width] += of_groups[i];
  expect_near(widened<F32>(whole.values()), expected, 5e-6, what);
  expect_near(in_groups, expected, 5e-6, what + ", in groups");
  std::vector<float> once = whole.values();
  launch(whole, rows, 1, ADD);
  expect_added(whole.values(), once, once, what);
  launch(whole, rows, 1, CONTINUE);
  for (int column = 0; column < width; column++) twice[column] = 3 * expected[column];
  expect_near(widened<F32>(whole.values()), twice, 1e-5, what + ", continued");
}

int main(int count, char** arguments) {
  try {
    Device device(count - 1, arguments + 1);
    for (auto [rows, width] : {std::pair{5, 33}, {70, 48}, {9, 768}, {3, 1400}, {5, 2050}, {2, 3076}})
      for (uint32_t threshold : {0u, 26u}) {
        run<F32>(device, rows, width, threshold, true);
        run<Bf16>(device, rows, width, threshold, true);
      }
    for (int width : {3, 130})
      for (int sharers : {1, 16}) {
        sums_of_columns<F32>(device, 53, 141, width, sharers);
        sums_of_columns<Bf16>(device, 53, 141, width, sharers);
      }
    run<F32>(device, 6, 64, 0, false);
    run<Bf16>(device, 6, 3, 0, false);
    for (int width : {33, 768, 1400}) {
      run<F32>(device, 9, width, 0, false, true);
      run<Bf16>(device, 9, width, 0, false, true);
    }
    printf("layer_norm: ok\n");
    return 0;
  } catch (std::exception& error) {
    printf("layer_norm: FAILED: %s\n", error.what());
    return 1;
  }
}
