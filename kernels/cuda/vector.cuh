// Loads and stores of several neighbouring elements at a time, 16 bytes of memory or one element, as f32 in registers.
#pragma once

#include "platform.cuh"

// The number of elements in 16 bytes.
template <class T> constexpr int PER_16_BYTES = 16 / int(sizeof(T));

// A pointer for a load or store of a whole V; the address must be a multiple of its size, which the emulator checks.
template <class V, class T> DEVICE V* vector_at(T* at) {
#if !defined(__CUDACC__)
  emu::check_aligned(at, sizeof(V));
#endif
  return reinterpret_cast<V*>(at);
}

DEVICE void load(float (&to)[1], const float* from) { to[0] = *from; }
DEVICE void load(float (&to)[1], const bf16* from) { to[0] = to_f32(*from); }
DEVICE void load(float (&to)[2], const float* from) {
  float2 two = *vector_at<const float2>(from);
  to[0] = two.x, to[1] = two.y;
}
DEVICE void load(float (&to)[2], const bf16* from) {
  uint32_t pair = *vector_at<const uint32_t>(from);
  to[0] = __uint_as_float(pair << 16), to[1] = __uint_as_float(pair & 0xffff0000u);
}
DEVICE void load(float (&to)[4], const float* from) {
  float4 four = *vector_at<const float4>(from);
  to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}
DEVICE void load(float (&to)[4], const bf16* from) {
  uint2 pairs = *vector_at<const uint2>(from);
  to[0] = __uint_as_float(pairs.x << 16), to[1] = __uint_as_float(pairs.x & 0xffff0000u);
  to[2] = __uint_as_float(pairs.y << 16), to[3] = __uint_as_float(pairs.y & 0xffff0000u);
}
DEVICE void load(float (&to)[8], const bf16* from) {
  uint4 pairs = *vector_at<const uint4>(from);
  uint32_t words[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    to[2 * i] = __uint_as_float(words[i] << 16);
    to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
DEVICE void load(float (&to)[8], const f16* from) {
  uint4 pairs = *vector_at<const uint4>(from);
  uint32_t words[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
  for (int i = 0; i < 8; i++) to[i] = to_f32(f16{uint16_t(words[i / 2] >> i % 2 * 16)});
}
DEVICE void load(float (&to)[8], const float* from) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float4 four = vector_at<const float4>(from)[i];
    to[4 * i] = four.x, to[4 * i + 1] = four.y, to[4 * i + 2] = four.z, to[4 * i + 3] = four.w;
  }
}

DEVICE void store(float* to, const float (&from)[1]) { *to = from[0]; }
DEVICE void store(bf16* to, const float (&from)[1]) { *to = to_bf16(from[0]); }
DEVICE void store(f16* to, const float (&from)[1]) { *to = to_f16(from[0]); }
DEVICE void store(float* to, const float (&from)[2]) { *vector_at<float2>(to) = float2{from[0], from[1]}; }
DEVICE void store(bf16* to, const float (&from)[2]) { *vector_at<uint32_t>(to) = pack_bf16(from[0], from[1]); }
DEVICE void store(float* to, const float (&from)[4]) {
  *vector_at<float4>(to) = float4{from[0], from[1], from[2], from[3]};
}
DEVICE void store(bf16* to, const float (&from)[4]) {
  *vector_at<uint2>(to) = uint2{pack_bf16(from[0], from[1]), pack_bf16(from[2], from[3])};
}
DEVICE void store(bf16* to, const float (&from)[8]) {
  *vector_at<uint4>(to) = uint4{pack_bf16(from[0], from[1]), pack_bf16(from[2], from[3]),
                                        pack_bf16(from[4], from[5]), pack_bf16(from[6], from[7])};
}

// Stores one value or, with `add`, adds it to the value in memory. __fadd_rn keeps the compiler from contracting the addition
// with the product that the value may come from: so accumulating here gives the same bits as storing the value elsewhere and
// adding it later.
template <class T> DEVICE void put(T* to, float value, int add) {
  store(to, {add ? __fadd_rn(to_f32(*to), value) : value});
}
// The same for N values.
template <class T, int N> DEVICE void put(T* to, const float (&values)[N], int add) {
  if (!add) return store(to, values);
  float sums[N];
  load(sums, to);
#pragma unroll
  for (int i = 0; i < N; i++) sums[i] = __fadd_rn(sums[i], values[i]);
  store(to, sums);
}

// The value after rounding to the type.
template <class T> DEVICE float rounded(float x);
template <> DEVICE float rounded<float>(float x) { return x; }
template <> DEVICE float rounded<bf16>(float x) { return to_f32(to_bf16(x)); }
