// accumulate [CUBIN ..]: checks that dropout.cu, pooling.cu and attention_any.cu add gradients to others with the bits of
// computing them first and adding them later. The conformance tests of cloze-tensor compare their values with f64; for
// all other kernels, the programs beside this one check both.
#include <functional>

#include "device.hpp"
#include "numbers.hpp"

struct Dropout {
  uint32_t threshold, key[2], site, step;
};
struct Coordinate {
  uint32_t sequence, position;
};

// The arguments of the kernels.
struct DropoutArguments {
  Pointer x, y, rows;
  uint64_t groups;
  int width;
  Dropout dropout;
  int add;
};
struct Pool {
  Pointer x, y, starts, rows;
  int width, add;
};
struct Attention {
  Pointer q, k, v, o, log_sums, d_o, deltas, dq, dk, dv, starts, numbers;
  int row_qkv, row_o, tokens, size;
  float scale;
  Dropout dropout;
  int add;
};

static const std::vector<uint32_t> STARTS = {0, 33, 34, 71};
constexpr int TOKENS = 71, SEQUENCES = 3, LONGEST = 37;

// Runs `launch` with memory for `count` numbers, once to overwrite it and once to add to it.
static void compare(const Device& device, size_t count, const std::string& what,
                    const std::function<void(Pointer to, int add)>& launch) {
  std::vector<float> before = normal<F32>(count, 9);
  Array<float> fresh(device, count), sums(device, before);
  launch(fresh.pointer, 0);
  launch(sums.pointer, 1);
  expect_added(sums.values(), before, fresh.values(), what);
}

static void dropout(const Device& device, int width) {
  std::vector<Coordinate> coordinates;
  for (int row = 0; row < TOKENS; row++) coordinates.push_back({uint32_t(row / 3), uint32_t(row % 3)});
  Array<float> x(device, normal<F32>(size_t(TOKENS) * width, 1));
  Array<Coordinate> rows(device, coordinates);
  uint64_t groups = uint64_t(TOKENS) * ((width + 15) / 16);
  compare(device, size_t(TOKENS) * width, "dropout", [&](Pointer to, int add) {
    DropoutArguments arguments = {x.pointer, to, rows.pointer, groups, width, {26, {1, 2}, 3, 4}, add};
    Device::check(device.launch("dropout_f32", {unsigned(groups + 127) / 128, 1, 1}, 128, 0, {&arguments}), "dropout");
  });
}

static void pooling(const Device& device, int width) {
  Array<float> x(device, normal<F32>(size_t(TOKENS) * width, 1)), dy(device, normal<F32>(size_t(SEQUENCES) * width, 2)),
      y(device, size_t(SEQUENCES) * width);
  Array<uint32_t> starts(device, STARTS), rows(device, size_t(SEQUENCES) * width);
  for (std::string name : {"pool_mean", "pool_max"}) {
    Pool forward = {x.pointer, y.pointer, starts.pointer, rows.pointer, width, 0};
    Device::check(device.launch(name.c_str(), {SEQUENCES, 1, 1}, 128, 0, {&forward}), name);
    compare(device, size_t(TOKENS) * width, name, [&](Pointer to, int add) {
      Pool backward = {dy.pointer, to, starts.pointer, rows.pointer, width, add};
      Device::check(device.launch((name + "_backward").c_str(), {SEQUENCES, 1, 1}, 128, 0, {&backward}), name);
    });
  }
}

static void attention(const Device& device, int size, uint32_t threshold) {
  int heads = 2, row_o = heads * size, row = 3 * row_o;
  Array<float> qkv(device, normal<F32>(size_t(TOKENS) * row, 1)), o(device, size_t(TOKENS) * row_o),
      log_sums(device, size_t(heads) * TOKENS), d_o(device, normal<F32>(size_t(TOKENS) * row_o, 2)),
      deltas(device, size_t(heads) * TOKENS);
  Array<uint32_t> starts(device, STARTS), numbers(device, std::vector<uint32_t>{4, 9, 2});
  Pointer q = qkv.pointer, step = Pointer(row_o) * 4;
  auto launch = [&](const char* kernel, Pointer to, int add) {
    Attention arguments = {q, q + step, q + 2 * step, o.pointer, log_sums.pointer, d_o.pointer, deltas.pointer, to, to + step,
                           to + 2 * step, starts.pointer, numbers.pointer, row, row_o, TOKENS, size,
                           float(1 / std::sqrt(double(size))), {threshold, {1, 2}, 3, 4}, add};
    unsigned blocks = (LONGEST + 3) / 4;
    Device::check(device.launch(kernel, {blocks, unsigned(heads), SEQUENCES}, 128, 0, {&arguments}), kernel);
  };
  launch("attention_any_forward", 0, 0);
  compare(device, size_t(TOKENS) * row, "attention", [&](Pointer to, int add) {
    launch("attention_any_dq", to, add);
    launch("attention_any_dkv", to, add);
  });
}

int main(int count, char** arguments) {
  try {
    Device device(count - 1, arguments + 1);
    for (int width : {16, 33, 160}) {
      dropout(device, width);
      pooling(device, width);
    }
    for (int size : {5, 64, 200})
      for (uint32_t threshold : {0u, 26u}) attention(device, size, threshold);
    printf("accumulate: ok\n");
    return 0;
  } catch (std::exception& error) {
    printf("accumulate: FAILED: %s\n", error.what());
    return 1;
  }
}
