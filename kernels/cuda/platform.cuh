// The dialect that all kernels are written in: CUDA C++ and PTX if NVIDIA's compiler reads it, the emulator's functions
// if g++ does.
//
// It includes no NVIDIA header, so NVRTC alone compiles the kernels.
#pragma once

#if defined(__CUDACC__)

typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
typedef long long int64_t;
#define DEVICE __device__ __forceinline__
// A kernel is looked up by its name. EMU_KERNEL(name) after its body registers it with the emulator.
#define KERNEL(name) extern "C" __global__ void name
#define EMU_KERNEL(name)
// The block's shared memory; the launch sets its size.
#define SHARED_MEMORY(name) extern __shared__ __align__(1024) unsigned char name[]

#else

#include "../emulator/cuda.hpp"
#define DEVICE inline
#define KERNEL(name) extern "C" void name
#define SHARED_MEMORY(name) unsigned char* name = emu::shared_memory()

#endif

constexpr uint32_t ALL_LANES = 0xffffffffu;

// 16-bit floats.

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

DEVICE float to_f32(float x) { return x; }
DEVICE float to_f32(bf16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }

#if defined(__CUDACC__)

// Two bf16 in a register, the first in the low half, rounded to nearest even.
#if __CUDA_ARCH__ >= 800
DEVICE uint32_t pack_bf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
#else
DEVICE uint32_t bf16_bits(float x) {
  uint32_t bits = __float_as_uint(x);
  return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fffu : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
DEVICE uint32_t pack_bf16(float low, float high) { return bf16_bits(low) | bf16_bits(high) << 16; }
#endif
DEVICE uint16_t f16_bits(float x) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
DEVICE float to_f32(f16 x) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
}
// 2^x, within 2 units in the last place.
DEVICE float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// 1 / x, within 1 unit in the last place.
DEVICE float reciprocal_fast(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#else

inline uint16_t bf16_bits(float x) {
  uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline uint32_t pack_bf16(float low, float high) { return bf16_bits(low) | uint32_t(bf16_bits(high)) << 16; }
inline uint16_t f16_bits(float x) { return std::bit_cast<uint16_t>(_Float16(x)); }
inline float to_f32(f16 x) { return float(std::bit_cast<_Float16>(x.bits)); }
inline float exp2_fast(float x) { return exp2f(x); }
inline float reciprocal_fast(float x) { return 1.0f / x; }

#endif

DEVICE bf16 to_bf16(float x) { return bf16{uint16_t(pack_bf16(x, 0.0f))}; }
DEVICE f16 to_f16(float x) { return f16{f16_bits(x)}; }
DEVICE uint32_t pack(float low, float high, bf16) { return pack_bf16(low, high); }
DEVICE uint32_t pack(float low, float high, f16) { return f16_bits(low) | uint32_t(f16_bits(high)) << 16; }

// Tensor cores and asynchronous copies.

// The tensor cores of Turing, sm_75, multiply only f16.
#if !defined(__CUDACC__) || __CUDA_ARCH__ >= 800
#define MULTIPLIES_BF16
#endif

#if defined(__CUDACC__)

DEVICE uint32_t shared_address(const void* at) { return uint32_t(__cvta_generic_to_shared(at)); }

#ifdef MULTIPLIES_BF16
// C += A B, A 16 x 16 and B 16 x 8. Lane 4 r + t holds rows r and r + 8 of A and C and column r of B: of C the columns 2 t and
// 2 t + 1, of A and B the elements along k with these numbers and 8 more.
DEVICE void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bf16) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], f16) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
// The same as two products, each of half of k.
DEVICE void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], f16) {
#pragma unroll
  for (int half = 0; half < 2; half++)
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
}
#endif

// Loads four 8 x 8 matrices of 16-bit numbers from shared memory; lane l passes the address of row l % 8 of matrix l / 8.
DEVICE void load_matrices(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
DEVICE void load_matrices_transposed(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}

#ifdef MULTIPLIES_BF16
// Copies 16 bytes to shared memory, or fills them with zeros if the source is outside its matrix.
DEVICE void copy_async(void* to, const void* from, bool is_inside) {
  int read = is_inside ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(read)
               : "memory");
}
DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most PENDING of the thread's groups have not arrived.
template <int PENDING> DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
#else
// Without cp.async, copies are synchronous.
DEVICE void copy_async(void* to, const void* from, bool is_inside) {
  *reinterpret_cast<uint4*>(to) = is_inside ? *reinterpret_cast<const uint4*>(from) : uint4{0, 0, 0, 0};
}
DEVICE void copy_async_commit() {}
template <int PENDING> DEVICE void copy_async_wait() {}
#endif
// A barrier of `threads` threads of the block. Concurrent barriers need different ids, from 1 to 15.
DEVICE void barrier_of(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

#else

inline void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bf16) {
  emu::multiply(c, a, b, emu::Half::BF16);
}
inline void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], f16) {
  emu::multiply(c, a, b, emu::Half::F16);
}
inline void load_matrices(uint32_t (&to)[4], const void* row) { emu::load_matrices(to, row, false); }
inline void load_matrices_transposed(uint32_t (&to)[4], const void* row) { emu::load_matrices(to, row, true); }
inline void copy_async(void* to, const void* from, bool is_inside) { emu::copy_async(to, from, 16, is_inside ? 16 : 0); }
inline void copy_async_commit() { emu::copy_async_commit(); }
template <int PENDING> void copy_async_wait() { emu::copy_async_wait(PENDING); }
inline void barrier_of(int id, int threads) { emu::barrier(uint32_t(id), uint32_t(threads)); }

#endif
