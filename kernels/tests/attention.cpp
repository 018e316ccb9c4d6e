// attention [CUBIN ..]: compares the kernels of attention_forward.cu and attention_backward.cu with f64. A GPU needs
// both cubins.
#include <algorithm>

#include "device.hpp"
#include "numbers.hpp"

struct Dropout {
  uint32_t threshold, key[2], site, step;
};
struct Forward {
  Pointer q, k, v, scale_qkv, o, log_sums, starts, numbers;
  int row_qkv, row_o, tokens;
  float scale;
  Dropout dropout;
};
struct Backward {
  Pointer q, k, v, d_o, scale_qkv, scale_do, o, log_sums, dq, dk, dv, starts, numbers;
  int row_qkv, row_o, row_dqkv, tokens;
  float scale;
  Dropout dropout;
  int add;
};

// Returns whether dropout keeps a key for a query.
static bool is_kept(const Dropout& dropout, uint32_t sequence, int head, int query, int key) {
  int i = query % 16, j = key % 32, lane = 4 * (i % 8) + j % 8 / 2, byte = 4 * (j / 8) + 2 * (i / 8) + j % 2;
  uint32_t coordinates = uint32_t(query / 16) << 16 | uint32_t(key / 32) << 5 | uint32_t(lane);
  uint64_t seed = uint64_t(dropout.key[1]) << 32 | dropout.key[0];
  auto bytes = philox_bytes(1u << 28 | dropout.site << 8 | uint32_t(head), dropout.step, sequence, coordinates, seed);
  return bytes[byte] >= dropout.threshold;
}

