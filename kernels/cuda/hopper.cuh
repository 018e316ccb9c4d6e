// The instructions of sm_90a: barriers that count arrivals and bytes (mbarrier), tiles copied by the tensor memory accelerator
// (TMA), and products of a warpgroup, four warps, with operands in shared memory (wgmma).
#pragma once

#include "platform.cuh"

#if defined(__CUDACC__)

// The driver's CUtensorMap, from cuTensorMapEncodeTiled; a kernel takes it as `const __grid_constant__ TensorMap`.
struct __align__(64) TensorMap {
  uint64_t opaque[16];
};

DEVICE void mbarrier_init(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// Makes initialised barriers visible to other threads and to TMA. A __syncthreads has to follow.
DEVICE void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory");
}
DEVICE void mbarrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Arrives, and makes the phase also wait for `bytes` bytes.
DEVICE void mbarrier_expect(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// Waits for a while; returns whether the phase of this parity is over.
DEVICE bool mbarrier_is_over(uint64_t* barrier, uint32_t parity) {
  uint32_t is_over;
  asm volatile(
      "{\n.reg .pred done;\nmbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\nselp.u32 %0, 1, 0, done;\n}"
      : "=r"(is_over)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return is_over != 0;
}
DEVICE uint64_t nanoseconds() {
  uint64_t now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
}
// Waits until the phase of this parity is over. A phase that has not ended after ten seconds never will, because a copy was
// refused or counted wrongly: the kernel then traps, and the next call of the driver fails, where it would hang otherwise.
DEVICE void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
  if (mbarrier_is_over(barrier, parity)) return;
  uint64_t start = nanoseconds();
  while (!mbarrier_is_over(barrier, parity))
    if (nanoseconds() - start > 10000000000ull) asm volatile("trap;");
}

// Copies the box at (column, row) to shared memory; the barrier counts its bytes as they arrive.
DEVICE void tma_load(void* to, const TensorMap* map, uint64_t* barrier, int column, int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
          shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row)
      : "memory");
}

DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING> DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// D = A B^T, or D += A B^T with `accumulate`: A 64 x 16, B 64 x 16 or 128 x 16, both bf16 in shared memory. An operand is
// contiguous along k, or across it.
template <bool A_ACROSS = false, bool B_ACROSS = false>
DEVICE void wgmma(float (&d)[32], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, p, 1, 1, %35, %36;\n}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
        "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "l"(a), "l"(b), "r"(accumulate), "n"(int(A_ACROSS)), "n"(int(B_ACROSS)));
}
template <bool A_ACROSS = false, bool B_ACROSS = false>
DEVICE void wgmma(float (&d)[64], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, p, 1, 1, %67, %68;\n}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
        "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
        "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
        "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
        "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "l"(a), "l"(b), "r"(accumulate), "n"(int(A_ACROSS)), "n"(int(B_ACROSS)));
}

#else

inline uint32_t shared_address(const void* at) { return uint32_t(static_cast<const uint8_t*>(at) - emu::shared_memory()); }
inline void mbarrier_init(uint64_t* barrier, int arrivals) { emu::mbarrier_init(barrier, uint32_t(arrivals)); }
inline void mbarrier_init_fence() {}
inline void mbarrier_arrive(uint64_t* barrier) { emu::mbarrier_arrive(barrier, 0); }
inline void mbarrier_expect(uint64_t* barrier, int bytes) { emu::mbarrier_arrive(barrier, uint32_t(bytes)); }
inline void mbarrier_wait(uint64_t* barrier, uint32_t parity) { emu::mbarrier_wait(barrier, parity); }
inline void tma_load(void* to, const TensorMap* map, uint64_t* barrier, int column, int row) {
  emu::tma_load(to, map, barrier, column, row);
}
inline void wgmma_fence() {}
inline void wgmma_commit() { emu::wgmma_commit(); }
template <int PENDING> void wgmma_wait() {
  emu::wgmma_wait(PENDING);
  // The emulator wrote the product to `d`, which the compiler cannot see.
  asm volatile("" ::: "memory");
}
template <bool A_ACROSS = false, bool B_ACROSS = false, int N>
void wgmma(float (&d)[N], uint64_t a, uint64_t b, int accumulate) {
  emu::wgmma(d, 2 * N, a, A_ACROSS, b, B_ACROSS, accumulate != 0);
}

#endif

// The descriptor of a wgmma operand: lines of 64 16-bit numbers, 128 bytes with the 128-byte swizzle, in consecutive
// groups of 8 lines. If the operand is contiguous along k, a line is a row, and adding 2 to the descriptor advances by
// 16 along k. If it is contiguous across k, a line has one k, the next 64 rows follow after 64 lines, and adding 128
// advances by 16 along k.
template <bool ACROSS = false> DEVICE uint64_t wgmma_operand(const void* at) {
  uint64_t start = (shared_address(at) & 0x3ffff) >> 4, group = 1024 >> 4, swizzle_128 = 1;
  uint64_t next_rows = ACROSS ? 64 * 128 >> 4 : 1;
  return start | next_rows << 16 | group << 32 | swizzle_128 << 62;
}
