// Matrix products C = A B on the tensor cores of sm_90a, the same products as in gemm.cu: A [m, k] and B [k, n] in
// bf16, sums in f32, C in bf16 or f32.
//
// A block computes 128 x 128 of C from pieces of 64 along k in a ring of three. A producer, one thread of a separate warp, has
// the tensor memory accelerator (TMA) fetch them, four tiles of 64 x 64 per piece. Two warpgroups multiply them, 64 x 128 each,
// with wgmma, which reads its operands directly from shared memory. Mbarriers say which stages are full and which are empty.
// Either operand may be contiguous along k or across it: TMA copies lines of 64 numbers in memory order, and the operand
// descriptors of wgmma say which way they run. Elements outside a matrix arrive as zeros. With 97 KiB of shared memory and 288
// threads of at most 112 registers two blocks fit on a multiprocessor: while one writes its result, the other multiplies.
//
// Rows of A and B must start at multiples of 16 bytes; the host pads matrices whose rows do not.
#include "epilogue.cuh"
#include "hopper.cuh"

constexpr int TILE_M = 128, TILE_N = TILE_COLUMNS, TILE_K = 64, STAGES = 3;
constexpr int CONSUMERS = 256, THREADS = CONSUMERS + 32;
constexpr int BOX = 64;  // the side of a tile that TMA copies

struct Piece {
  bf16 a[2][BOX * BOX], b[2][BOX * BOX];
};
struct Ring {
  Piece pieces[STAGES];
  uint64_t full[STAGES], empty[STAGES];
};
// The finished product, in f32, takes the place of the ring.
static_assert(STAGES * sizeof(Piece) >= TILE_M * TILE_N * sizeof(float), "shared memory serves both");

// Fetches the two boxes of an operand, from `first` (of m or n) and `k` on.
template <bool ALONG_K> DEVICE void fetch(bf16 (&to)[2][BOX * BOX], const TensorMap* from, uint64_t* full, int first, int k) {
#pragma unroll
  for (int i = 0; i < 2; i++)
    tma_load(to[i], from, full, ALONG_K ? k : first + i * BOX, ALONG_K ? first + i * BOX : k);
}

// The sums of the rows of A, where it lies across k, are those of the lines of its boxes. A warpgroup sums the box that it multiplies:
// a thread every sixteenth line, of eight rows.
constexpr int SHARERS = 16, ROWS = 8;
DEVICE void add_rows(float (&sums)[ROWS], const bf16* box) {
  int thread = threadIdx.x % 128, chunk = thread % 8;
#pragma unroll
  for (int i = 0; i < BOX / SHARERS; i++) {
    int line = thread / 8 + i * SHARERS;
    float x[ROWS];
    load(x, box + line * BOX + (chunk ^ (line & 7)) * 8);
#pragma unroll
    for (int j = 0; j < ROWS; j++) sums[j] += x[j];
  }
}

// Where the sums of threads meet, behind the finished product: [2 boxes, SHARERS, BOX].
DEVICE float* shared_sums(unsigned char* memory) { return reinterpret_cast<float*>(memory) + TILE_M * TILE_N; }
static_assert(TILE_M * TILE_N * 4 + 2 * SHARERS * BOX * 4 <= STAGES * sizeof(Piece), "both fit into the ring");
DEVICE void share_sums(float* shared, const float (&sums)[ROWS]) {
  float* to = shared + threadIdx.x / 8 * BOX + threadIdx.x % 8 * ROWS;
#pragma unroll
  for (int i = 0; i < ROWS; i++) to[i] = sums[i];
}
DEVICE float sum_of_row(const float* shared, int row) {
  float sum = 0;
  for (int sharer = 0; sharer < SHARERS; sharer++) sum += shared[(row / BOX * SHARERS + sharer) * BOX + row % BOX];
  return sum;
}