// With `masked`, the scores of the first 66 keys of longer sequences are below the range of f32: minus infinity, a whole tile and
// more.
template <class Type>
static void run(const Device& device, int size, uint32_t threshold, const std::vector<uint32_t>& lengths, bool masked = false) {
  // The type of the output and of gradients.
  using Result = std::conditional_t<std::is_same_v<Type, Bf16>, Bf16, F32>;
  using R = typename Result::Stored;
  std::string kernel = Type::NAME + std::string("_") + std::to_string(size);
  std::string what = std::string(Type::NAME) + ", heads of " + std::to_string(size) + ", threshold " + std::to_string(threshold) + ": ";
  int heads = 2;
  std::vector<uint32_t> starts = {0}, numbers;
  for (uint32_t length : lengths) starts.push_back(starts.back() + length), numbers.push_back(10 + uint32_t(numbers.size()));
  int tokens = int(starts.back()), row = 3 * heads * size, row_o = heads * size;
  auto qkv = normal<Type>(size_t(tokens) * row, 1), d_o = normal<Type>(size_t(tokens) * row_o, 2);
  for (size_t s = 0; masked && s < lengths.size(); s++)
    for (uint32_t i = 0; i < lengths[s]; i++)
      for (int head = 0; head < heads; head++) {
        auto& query = qkv[size_t(starts[s] + i) * row + head * size];
        auto& key = qkv[size_t(starts[s] + i) * row + (heads + head) * size];
        query = Type::store(1e20);
        key = Type::store(lengths[s] > 66 && i < 66 ? -1e20 : 1e-20 * Type::widen(key));
      }
  // The scales say that the stored numbers stand for twice their value, and the gradients for four times theirs.
  std::vector<float> scales = {2, 4};
  Dropout dropout = {threshold, {77, 88}, 4, 9};
  double scale = 1 / std::sqrt(double(size));
  std::vector<double> output(size_t(tokens) * row_o), log_sums(size_t(heads) * tokens), gradients(size_t(tokens) * row);
  auto at = [&](int token, int which, int head, int d) {
    return scales[0] * Type::widen(qkv[size_t(token) * row + (which * heads + head) * size + d]);
  };
  for (size_t s = 0; s < lengths.size(); s++)
    for (int head = 0; head < heads; head++)
      for (int i = 0; i < int(lengths[s]); i++) {
        int start = int(starts[s]), length = int(lengths[s]);
        std::vector<double> p(length);
        double largest = -1e300, sum = 0;
        for (int j = 0; j < length; j++) {
          for (int d = 0; d < size; d++) p[j] += at(start + i, 0, head, d) * at(start + j, 1, head, d) * scale;
          largest = std::max(largest, p[j]);
        }
        for (double& x : p) sum += x = std::exp(x - largest);
        log_sums[size_t(head) * tokens + start + i] = largest + std::log(sum);
        std::vector<double> dp(length), factors(length, 1);
        double delta = 0;
        auto gradient = [&](int token, int which, int d) -> double& {
          return gradients[size_t(token) * row + (which * heads + head) * size + d];
        };
        for (int j = 0; j < length; j++) {
          p[j] /= sum;
          if (threshold) factors[j] = is_kept(dropout, numbers[s], head, i, j) ? 256.0 / (256 - threshold) : 0;
          for (int d = 0; d < size; d++) {
            size_t of_output = size_t(start + i) * row_o + head * size + d;
            output[of_output] += p[j] * factors[j] * at(start + j, 2, head, d);
            dp[j] += scales[1] * Type::widen(d_o[of_output]) * at(start + j, 2, head, d) * factors[j];
            gradient(start + j, 2, d) += p[j] * factors[j] * scales[1] * Type::widen(d_o[of_output]);
          }
          delta += p[j] * dp[j];
        }
        for (int j = 0; j < length; j++)
          for (int d = 0; d < size; d++) {
            double ds = p[j] * (dp[j] - delta) * scale;
            gradient(start + i, 0, d) += ds * at(start + j, 1, head, d);
            gradient(start + j, 1, d) += ds * at(start + i, 0, head, d);
          }
      }
  Array<uint16_t> of_qkv(device, qkv);
  Array<float> of_scales(device, scales), of_log_sums(device, log_sums.size());
  Array<R> of_o(device, output.size());
  Array<uint32_t> of_starts(device, starts), of_numbers(device, numbers);
  Pointer q = of_qkv.pointer, step = Pointer(heads * size * 2);
  Forward forward = {q, q + step, q + 2 * step, of_scales.pointer, of_o.pointer, of_log_sums.pointer, of_starts.pointer,
                     of_numbers.pointer, row, row_o, tokens, float(scale), dropout};
  unsigned longest = *std::max_element(lengths.begin(), lengths.end());
  Device::check(device.launch(("attention_forward_" + kernel).c_str(), {(longest + 63) / 64, unsigned(heads), unsigned(lengths.size())}, 128,
                              unsigned(5 * 64 * size * 2), {&forward}),
                what);
  expect_near(widened<Result>(of_o.values()), output, Type::TOLERANCE, what + "output");
  expect_near(widened<F32>(of_log_sums.values()), log_sums, 1e-5, what + "log_sums");

  Array<uint16_t> of_do(device, d_o);
  Array<R> of_gradients(device, gradients.size());
  Pointer dq = of_gradients.pointer, of_third = Pointer(heads * size * int(sizeof(R))), scale_qkv = of_scales.pointer;
  Backward backward = {q, q + step, q + 2 * step, of_do.pointer, scale_qkv, scale_qkv + 4, of_o.pointer,
                       of_log_sums.pointer, dq, dq + of_third, dq + 2 * of_third, of_starts.pointer, of_numbers.pointer, row, row_o, row, tokens, float(scale),
                       dropout, 0};
  auto launch = [&](const std::string& name, unsigned x, unsigned z, unsigned shared, std::vector<void*> arguments) {
    Device::check(device.launch((name + kernel).c_str(), {x, unsigned(heads), z}, 128, shared, arguments),
                  what + name);
  };
  unsigned blocks = (longest + 63) / 64, sequences = unsigned(lengths.size());
  launch("attention_backward_", 2 * blocks, sequences, unsigned(4 * 64 * size * 2 + 1024), {&backward});
  expect_near(widened<Result>(of_gradients.values()), gradients, Type::TOLERANCE, what + "gradients");
  std::vector<R> before = normal<Result>(gradients.size(), 3);
  Array<R> added(device, before);
  backward.dq = added.pointer, backward.dk = backward.dq + of_third, backward.dv = backward.dq + 2 * of_third, backward.add = 1;
  launch("attention_backward_", 2 * blocks, sequences, unsigned(4 * 64 * size * 2 + 1024), {&backward});
  if constexpr (std::is_same_v<Result, F32>) {
    expect_added(added.values(), before, of_gradients.values(), what + "gradients");
  } else {
    for (size_t i = 0; i < gradients.size(); i++) gradients[i] += Result::widen(before[i]);
    expect_near(widened<Result>(added.values()), gradients, Type::TOLERANCE, what + "added gradients");
  }
}

int main(int count, char** arguments) {
  try {
    Device device(count - 1, arguments + 1);
    bool is_turing = device.attribute(75) == 7;
    for (int size : {32, 64, 128})
      for (uint32_t threshold : {0u, 26u}) {
        if (!is_turing || size < 128) run<F16>(device, size, threshold, {77, 1, 130, 64});
        if (!is_turing) run<Bf16>(device, size, threshold, {77, 1, 130, 64});
        if (!is_turing) run<Bf16>(device, size, threshold, {77, 1, 130, 64}, true);
      }
    printf("attention: ok\n");
    return 0;
  } catch (std::exception& error) {
    printf("attention: FAILED: %s\n", error.what());
    return 1;
  }
}
