// Matrix products C = A B on tensor cores, A [m, k] and B [k, n] in bf16 or f16, sums in f32, C in bf16 or f32: the forward,
// input gradient and weight gradient of a linear layer.
//
// Either operand may be contiguous along k or across it: `ldmatrix` transposes where necessary, so no operand is
// copied. A block computes 128 x 128 of C from pieces of 32 along k, which `cp.async` brings into a ring of four: while
// one piece is multiplied, the next three are on their way, which hides the latency of memory. Eight warps compute 64 x
// 32 each. Rows in shared memory are swizzled by chunks of 16 bytes, so that the eight rows that `ldmatrix` reads
// together lie in different banks.
//
// Rows of A and B must start at multiples of 16 bytes; the host pads matrices whose rows do not.
#include "epilogue.cuh"

constexpr int TILE_M = 128, TILE_N = TILE_COLUMNS, TILE_K = 32, STAGES = 4, THREADS = 256;
constexpr int OPERAND = 128 * TILE_K;  // elements of a piece of A or B
// The finished product, in f32, takes the place of the ring.
static_assert(STAGES * 2 * OPERAND * sizeof(uint16_t) == TILE_M * TILE_N * sizeof(float), "shared memory serves both");

template <class T, class C> struct GemmArguments {
  const T *a, *b;
  size_t batch_a, batch_b;  // elements from product to product
  int row_a, row_b;         // elements from row to row, of the matrix as stored
  ProductArguments<C> product;
};

// A piece of an operand in shared memory: [128, 32] if the operand is contiguous along k, else [32, 128].
template <bool ALONG_K, class T> DEVICE T* chunk_at(T* piece, int row, int chunk) {
  if (ALONG_K) return piece + row * 32 + (chunk ^ (row / 2 & 3)) * 8;
  return piece + row * 128 + (chunk ^ (row & 7)) * 8;
}

// Fetches the piece from `first` of `outer` (m or n) and `at` of k on; elements outside the matrix become zero.
template <bool ALONG_K, class T> DEVICE void fetch(T* piece, const T* from, int first, int outer, int at, int k, int row) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    int id = i * THREADS + int(threadIdx.x);
    int r = ALONG_K ? id / 4 : id / 16, chunk = ALONG_K ? id % 4 : id % 16;
    int of_row = (ALONG_K ? first : at) + r, of_column = (ALONG_K ? at : first) + chunk * 8;
    bool inside = of_row < (ALONG_K ? outer : k) && of_column < (ALONG_K ? k : outer);
    copy_async(chunk_at<ALONG_K>(piece, r, chunk), from + (inside ? size_t(of_row) * row + of_column : 0), inside);
  }
}

