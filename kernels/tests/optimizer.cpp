// optimizer [CUBIN ..]: compares the kernels of optimizer.cu with f64.
#include <algorithm>

#include "device.hpp"
#include "numbers.hpp"

struct StepState {
  float learning_rate, correction1, correction2, factor;
  double norm;
};
struct Range {
  uint64_t start, count;
  unsigned first_block;
  float rate_factor, weight_decay;
};
struct AdamW {
  Pointer parameters, gradients, mean, mean_of_squares, state, ranges;
  int count;
  float new1, beta2, new2, eps;
  unsigned padding;
  Pointer rounded;
};

// Takes three steps with `count` parameters and gradients clipped to `most`. There are two ranges, the second with half
// the learning rate and a weight decay, and between them a few parameters that must not change.
static void steps(const Device& device, size_t count, float most) {
  std::string name = std::to_string(count) + " parameters, clipped to " + std::to_string(most) + ": ";
  std::vector<double> p = widened<F32>(normal<F32>(count, 1)), m(count, 0), v(count, 0);
  Array<float> parameters(device, normal<F32>(count, 1)), mean(device, std::vector<float>(count, 0)),
      squares(device, std::vector<float>(count, 0));
  Array<Bf16::Stored> rounded(device, normal<Bf16>(count, 1));
  unsigned blocks = unsigned((count + 65535) / 65536);
  Array<double> partials(device, blocks);
  float rate = 1e-2f, eps = 1e-8f;
  size_t first = count / 8 * 4, second = std::min(first + 4, count);
  unsigned of_first = unsigned((first + 1023) / 1024), of_second = unsigned((count - second + 1023) / 1024);
  std::vector<Range> table = {{second, count - second, of_first, 0.5f, 0.01f}};
  if (first > 0) table.insert(table.begin(), {0, first, 0, 1, 0});
  Array<Range> ranges(device, table);
  double beta1 = 0.9, beta2 = 0.999;
  for (int step = 1; step <= 3; step++) {
    std::vector<float> gradients = normal<F32>(count, 10 + unsigned(step));
    double sum = 0;
    for (float g : gradients) sum += double(g) * g;
    double norm = std::sqrt(sum), factor = most > 0 ? std::fmin(1, most / (norm + 1e-6)) : 1;
    double correction1 = 1 - std::pow(beta1, step), correction2 = 1 - std::pow(beta2, step);
    for (size_t i = 0; i < count; i++) {
      if (i >= first && i < second) continue;
      double g = gradients[i] * factor, lr = double(rate) * (i < first ? 1 : 0.5), decay = i < first ? 0 : 0.01;
      m[i] = beta1 * m[i] + (1 - beta1) * g;
      v[i] = beta2 * v[i] + (1 - beta2) * g * g;
      p[i] = p[i] * (1 - lr * decay) - lr / correction1 * m[i] / (std::sqrt(v[i] / correction2) + eps);
    }
    Array<float> of_gradients(device, gradients);
    Array<StepState> state(device, std::vector<StepState>{{rate, float(correction1), float(correction2), 0, 0}});
    Device::check(device.launch("sum_of_squares", {blocks, 1, 1}, 256, 2048,
                                {of_gradients.argument(), partials.argument(), &count}),
                  name + "sum_of_squares");
    int parts = int(blocks);
    Device::check(device.launch("clip_factor", {1, 1, 1}, 32, 0, {partials.argument(), &parts, &most, state.argument()}),
                  name + "clip_factor");
    AdamW adamw = {parameters.pointer, of_gradients.pointer, mean.pointer, squares.pointer, state.pointer, ranges.pointer,
                   int(table.size()), float(1 - beta1), float(beta2), float(1 - beta2), eps, 0, rounded.pointer};
    Device::check(device.launch("adamw", {of_first + of_second, 1, 1}, 256, 0, {&adamw}), name + "adamw");
    StepState found = state.values()[0];
    expect_near({found.norm}, {norm}, 1e-12, name + "norm");
    expect_near({found.factor}, {factor}, 1e-6, name + "factor");
  }
  expect_near(widened<F32>(parameters.values()), p, 2e-6, name + "parameters");
  expect_near(widened<Bf16>(rounded.values()), p, 4e-3, name + "parameters in bf16");
  expect_near(widened<F32>(mean.values()), m, 2e-6, name + "mean");
  expect_near(widened<F32>(squares.values()), v, 2e-6, name + "mean of squares");
}

// Checks that gradients that are not finite change nothing.
static void not_finite(const Device& device, float bad) {
  std::string name = "gradients with " + std::to_string(bad) + ": ";
  size_t count = 1000;
  std::vector<float> gradients = normal<F32>(count, 2), ones(count, 1);
  gradients[700] = bad;
  Array<float> of_gradients(device, gradients), parameters(device, ones), mean(device, ones), squares(device, ones);
  Array<double> partials(device, 1);
  Array<StepState> state(device, std::vector<StepState>{{1e-2f, 1, 1, 0, 0}});
  unsigned long long length = count;
  int parts = 1;
  float most = 1;
  Device::check(device.launch("sum_of_squares", {1, 1, 1}, 256, 2048,
                              {of_gradients.argument(), partials.argument(), &length}),
                name + "sum_of_squares");
  Device::check(device.launch("clip_factor", {1, 1, 1}, 32, 0, {partials.argument(), &parts, &most, state.argument()}),
                name + "clip_factor");
  Array<Range> ranges(device, std::vector<Range>{{0, count, 0, 1, 0.01f}});
  AdamW adamw = {parameters.pointer, of_gradients.pointer, mean.pointer, squares.pointer, state.pointer, ranges.pointer,
                 1, 0.1f, 0.999f, 0.001f, 1e-8f, 0, {}};
  Device::check(device.launch("adamw", {1, 1, 1}, 256, 0, {&adamw}), name + "adamw");
  if (std::isfinite(state.values()[0].norm)) throw std::runtime_error(name + "their norm is finite");
  for (const Array<float>* unchanged : {&parameters, &mean, &squares})
    if (unchanged->values() != ones) throw std::runtime_error(name + "something has changed");
}

int main(int count, char** arguments) {
  try {
    Device device(count - 1, arguments + 1);
    steps(device, 7, 0);
    steps(device, 1000, 1);
    steps(device, 150003, 1000);
    for (float bad : {NAN, INFINITY}) not_finite(device, bad);
    printf("optimizer: ok\n");
    return 0;
  } catch (std::exception& error) {
    printf("optimizer: FAILED: %s\n", error.what());
    return 1;
  }
}
