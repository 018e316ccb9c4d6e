// cross_entropy [CUBIN ..]: compares the kernels of cross_entropy.cu with f64.
#include <algorithm>

#include "device.hpp"
#include "numbers.hpp"

struct Arguments {
  Pointer scores, labels, losses, log_sums;
  int64_t ignored;
  int rows, classes, row;
};
struct Gradient {
  Pointer scores, labels, log_sums, factor, gradient;
  int64_t ignored;
  int rows, classes, row, add;
};

// With `masked`, every third class, the first ones and a whole warp's have scores of minus infinity, except for labels.
template <class Type> static void run(const Device& device, int classes, double size, bool masked = false) {
  using T = typename Type::Stored;
  std::string what = Type::NAME + std::string(", ") + std::to_string(classes) + " classes: ";
  std::vector<int64_t> labels = {0, classes - 1, -100, classes / 2, 0, classes - 1};
  int rows = int(labels.size()), row = classes + 3;
  std::vector<T> scores = normal<Type>(size_t(rows) * row, 1);
  for (T& score : scores) score = Type::store(Type::widen(score) * size);
  for (size_t i = 0; masked && i < scores.size(); i++) {
    int c = int(i % size_t(row)), label = int(labels[i / size_t(row)]);
    if (c < classes && c != label && c != classes - 2 && (c % 3 == 0 || c % 256 < 40)) scores[i] = Type::store(-INFINITY);
  }
  float factor = 0.25f;
  std::vector<double> losses(rows), gradients(scores.size());
  for (int r = 0; r < rows; r++) {
    auto at = [&](int c) { return Type::widen(scores[size_t(r) * row + c]); };
    double largest = -INFINITY, sum = 0;
    for (int c = 0; c < classes; c++) largest = std::max(largest, at(c));
    for (int c = 0; c < classes; c++) sum += std::exp(at(c) - largest);
    bool counts = labels[r] != -100;
    losses[r] = counts ? largest + std::log(sum) - at(int(labels[r])) : 0;
    for (int c = 0; c < row; c++) {
      // Padding beside the classes is not touched.
      double gradient = (std::exp(at(c) - largest) / sum - (c == labels[r])) * factor;
      gradients[size_t(r) * row + c] = c >= classes ? at(c) : counts ? gradient : 0;
    }
  }
  Array<T> of_scores(device, scores);
  Array<int64_t> of_labels(device, labels);
  Array<float> of_losses(device, size_t(rows)), log_sums(device, size_t(rows)), of_factor(device, std::vector<float>{factor});
  Arguments arguments = {of_scores.pointer, of_labels.pointer, of_losses.pointer, log_sums.pointer,
                         -100, rows, classes, row};
  std::string type = Type::NAME;
  Device::check(device.launch(("cross_entropy_" + type).c_str(), {unsigned(rows), 1, 1}, 256, 64, {&arguments}), what);
  expect_near(widened<F32>(of_losses.values()), losses, 2e-6, what + "losses");
  // Adds to other gradients first, while the scores are intact, and then overwrites the scores.
  std::vector<float> before = normal<F32>(scores.size(), 2);
  Array<float> added(device, before);
  auto gradient_to = [&](Pointer to, int add) {
    Gradient gradient = {of_scores.pointer, of_labels.pointer, log_sums.pointer, of_factor.pointer, to,
                         -100, rows, classes, row, add};
    Device::check(device.launch(("cross_entropy_gradient_" + type).c_str(), {unsigned(rows), 1, 1}, 256, 0, {&gradient}), what);
  };
  if constexpr (std::is_same_v<Type, F32>) gradient_to(added.pointer, 1);
  gradient_to(of_scores.pointer, 0);
  std::vector<double> found = widened<Type>(of_scores.values()), inside, expected;
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < row; c++) {
      size_t at = size_t(r) * row + c;
      if (c < classes) inside.push_back(found[at]), expected.push_back(gradients[at]);
      else if (found[at] != gradients[at]) throw std::runtime_error(what + "padding beside the classes was changed");
    }
  expect_near(inside, expected, Type::TOLERANCE, what + "gradients");
  if constexpr (std::is_same_v<Type, F32>) {
    std::vector<float> values = of_scores.values();
    for (size_t i = 0; i < values.size(); i++)
      if (int(i % size_t(row)) >= classes) values[i] = 0;
    expect_added(added.values(), before, values, what + "gradients");
  }
}

