// Inputs for the tests, and comparisons of results with what they should be.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

struct F32 {
  using Stored = float;
  static constexpr const char* NAME = "f32";
  static constexpr double TOLERANCE = 5e-6;
  static float store(double x) { return float(x); }
  static double widen(float x) { return x; }
};

struct Bf16 {
  using Stored = uint16_t;
  static constexpr const char* NAME = "bf16";
  static constexpr double TOLERANCE = 2e-2;
  static uint16_t store(double x) {
    float value = float(x);
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
  static double widen(uint16_t x) {
    uint32_t bits = uint32_t(x) << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
  }
};

struct F16 {
  using Stored = uint16_t;
  static constexpr const char* NAME = "f16";
  static constexpr double TOLERANCE = 3e-3;
  static uint16_t store(double x) {
    _Float16 half = _Float16(float(x));
    uint16_t bits;
    memcpy(&bits, &half, 2);
    return bits;
  }
  static double widen(uint16_t x) {
    _Float16 half;
    memcpy(&half, &x, 2);
    return double(float(half));
  }
};

// Returns normally distributed numbers, rounded to the type.
template <class Type> std::vector<typename Type::Stored> normal(size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> distribution;
  std::vector<typename Type::Stored> values(count);
  for (auto& value : values) value = Type::store(distribution(generator));
  return values;
}

template <class Type> std::vector<double> widened(const std::vector<typename Type::Stored>& values) {
  std::vector<double> wide;
  for (auto value : values) wide.push_back(Type::widen(value));
  return wide;
}

// Fails unless all differ from `expected` by at most `tolerance` times the largest magnitude. NaN fails.
inline void expect_near(const std::vector<double>& found, const std::vector<double>& expected, double tolerance,
                        const std::string& what) {
  double largest = 1e-30, worst = 0;
  for (double x : expected) largest = std::fmax(largest, std::fabs(x));
  for (size_t i = 0; i < expected.size(); i++) {
    double difference = std::fabs(found[i] - expected[i]) / largest;
    // Once NaN, it stays NaN.
    if (!(difference <= worst)) worst = std::isnan(worst) ? worst : difference;
  }
  if (!(worst <= tolerance)) throw std::runtime_error(what + " differs by " + std::to_string(worst) + " of the largest");
}

// Fails unless a kernel that adds to `before` gave the bits of adding, afterwards, what it gives without.
inline void expect_added(const std::vector<float>& found, const std::vector<float>& before, const std::vector<float>& value,
                         const std::string& what) {
  for (size_t i = 0; i < found.size(); i++)
    if (volatile float sum = before[i] + value[i]; found[i] != sum)
      throw std::runtime_error(what + " adds " + std::to_string(value[i]) + " wrongly to " + std::to_string(before[i]));
}

// Returns the bytes that decide over 16 elements: Philox4x32-7.
inline std::vector<uint8_t> philox_bytes(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t seed) {
  uint32_t counter[4] = {c0, c1, c2, c3}, key[2] = {uint32_t(seed), uint32_t(seed >> 32)};
  for (int round = 0; round < 7; round++) {
    uint64_t left = uint64_t(counter[0]) * 0xD2511F53u, right = uint64_t(counter[2]) * 0xCD9E8D57u;
    uint32_t next[4] = {uint32_t(right >> 32) ^ counter[1] ^ key[0], uint32_t(right),
                        uint32_t(left >> 32) ^ counter[3] ^ key[1], uint32_t(left)};
    memcpy(counter, next, sizeof next);
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  std::vector<uint8_t> bytes;
  for (uint32_t word : counter)
    for (int i = 0; i < 4; i++) bytes.push_back(uint8_t(word >> 8 * i));
  return bytes;
}
