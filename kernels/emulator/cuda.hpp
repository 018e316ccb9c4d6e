// CUDA C++ for g++: the part of the emulator that kernels see. `platform.cuh` includes it if the compiler is not NVIDIA's.
//
// The functions here are thin wrappers. The implementation is in the .cpp files beside this one, which are compiled
// separately, so that the race checker instruments kernels but not the emulator.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__

struct uint3 { unsigned x, y, z; };
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };

// A descriptor of a two-dimensional tensor for TMA, with the size and alignment of the driver's CUtensorMap.
struct alignas(64) TensorMap {
  uint64_t base, size[2], row_bytes;
  uint32_t box[2], swizzle, element_bytes;
  uint64_t reserved[9];
};
static_assert(sizeof(TensorMap) == 128);

namespace emu {

// The coordinates of the running thread.
struct Place {
  uint3 thread, block;
  dim3 block_size, grid_size;
  uint32_t lane;
};
// The initial-exec model makes an access one load, even in a library that is opened at run time.
extern thread_local constinit Place* here __attribute__((tls_model("initial-exec")));

// The block's shared memory, filled with NaN when the block starts.
uint8_t* shared_memory();
// Fails unless `at` is a multiple of `bytes`, as vector loads and stores require.
void check_aligned(const void* at, size_t bytes);

// A barrier of all threads of the block or, if `threads` is not 0, of that many at barrier `id`.
void barrier(uint32_t id, uint32_t threads);

// Lets other threads run first, if the order is random.
void yield();

// The most bytes that a lane can pass to the others of its warp.
constexpr size_t SLOT = 32;
// Waits for the lanes of `mask`; returns what each of them passed, SLOT bytes per lane.
const uint8_t* exchange(uint32_t mask, const void* value, size_t bytes);
void warp_barrier(uint32_t mask);

// Asynchronous copies to shared memory, in groups. Of `bytes` bytes the first `read` are copied, the rest become zero.
void copy_async(void* to, const void* from, uint32_t bytes, uint32_t read);
void copy_async_commit();
void copy_async_wait(uint32_t pending);

// Tensor cores: loads four 8 x 8 matrices of 16-bit numbers; C += A B with A 16 x 16 and B 16 x 8.
enum class Half { F16, BF16 };
void load_matrices(uint32_t (&to)[4], const void* row, bool transposed);
void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Half type);

// Hopper: barriers in shared memory that count arrivals and bytes, copies of tiles by TMA, products of a warpgroup.
void mbarrier_init(uint64_t* barrier, uint32_t arrivals);
void mbarrier_arrive(uint64_t* barrier, uint32_t bytes_to_come);
void mbarrier_wait(uint64_t* barrier, uint32_t parity);
void tma_load(void* to, const TensorMap* map, uint64_t* barrier, int column, int row);
void wgmma(float* d, uint32_t columns, uint64_t a, bool a_across, uint64_t b, bool b_across, bool accumulate);
void wgmma_commit();
void wgmma_wait(uint32_t pending);

// A kernel. `bind` copies the arguments, as a launch does, and returns the function that every thread runs.
using Body = std::function<void()>;
struct Kernel {
  const char* name;
  Body (*bind)(void** arguments);
};
void add_kernel(const Kernel& kernel);
struct Registered {
  Registered(const char* name, Body (*bind)(void**)) { add_kernel({name, bind}); }
};
template <auto K> struct Binding;
template <class... P, void (*K)(P...)> struct Binding<K> {
  static Body bind(void** arguments) {
    return copy(arguments, std::index_sequence_for<P...>{});
  }
  template <size_t... I> static Body copy([[maybe_unused]] void** arguments, std::index_sequence<I...>) {
    std::tuple<std::remove_cv_t<P>...> values(*static_cast<std::remove_cv_t<P>*>(arguments[I])...);
    return [values] { std::apply(K, values); };
  }
};

template <class T> T of_lane(const uint8_t* slots, uint32_t lane) {
  T value;
  memcpy(&value, slots + lane * SLOT, sizeof(T));
  return value;
}
// Returns the value of lane `source`, or the lane's own value if the source is outside the mask or the segment.
template <class T> T shuffle(uint32_t mask, T value, uint32_t source, bool inside) {
  static_assert(sizeof(T) <= SLOT && std::is_trivially_copyable_v<T>);
  const uint8_t* slots = exchange(mask, &value, sizeof(T));
  return inside && (mask >> source & 1) ? of_lane<T>(slots, source) : value;
}

}  // namespace emu

#define EMU_KERNEL(kernel) static const emu::Registered emu_registered_##kernel(#kernel, &emu::Binding<&kernel>::bind);

#define threadIdx (emu::here->thread)
#define blockIdx (emu::here->block)
#define blockDim (emu::here->block_size)
#define gridDim (emu::here->grid_size)
static constexpr int warpSize = 32;

inline void __syncthreads() { emu::barrier(0, 0); }
inline void __syncwarp(unsigned mask = ~0u) { emu::warp_barrier(mask); }
inline void __threadfence() {}

template <class T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  return emu::shuffle(mask, value, (emu::here->lane & ~(width - 1)) | (lane & (width - 1)), true);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  uint32_t me = emu::here->lane, source = me ^ bits;
  return emu::shuffle(mask, value, source & 31, source < 32 && (source & ~(width - 1)) <= (me & ~(width - 1)));
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  uint32_t me = emu::here->lane;
  return emu::shuffle(mask, value, (me + delta) & 31, (me & (width - 1)) + delta < unsigned(width));
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  uint32_t me = emu::here->lane;
  return emu::shuffle(mask, value, (me - delta) & 31, (me & (width - 1)) >= delta);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint8_t* slots = emu::exchange(mask, &predicate, sizeof(int));
  unsigned votes = 0;
  for (uint32_t lane = 0; lane < 32; lane++)
    if ((mask >> lane & 1) && emu::of_lane<int>(slots, lane)) votes |= 1u << lane;
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

// Blocks run on several threads of the host, so these must be atomic on the host.
inline unsigned atomicAdd(unsigned* at, unsigned value) {
  emu::yield();
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
inline unsigned atomicMax(unsigned* at, unsigned value) {
  emu::yield();
  unsigned old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (old < value && !__atomic_compare_exchange_n(at, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

// The compiler must not contract the addition with a product that its operands come from.
inline float __fadd_rn(float a, float b) { return __builtin_assoc_barrier(a) + __builtin_assoc_barrier(b); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
template <class T> T __ldg(const T* at) { return *at; }
template <class T> constexpr T min(T a, T b) { return a < b ? a : b; }
template <class T> constexpr T max(T a, T b) { return a > b ? a : b; }
