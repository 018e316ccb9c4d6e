// ranks [CUBIN ..]: compares the kernels of ranks.cu with the additions of the host, bit for bit, and with f64.
#include <algorithm>

#include "device.hpp"
#include "numbers.hpp"

static constexpr size_t BLOCK = 4096;

// Adds `ranks` parts of `count` elements.
template <class Type> static void sums(const Device& device, const char* kernel, size_t count, int ranks) {
  std::string name = std::string(Type::NAME) + ", " + std::to_string(count) + " elements of " + std::to_string(ranks) + " ranks: ";
  auto values = normal<Type>(count * size_t(ranks), unsigned(count));
  unsigned blocks = unsigned((count + BLOCK - 1) / BLOCK);
  Array<typename Type::Stored> parts(device, values);
  Array<float> sums(device, count);
  Array<double> squares(device, blocks);
  Device::check(device.launch(kernel, {blocks, 1, 1}, 256, 2048,
                              {parts.argument(), sums.argument(), squares.argument(), &count, &ranks}),
                name + kernel);
  std::vector<double> expected(blocks, 0), found = squares.values();
  std::vector<float> added = sums.values();
  for (size_t i = 0; i < count; i++) {
    float sum = float(Type::widen(values[i]));
    for (int rank = 1; rank < ranks; rank++) sum += float(Type::widen(values[size_t(rank) * count + i]));
    if (added[i] != sum) throw std::runtime_error(name + "sum " + std::to_string(i));
    expected[i / BLOCK] += double(sum) * sum;
  }
  expect_near(found, expected, 1e-12, name + "squares");
}

static void rounding(const Device& device, size_t count) {
  std::vector<float> values = normal<F32>(count, 3);
  values[1] = 1 + 1.0f / 256, values[2] = 1 + 3.0f / 256, values[3] = INFINITY, values[4] = 3.4e38f;
  Array<float> from(device, values);
  Array<uint16_t> to(device, count);
  unsigned blocks = unsigned((count / 8 + 127) / 128);
  Device::check(device.launch("round_bf16", {blocks, 1, 1}, 128, 0, {from.argument(), to.argument(), &count}), "round_bf16");
  std::vector<uint16_t> rounded = to.values();
  for (size_t i = 0; i < count; i++)
    if (rounded[i] != Bf16::store(values[i])) throw std::runtime_error("round_bf16 of " + std::to_string(values[i]));
}

int main(int count, char** images) {
  try {
    Device device(count - 1, images + 1);
    for (int ranks : {1, 2, 3, 8})
      for (size_t elements : {size_t(32), BLOCK, 3 * BLOCK + 96}) {
        sums<F32>(device, "add_ranks_f32", elements, ranks);
        sums<Bf16>(device, "add_ranks_bf16", elements, ranks);
      }
    rounding(device, 4104);
    printf("ranks: ok\n");
    return 0;
  } catch (std::exception& error) {
    printf("ranks: FAILED: %s\n", error.what());
    return 1;
  }
}