// Distributions instead of labels. Where the scores are minus infinity, the distributions are 0.
static void soft(const Device& device, int classes) {
  std::string what = "distributions of " + std::to_string(classes) + ": ";
  int rows = 3;
  size_t count = size_t(rows) * classes;
  std::vector<float> scores = normal<F32>(count, 1), targets = normal<F32>(count, 2), before = normal<F32>(count, 3);
  for (size_t i = 0; i < count; i++)
    if (i % 3 == 0 && i % size_t(classes) != 4) scores[i] = -INFINITY, targets[i] = 0;
  float factor = 0.25f;
  std::vector<double> losses(rows), of_scores(count), of_targets(count);
  for (int r = 0; r < rows; r++) {
    const float *s = &scores[size_t(r) * classes], *p = &targets[size_t(r) * classes];
    double sum = 0, total = 0;
    for (int c = 0; c < classes; c++) sum += std::exp(double(s[c])), total += p[c];
    for (int c = 0; c < classes; c++) {
      size_t at = size_t(r) * classes + c;
      if (p[c] != 0) losses[r] += p[c] * (std::log(sum) - s[c]);
      of_scores[at] = (std::exp(double(s[c])) / sum * total - p[c]) * factor;
      of_targets[at] = p[c] != 0 ? (std::log(sum) - s[c]) * factor : 0;
    }
  }
  Array<float> a_scores(device, scores), a_targets(device, targets), a_losses(device, size_t(rows)), log_sums(device, size_t(rows)),
      totals(device, size_t(rows)), a_factor(device, std::vector<float>{factor}), d_scores(device, count), d_targets(device, before),
      added(device, before);
  struct {
    Pointer scores, targets, losses, log_sums, totals;
    int rows, classes;
  } forward = {a_scores.pointer, a_targets.pointer, a_losses.pointer, log_sums.pointer, totals.pointer, rows, classes};
  Device::check(device.launch("soft_cross_entropy_f32", {unsigned(rows), 1, 1}, 256, 64, {&forward}), what);
  expect_near(widened<F32>(a_losses.values()), losses, 4e-6, what + "losses");
  struct {
    Pointer scores, targets, log_sums, totals, factor, of_scores, of_targets;
    int rows, classes, add_scores, add_targets;
  } backward = {a_scores.pointer, a_targets.pointer, log_sums.pointer, totals.pointer, a_factor.pointer, d_scores.pointer,
                d_targets.pointer, rows, classes, 0, 0};
  Device::check(device.launch("soft_cross_entropy_gradient_f32", {unsigned(rows), 1, 1}, 256, 0, {&backward}), what);
  expect_near(widened<F32>(d_scores.values()), of_scores, F32::TOLERANCE, what + "gradients");
  std::vector<double> found = widened<F32>(d_targets.values());
  for (size_t i = 0; i < count; i++)
    if (targets[i] == 0) found[i] = 0;
  expect_near(found, of_targets, F32::TOLERANCE, what + "gradients of the distributions");
  backward.of_scores = added.pointer, backward.add_scores = 1, backward.of_targets = 0;
  Device::check(device.launch("soft_cross_entropy_gradient_f32", {unsigned(rows), 1, 1}, 256, 0, {&backward}), what);
  expect_added(added.values(), before, d_scores.values(), what + "gradients");
}

int main(int count, char** arguments) {
  try {
    Device device(count - 1, arguments + 1);
    for (double size : {1.0, 1e4}) {
      run<F32>(device, 3, size);
      run<F32>(device, 1000, size);
      run<Bf16>(device, 700, size);
      run<F32>(device, 300, size, true);
      run<F32>(device, 5, size, true);
      run<Bf16>(device, 700, size, true);
    }
    for (int classes : {5, 700}) soft(device, classes);
    printf("cross_entropy: ok\n");
    return 0;
  } catch (std::exception& error) {
    printf("cross_entropy: FAILED: %s\n", error.what());
    return 1;
  }
}
