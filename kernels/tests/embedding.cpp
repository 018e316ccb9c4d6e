// embedding [CUBIN ..]: compares the kernels of embedding.cu with f64.
#include <map>

#include "device.hpp"
#include "numbers.hpp"

struct Embedding {
  Pointer word, position, token_type, ids, positions, token_types, z;
  int tokens, width;
};
struct Gather {
  Pointer x, ids, y;
  int rows, width, add;
};
struct Scatter {
  Pointer dz, order, starts, rows, gradient, partials;
  int width;
};

template <class Type> static void run(const Device& device, int width) {
  using T = typename Type::Stored;
  std::string what = Type::NAME + std::string(", width ") + std::to_string(width) + ": ";
  int words = 50, limit = 7, types = 2, tokens = 41;
  std::vector<uint32_t> ids, positions, token_types;
  for (int token = 0; token < tokens; token++) {
    ids.push_back(uint32_t(token * token % 13));
    positions.push_back(uint32_t(token % limit));
    token_types.push_back(uint32_t(token / 5 % 2));
  }
  auto word = normal<Type>(size_t(words) * width, 1), position = normal<Type>(size_t(limit) * width, 2),
       type = normal<Type>(size_t(types) * width, 3), dz = normal<Type>(size_t(tokens) * width, 4);
  auto gradient = normal<Type>(size_t(words) * width, 5);
  std::vector<double> z, sums = widened<Type>(gradient);
  std::map<uint32_t, std::vector<uint32_t>> of_rows;
  for (int token = 0; token < tokens; token++) {
    uint32_t row = ids[token], at = positions[token];
    of_rows[row].push_back(uint32_t(token));
    for (int c = 0; c < width; c++) {
      z.push_back(Type::widen(word[row * width + c]) + Type::widen(position[at * width + c]) +
                  Type::widen(type[token_types[token] * width + c]));
      sums[row * width + c] += Type::widen(dz[size_t(token) * width + c]);
    }
  }
  // Rows of more than five tokens are summed in two segments, and then over these.
  std::vector<uint32_t> order, starts = {0}, rows, of_segments = {0}, segmented;
  uint32_t partial = 0;
  for (auto& [row, of_row] : of_rows) {
    order.insert(order.end(), of_row.begin(), of_row.end());
    if (of_row.size() > 5) {
      starts.push_back(uint32_t(order.size()) - 3);
      rows.push_back(1u << 31 | partial++);
      segmented.push_back(row);
      of_segments.push_back(partial + 1);
    }
    starts.push_back(uint32_t(order.size()));
    rows.push_back(of_row.size() > 5 ? 1u << 31 | partial++ : row);
  }
  Array<T> of_word(device, word), of_position(device, position), of_type(device, type), of_z(device, z.size()), of_dz(device, dz);
  Array<uint32_t> of_ids(device, ids), of_positions(device, positions), of_types(device, token_types), of_order(device, order),
      of_starts(device, starts), rows_of(device, rows);
  Array<T> of_gradient(device, gradient);
  std::string type_name = Type::NAME;
  if constexpr (std::is_same_v<Type, F32>) {
    Embedding embedding = {of_word.pointer, of_position.pointer, of_type.pointer, of_ids.pointer, of_positions.pointer,
                           of_types.pointer, of_z.pointer, tokens, width};
    Device::check(device.launch("embed_f32", {unsigned(tokens + 3) / 4, 1, 1}, 128, 0, {&embedding}), what);
    expect_near(widened<F32>(of_z.values()), z, Type::TOLERANCE, what + "z");
  }
  std::vector<T> before = normal<Type>(size_t(tokens) * width, 6), rows_of_words;
  for (uint32_t id : ids) rows_of_words.insert(rows_of_words.end(), &word[id * width], &word[id * width] + width);
  Array<T> to(device, before);
  for (int add : {1, 0}) {
    Gather gather = {of_word.pointer, of_ids.pointer, to.pointer, tokens, width, add};
    Device::check(device.launch(("gather_" + type_name).c_str(), {unsigned(tokens + 3) / 4, 1, 1}, 128, 0, {&gather}), what);
    if constexpr (std::is_same_v<Type, F32>) {
      expect_added(to.values(), add ? before : std::vector<float>(before.size()), rows_of_words, what + "rows");
    } else {
      std::vector<double> rows_and_before = widened<Type>(rows_of_words);
      for (size_t i = 0; add && i < before.size(); i++) rows_and_before[i] += Type::widen(before[i]);
      expect_near(widened<Type>(to.values()), rows_and_before, add ? 4e-3 : 0, what + "rows");
    }
  }
  Array<float> partials(device, size_t(partial) * width);
  Array<uint32_t> segments(device, of_segments), of_segmented(device, segmented);
  Scatter scatter = {of_dz.pointer, of_order.pointer, of_starts.pointer, rows_of.pointer, of_gradient.pointer, partials.pointer, width};
  Device::check(device.launch(("scatter_sums_" + type_name + "_" + type_name).c_str(), {unsigned(rows.size()), 1, 1}, 128, 0, {&scatter}), what);
  scatter = {partials.pointer, 0, segments.pointer, of_segmented.pointer, of_gradient.pointer, 0, width};
  Device::check(device.launch(("scatter_sums_f32_" + type_name).c_str(), {unsigned(segmented.size()), 1, 1}, 128, 0, {&scatter}), what);
  // Rounded once for each launch that writes it.
  expect_near(widened<Type>(of_gradient.values()), sums, std::is_same_v<Type, F32> ? 2e-6 : 4e-3, what + "gradient");
}

int main(int count, char** arguments) {
  try {
    Device device(count - 1, arguments + 1);
    for (int width : {3, 32, 272}) {
      run<F32>(device, width);
      run<Bf16>(device, width);
    }
    printf("embedding: ok\n");
    return 0;
  } catch (std::exception& error) {
    printf("embedding: FAILED: %s\n", error.what());
    return 1;
  }
}
