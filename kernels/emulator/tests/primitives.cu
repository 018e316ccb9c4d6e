// A small kernel for each feature of the emulator. Compiled to a cubin, the same kernels run on a GPU.
//
// BUG, from 1 up, plants a bug that run.sh must find; 0 plants none.
#include "../../cuda/hopper.cuh"

#if !defined(BUG)
#define BUG 0
#endif

// Sums of the rows of x `[grid, columns]`: by each warp, then over the warps.
DEVICE float warp_sum(float x) {
  for (int lanes = 16; lanes; lanes /= 2) x += __shfl_xor_sync(ALL_LANES, x, lanes);
  return x;
}
DEVICE float block_sum(float x, float* of_warps) {
  x = warp_sum(x);
#if BUG != 1
  __syncthreads();  // the previous sum may still be read
#endif
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = x;
#if BUG != 2
  __syncthreads();
#endif
  return warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? of_warps[threadIdx.x % 32] : 0.0f);
}
KERNEL(row_sums)(const float* x, float* sums, float* sums_of_squares, int columns) {
  SHARED_MEMORY(memory);
  float* of_warps = reinterpret_cast<float*>(memory);
  float sum = 0, squares = 0;
  for (int c = threadIdx.x; c < columns; c += blockDim.x) {
    float value = x[blockIdx.x * columns + c];
    sum += value;
    squares += value * value;
  }
  sum = block_sum(sum, of_warps);
  squares = block_sum(squares, of_warps);
#if BUG == 3
  sums[0] = sum;  // written by every block
#endif
  if (threadIdx.x == 0) {
    sums[blockIdx.x] = sum;
    sums_of_squares[blockIdx.x] = squares;
  }
}
EMU_KERNEL(row_sums)

// The results of all exchanges between lanes, `[14, 32]`.
KERNEL(shuffles)(int* to) {
  int lane = threadIdx.x, mine = 100 + lane;
  auto put = [&](int row, int value) { to[row * 32 + lane] = value; };
  put(0, __shfl_sync(ALL_LANES, mine, 5));
  put(1, __shfl_sync(ALL_LANES, mine, lane + 3, 8));
  put(2, __shfl_xor_sync(ALL_LANES, mine, 6));
  put(3, __shfl_xor_sync(ALL_LANES, mine, 12, 8));
  put(4, __shfl_up_sync(ALL_LANES, mine, 3));
  put(5, __shfl_up_sync(ALL_LANES, mine, 3, 8));
  put(6, __shfl_down_sync(ALL_LANES, mine, 3));
  put(7, __shfl_down_sync(ALL_LANES, mine, 3, 8));
  put(8, int(__ballot_sync(ALL_LANES, lane % 3 == 0)));
  put(9, __any_sync(ALL_LANES, lane == 7) + 2 * __any_sync(ALL_LANES, lane == 77));
  put(10, __all_sync(ALL_LANES, lane < 32) + 2 * __all_sync(ALL_LANES, lane < 31));
  // The two halves of the warp diverge.
  if (lane < 16) {
    put(11, __shfl_xor_sync(0x0000ffffu, mine, 1));
    put(12, int(__ballot_sync(0x0000ffffu, lane & 1)));
  } else {
    put(11, __shfl_xor_sync(0xffff0000u, mine, 2));
    put(12, int(__ballot_sync(0xffff0000u, lane & 2)));
  }
  __syncwarp();
  put(13, __shfl_sync(ALL_LANES, mine, 31 - lane));
}
EMU_KERNEL(shuffles)

// C = A B by one warp: A `[16, 64]` row-major, B `[64, 16]` row-major (so it is loaded transposed), C `[16, 16]`.
template <class T> DEVICE void small_product(const T* a, const T* b, float* c) {
  SHARED_MEMORY(memory);
  T* left = reinterpret_cast<T*>(memory);
  T* right = left + 16 * 64;
  int lane = threadIdx.x;
  for (int chunk = lane; chunk < 128; chunk += 32) {
    copy_async(left + chunk * 8, a + chunk * 8, true);
    copy_async(right + chunk * 8, b + chunk * 8, true);
  }
  copy_async_commit();
#if BUG != 4
  copy_async_wait<0>();
#endif
#if BUG != 5
  __syncthreads();
#endif
  float sums[2][4] = {};
  for (int k = 0; k < 64; k += 16) {
    uint32_t of_left[4], of_right[4];
    load_matrices(of_left, left + (lane % 16) * 64 + k + lane / 16 * 8);
    load_matrices_transposed(of_right, right + (k + lane % 16) * 16 + lane / 16 * 8);
    uint32_t first[2] = {of_right[0], of_right[1]}, second[2] = {of_right[2], of_right[3]};
    multiply(sums[0], of_left, first, T{});
    multiply(sums[1], of_left, second, T{});
  }
  copy_async_wait<0>();
  for (int half = 0; half < 2; half++)
    for (int i = 0; i < 4; i++) c[(lane / 4 + i / 2 * 8) * 16 + half * 8 + lane % 4 * 2 + i % 2] = sums[half][i];
}
KERNEL(small_product_bf16)(const bf16* a, const bf16* b, float* c) { small_product(a, b, c); }
EMU_KERNEL(small_product_bf16)
KERNEL(small_product_f16)(const f16* a, const f16* b, float* c) { small_product(a, b, c); }
EMU_KERNEL(small_product_f16)

