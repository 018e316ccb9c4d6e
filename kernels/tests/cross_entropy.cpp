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

template <class Type> static void run(const Device& device, int classes, double size) {
  using T = typename Type::Stored;
  std::string what = Type::NAME + std::string(", ") + std::to_string(classes) + " classes: ";
  std::vector<int64_t> labels = {0, classes - 1, -100, classes / 2, 0, classes - 1};
  int rows = int(labels.size()), row = classes + 3;
  std::vector<T> scores = normal<Type>(size_t(rows) * row, 1);
  for (T& score : scores) score = Type::store(Type::widen(score) * size);
  float factor = 0.25f;
  std::vector<double> losses(rows), gradients(scores.size());
  for (int r = 0; r < rows; r++) {
    auto at = [&](int c) { return Type::widen(scores[size_t(r) * row + c]); };
    double largest = at(0), sum = 0;
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

int main(int count, char** arguments) {
  try {
    Device device(count - 1, arguments + 1);
    for (double size : {1.0, 1e4}) {
      run<F32>(device, 3, size);
      run<F32>(device, 1000, size);
      run<Bf16>(device, 700, size);
    }
    printf("cross_entropy: ok\n");
    return 0;
  } catch (std::exception& error) {
    printf("cross_entropy: FAILED: %s\n", error.what());
    return 1;
  }
}