template <bool A_ALONG_K, bool B_ALONG_K, class C>
DEVICE void gemm(const TensorMap* a, const TensorMap* b, const ProductArguments<C>& of_grid) {
  SHARED_MEMORY(memory);
  Ring& ring = *reinterpret_cast<Ring*>(memory);
  int first_m = int(blockIdx.y) * TILE_M, first_n = int(blockIdx.x) * TILE_N;
  constexpr bool IS_GRADIENT = !A_ALONG_K;  // that of a weight
  const ProductArguments<C> product = in_layer<IS_GRADIENT>(of_grid, first_m, first_n);
  const Stack& stack = product.stack;
  bool has_sums = IS_GRADIENT && product.row_sums && blockIdx.x == 0;
  int first_k = int(blockIdx.z) * product.split;
  int end_k = product.split ? min(first_k + product.split, product.k) : product.k;
  int pieces = (end_k - first_k + TILE_K - 1) / TILE_K;
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; stage++) {
      mbarrier_init(&ring.full[stage], 1);
      mbarrier_init(&ring.empty[stage], CONSUMERS / 32);
    }
    mbarrier_init_fence();
  }
  __syncthreads();

  if (warp == CONSUMERS / 32) {
    if (lane == 0)
      for (int piece = 0; piece < pieces; piece++) {
        int at = piece % STAGES, k = first_k + piece * TILE_K;
        if (piece >= STAGES) mbarrier_wait(&ring.empty[at], uint32_t(piece / STAGES - 1) & 1);
        mbarrier_expect(&ring.full[at], int(sizeof(Piece)));
        fetch<A_ALONG_K>(ring.pieces[at].a, a, &ring.full[at], first_m, k);
        int of_n = first_n, of_k = k;
        if (B_ALONG_K) of_n += stack.before(first_n) * stack.between;
        if (A_ALONG_K && !B_ALONG_K) of_k += stack.before(k) * stack.between;
        fetch<B_ALONG_K>(ring.pieces[at].b, b, &ring.full[at], of_n, of_k);
      }
    return;
  }

  // The distance of 16 numbers along k, in the units of a descriptor.
  constexpr uint64_t STEP_A = A_ALONG_K ? 2 : 128, STEP_B = B_ALONG_K ? 2 : 128;
  float sums[64] = {}, row_sums[ROWS] = {};
  for (int piece = 0; piece < pieces; piece++) {
    int stage = piece % STAGES;
    mbarrier_wait(&ring.full[stage], uint32_t(piece / STAGES) & 1);
    uint64_t of_a = wgmma_operand<!A_ALONG_K>(ring.pieces[stage].a[warp / 4]);
    uint64_t of_b = wgmma_operand<!B_ALONG_K>(ring.pieces[stage].b);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < TILE_K / 16; k++)
      wgmma<!A_ALONG_K, !B_ALONG_K>(sums, of_a + k * STEP_A, of_b + k * STEP_B, piece + k > 0);
    wgmma_commit();
    // The previous piece has been multiplied, so its stage is empty, once all lanes have summed it.
    wgmma_wait<1>();
    if (has_sums) __syncwarp();
    if (piece > 0 && lane == 0) mbarrier_arrive(&ring.empty[(piece - 1) % STAGES]);
    if (has_sums) add_rows(row_sums, ring.pieces[stage].a[warp / 4]);
  }
  wgmma_wait<0>();

  // After this barrier no product still reads the ring, and no copy still writes to it.
  barrier_of(1, CONSUMERS);
  float* tile = reinterpret_cast<float*>(memory);
#pragma unroll
  for (int i = 0; i < 64; i++)
    tile[place_in_tile(warp * 16 + lane / 4 + i % 4 / 2 * 8, i / 4 * 8 + lane % 4 * 2 + i % 2)] = sums[i];
  if (has_sums) share_sums(shared_sums(memory), row_sums);
  barrier_of(1, CONSUMERS);
  static_assert(CONSUMERS == WRITERS);
  write_tile(product, tile, TILE_M, first_m, first_n, threadIdx.x);
  int row = threadIdx.x;
  if (has_sums && row < TILE_M) write_row_sum(product, first_m + row, sum_of_row(shared_sums(memory), row));
}

// Kernels are named as in gemm.cu.
#define GEMM_OF(name, a_along_k, b_along_k, C)                                                                     \
  extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                         \
      name(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, ProductArguments<C> product) { \
    gemm<a_along_k, b_along_k>(&a, &b, product);                                                                   \
  }                                                                                                                \
  EMU_KERNEL(name)
#define GEMM(name, a_along_k, b_along_k)                             \
  GEMM_OF(gemm_hopper_##name##_bf16_bf16, a_along_k, b_along_k, bf16)     \
  GEMM_OF(gemm_hopper_##name##_bf16_f32, a_along_k, b_along_k, float)
GEMM(nn, true, false)
GEMM(nt, true, true)
GEMM(tn, false, false)