// Reverses x within each tile of 1024 floats, with 256 threads. While a tile is written, the next one is fetched. Elements past
// the end of the last tile count as 0.
KERNEL(reversed_tiles)(const float* x, float* y, int count, int tiles) {
  SHARED_MEMORY(memory);
  float* buffers = reinterpret_cast<float*>(memory);
  int thread = threadIdx.x;
  auto fetch = [&](int tile) {
    int at = tile * 1024 + thread * 4;
#if BUG == 6
    float* buffer = buffers;
#else
    float* buffer = buffers + tile % 2 * 1024;
#endif
    copy_async(buffer + thread * 4, x + (at < count ? at : 0), at < count);
    copy_async_commit();
  };
  fetch(0);
  for (int tile = 0; tile < tiles; tile++) {
    if (tile + 1 < tiles) {
      fetch(tile + 1);
#if BUG == 7
      copy_async_wait<2>();
#else
      copy_async_wait<1>();
#endif
    } else {
      copy_async_wait<0>();
    }
    __syncthreads();
#if BUG == 6
    float* buffer = buffers;
#else
    float* buffer = buffers + tile % 2 * 1024;
#endif
    for (int i = thread; i < 1024; i += 256) y[tile * 1024 + i] = buffer[1023 - i];
#if BUG != 8
    __syncthreads();  // before the buffer is overwritten
#endif
  }
}
EMU_KERNEL(reversed_tiles)

// The first warp produces numbers and the second consumes them, synchronised by two named barriers.
KERNEL(handed_over)(float* to, int rounds) {
  SHARED_MEMORY(memory);
  float* box = reinterpret_cast<float*>(memory);
  int lane = threadIdx.x % 32;
  if (threadIdx.x < 32) {
    for (int round = 0; round < rounds; round++) {
      if (round > 0) barrier_of(2, 64);
      box[lane] = float(round * 100 + lane);
      barrier_of(1, 64);
    }
  } else if (threadIdx.x < 64) {
    for (int round = 0; round < rounds; round++) {
#if BUG == 9
      if (round < 3) barrier_of(1, 64);
#else
      barrier_of(1, 64);
#endif
      to[round * 32 + lane] = box[31 - lane];
      if (round + 1 < rounds) barrier_of(2, 64);
    }
  }
  __syncthreads();
  if (threadIdx.x == 64) to[rounds * 32] = float(atomicAdd(reinterpret_cast<unsigned*>(to) + rounds * 32 + 1, 2u));
}
EMU_KERNEL(handed_over)

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ == 900

// C = A B^T in tiles of 64 x 64, A `[M, K]` and B `[N, K]` in bf16, C `[M, N]` in f32. One thread of the first
// warpgroup has TMA copy tiles into a ring of two, and the second warpgroup multiplies them. TMA fills the tails of M,
// N and K with zeros.
constexpr int TILE = 64, STAGES = 2;
struct Ring {
  bf16 a[STAGES][TILE * TILE], b[STAGES][TILE * TILE];
  uint64_t full[STAGES], empty[STAGES];
};
KERNEL(tile_product)(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, float* c, int rows, int columns,
                     int inner) {
  SHARED_MEMORY(memory);
  Ring& ring = *reinterpret_cast<Ring*>(memory);
  int row = blockIdx.y * TILE, column = blockIdx.x * TILE, steps = (inner + TILE - 1) / TILE;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; stage++) {
      mbarrier_init(&ring.full[stage], 1);
      mbarrier_init(&ring.empty[stage], 128);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    if (threadIdx.x == 0) {
      for (int step = 0; step < steps; step++) {
        int stage = step % STAGES;
#if BUG != 10
        mbarrier_wait(&ring.empty[stage], uint32_t(step / STAGES % 2 ^ 1));
#endif
#if BUG == 11
        mbarrier_expect(&ring.full[stage], TILE * TILE * 2);
#else
        mbarrier_expect(&ring.full[stage], 2 * TILE * TILE * 2);
#endif
        tma_load(ring.a[stage], &a, &ring.full[stage], step * TILE, row);
        tma_load(ring.b[stage], &b, &ring.full[stage], step * TILE, column);
      }
    }
    return;
  }
  float sums[32];
  for (int step = 0; step < steps; step++) {
    int stage = step % STAGES;
#if BUG != 12
    mbarrier_wait(&ring.full[stage], uint32_t(step / STAGES % 2));
#endif
    wgmma_fence();
    for (int k = 0; k < TILE; k += 16)
      wgmma(sums, wgmma_operand(ring.a[stage] + k), wgmma_operand(ring.b[stage] + k), step + k > 0);
    wgmma_commit();
#if BUG != 13
    wgmma_wait<0>();
#endif
    mbarrier_arrive(&ring.empty[stage]);
  }
  wgmma_wait<0>();
  int warp = (threadIdx.x - 128) / 32, lane = threadIdx.x % 32;
  for (int i = 0; i < 32; i++) {
    int r = row + warp * 16 + lane / 4 + i % 4 / 2 * 8, k = column + i / 4 * 8 + lane % 4 * 2 + i % 2;
    if (r < rows && k < columns) c[r * columns + k] = sums[i];
  }
}
EMU_KERNEL(tile_product)

#endif