template <bool A_ALONG_K, bool B_ALONG_K, class T, class C> DEVICE void gemm(const GemmArguments<T, C>& g) {
  SHARED_MEMORY(memory);
  T* ring = reinterpret_cast<T*>(memory);
  const T* a = g.a + blockIdx.z * g.batch_a;
  const T* b = g.b + blockIdx.z * g.batch_b;
  int first_m = int(blockIdx.y) * TILE_M, first_n = int(blockIdx.x) * TILE_N;
  constexpr bool IS_GRADIENT = !A_ALONG_K;  // that of a weight
  const ProductArguments<C> to = in_layer<IS_GRADIENT>(g.product, first_m, first_n);
  if (B_ALONG_K) b += size_t(to.stack.before(first_n)) * to.stack.between * g.row_b;
  bool has_sums = IS_GRADIENT && to.row_sums && blockIdx.x == 0;
  int first_k = int(blockIdx.z) * to.split, end_k = to.split ? min(first_k + to.split, to.k) : to.k;
  int pieces = (end_k - first_k + TILE_K - 1) / TILE_K;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int warp_m = warp / 4 * 64, warp_n = warp % 4 * 32;

  // A stack along k is left layer by layer.
  constexpr bool STACKS_ALONG_K = A_ALONG_K && !B_ALONG_K;
  int before = STACKS_ALONG_K ? to.stack.before(first_k) : 0, end_of_layer = (before + 1) * to.stack.rows;
  b += size_t(before) * to.stack.between * g.row_b;
  auto fetch_piece = [&](int piece) {
    if (piece < pieces) {
      T* stage = ring + piece % STAGES * 2 * OPERAND;
      int k = first_k + piece * TILE_K;
      if (STACKS_ALONG_K && to.stack.rows && k == end_of_layer) {
        end_of_layer += to.stack.rows;
        b += size_t(to.stack.between) * g.row_b;
      }
      fetch<A_ALONG_K>(stage, a, first_m, to.m, k, end_k, g.row_a);
      fetch<B_ALONG_K>(stage + OPERAND, b, first_n, to.n, k, end_k, g.row_b);
    }
    // Every piece is a group, even an empty one, so that the wait below counts correctly up to the end.
    copy_async_commit();
  };
#pragma unroll
  for (int piece = 0; piece < STAGES - 1; piece++) fetch_piece(piece);

  float sums[4][4][4] = {};
  // The sums of sixteen rows of A, which are products with ones. Four warps have the same 64 rows, and share them.
  float row_sums[4] = {};
  const uint32_t ones[2] = {pack(1.0f, 1.0f, T{}), pack(1.0f, 1.0f, T{})};
  for (int piece = 0; piece < pieces; piece++) {
    copy_async_wait<STAGES - 2>();
    __syncthreads();  // the piece has arrived for all threads, and none still reads the previous one, which is replaced now
    fetch_piece(piece + STAGES - 1);
    T* of_a = ring + piece % STAGES * 2 * OPERAND;
    T* of_b = of_a + OPERAND;
#pragma unroll
    for (int k = 0; k < TILE_K; k += 16) {
      uint32_t left[4][4], right[4][2];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int m = warp_m + i * 16;
        if (A_ALONG_K)
          load_matrices(left[i], chunk_at<true>(of_a, m + lane % 16, k / 8 + lane / 16));
        else
          load_matrices_transposed(left[i], chunk_at<false>(of_a, k + lane % 8 + lane / 16 * 8, m / 8 + lane / 8 % 2));
      }
      if (has_sums)
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (i == warp % 4) multiply(row_sums, left[i], ones, T{});
#pragma unroll
      for (int j = 0; j < 2; j++) {
        int n = warp_n + j * 16;
        uint32_t two[4];
        if (B_ALONG_K)
          load_matrices(two, chunk_at<true>(of_b, n + lane % 8 + lane / 16 * 8, k / 8 + lane / 8 % 2));
        else
          load_matrices_transposed(two, chunk_at<false>(of_b, k + lane % 16, n / 8 + lane / 16));
        right[2 * j][0] = two[0], right[2 * j][1] = two[1];
        right[2 * j + 1][0] = two[2], right[2 * j + 1][1] = two[3];
      }
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) multiply(sums[i][j], left[i], right[j], T{});
    }
  }
  copy_async_wait<0>();
  if (has_sums && lane % 4 == 0)
#pragma unroll
    for (int half = 0; half < 2; half++)
      write_row_sum(to, first_m + warp_m + warp % 4 * 16 + half * 8 + lane / 4, row_sums[2 * half]);

  __syncthreads();
  float* tile = reinterpret_cast<float*>(memory);
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int e = 0; e < 4; e++)
        tile[place_in_tile(warp_m + i * 16 + lane / 4 + e / 2 * 8, warp_n + j * 8 + lane % 4 * 2 + e % 2)] = sums[i][j][e];
  __syncthreads();
  static_assert(THREADS == WRITERS);
  write_tile(to, tile, TILE_M, first_m, first_n, threadIdx.x);
}

// Kernels are named after the layouts of A and B (n for [m, k] and [k, n] as usual, t for a transposed one), the type of the
// operands and that of C.
#define GEMM(name, a_along_k, b_along_k, T, C)                                                    \
  extern "C" __global__ void __launch_bounds__(THREADS) gemm_##name(GemmArguments<T, C> g) {      \
    gemm<a_along_k, b_along_k>(g);                                                                \
  }                                                                                               \
  EMU_KERNEL(gemm_##name)
#define GEMMS(T, of_c, C)                         \
  GEMM(nn_##T##_##of_c, true, false, T, C)        \
  GEMM(nt_##T##_##of_c, true, true, T, C)         \
  GEMM(tn_##T##_##of_c, false, false, T, C)
GEMMS(f16, f32, float)
#ifdef MULTIPLIES_BF16
GEMMS(bf16, f32, float)
GEMMS(bf16, bf16, bf16)
#endif
