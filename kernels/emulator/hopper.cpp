#include "hopper.hpp"

#include <string>

#include "block.hpp"
#include "settings.hpp"

namespace emu {

void Hopper::reset() {
  copies.clear();
  for (Warpgroup& warpgroup : warpgroups) warpgroup = {};
}

// Mbarriers and TMA.

static uint64_t key(const Mbarrier* barrier) { return uint64_t(reinterpret_cast<uintptr_t>(barrier)); }

static uint64_t key(const Warpgroup& warpgroup) { return uint64_t(reinterpret_cast<uintptr_t>(&warpgroup)); }

static void end_phase_if_complete(Mbarrier* barrier) {
  if (barrier->pending || barrier->bytes) return;
  barrier->phase ^= 1;
  race::end_phase(key(barrier));
  barrier->pending = barrier->arrivals;
  block->wake_all(Wait::Mbarrier, key(barrier));
}

// Writes a tile to shared memory. With the 128-byte swizzle, the 16-byte chunk c of the 128-byte line r is at c ^ (r % 8).
static void land(const TileCopy& copy) {
  const TensorMap& map = copy.map;
  uint32_t row_bytes = map.box[0] * map.element_bytes;
  for (uint32_t r = 0; r < map.box[1]; r++)
    for (uint32_t x = 0; x < row_bytes; x += map.element_bytes) {
      size_t offset = size_t(copy.to - block->shared) + r * row_bytes + x;
      if (map.swizzle == 3) offset ^= (offset >> 7 & 7) << 4;
      uint64_t row = uint64_t(copy.row + int64_t(r)), column = uint64_t(copy.column + int64_t(x / map.element_bytes));
      uint8_t* to = block->shared + offset;
      race::note_landed(copy.issued, to, map.element_bytes);
      if (row < map.size[1] && column < map.size[0])
        memcpy(to, reinterpret_cast<uint8_t*>(map.base) + row * map.row_bytes + column * map.element_bytes,
               map.element_bytes);
      else
        memset(to, 0, map.element_bytes);
    }
  race::say_of(copy.issued, key(copy.barrier));
  copy.barrier->bytes -= int32_t(row_bytes * map.box[1]);
  end_phase_if_complete(copy.barrier);
}

void mbarrier_init(uint64_t* at, uint32_t arrivals) {
  block->check_shared(at, 8, "mbarrier.init");
  *reinterpret_cast<Mbarrier*>(at) = {uint16_t(arrivals), uint16_t(arrivals), 0, 0};
}

void mbarrier_arrive(uint64_t* at, uint32_t bytes_to_come) {
  block->check_shared(at, 8, "mbarrier.arrive");
  auto* barrier = reinterpret_cast<Mbarrier*>(at);
  if (!barrier->pending) block->fail("mbarrier.arrive: more arrivals than the barrier was initialised for");
  barrier->bytes += int32_t(bytes_to_come);
  barrier->pending--;
  race::say(key(barrier));
  end_phase_if_complete(barrier);
  block->yield();
}

void mbarrier_wait(uint64_t* at, uint32_t parity) {
  block->check_shared(at, 8, "mbarrier.try_wait");
  auto* barrier = reinterpret_cast<Mbarrier*>(at);
  auto& copies = block->hopper.copies;
  while (barrier->phase == parity) {
    // Tiles arrive as late as possible: when a thread waits for them.
    size_t i = 0;
    while (i < copies.size() && copies[i].barrier != barrier) i++;
    if (i == copies.size()) {
      block->suspend(Wait::Mbarrier, key(barrier));
      continue;
    }
    TileCopy copy = copies[i];
    copies.erase(copies.begin() + ptrdiff_t(i));
    land(copy);
  }
  race::hear(key(barrier));
}

void tma_load(void* to, const TensorMap* map, uint64_t* barrier, int column, int row) {
  block->check_shared(to, 128, "cp.async.bulk.tensor");
  if (map->swizzle == 3 && map->box[0] * map->element_bytes > 128)
    block->fail("cp.async.bulk.tensor: a box wider than the 128 bytes of the swizzle");
  TileCopy copy = {static_cast<uint8_t*>(to), *map, reinterpret_cast<Mbarrier*>(barrier), column, row, race::issue()};
  // Or immediately, if the order is random.
  if (settings().seed && block->random() % 2) return land(copy);
  block->hopper.copies.push_back(copy);
  block->wake_all(Wait::Mbarrier, key(copy.barrier));
}

// Products. One is computed when all 128 threads have issued it and one of them waits for it: as late as possible.

// Reads an element of an operand: lines of 64 numbers, 128 bytes with the swizzle, in groups of 8 lines whose distance
// is in the descriptor. Usually a line is a row, along k. In an operand that is stored across k, a line has one k and
// runs along the rows; the descriptor then also holds the distance to the next 64 rows.
static float operand(uint64_t descriptor, bool is_across, uint32_t row, uint32_t k) {
  auto field = [descriptor](int bit) { return uint32_t(descriptor >> bit & 0x3fff) << 4; };
  uint32_t start = field(0), block_of_rows = field(16), group = field(32);
  uint32_t offset = is_across ? start + row / 64 * block_of_rows + k / 8 * group + k % 8 * 128 + row % 64 * 2
                              : start + row / 8 * group + row % 8 * 128 + k * 2;
  offset ^= (offset >> 7 & 7) << 4;
  if (offset + 2 > block->shared_bytes) block->fail("wgmma: a descriptor that points outside shared memory");
  race::note(block->shared + offset, 2, false);
  uint16_t half;
  memcpy(&half, block->shared + offset, 2);
  return std::bit_cast<float>(uint32_t(half) << 16);
}

// Computes D, 64 rows of `columns`. Warp w holds 16 rows from 16 w on, in the layout of mma for each eight columns.
static void compute(const Product& product) {
  float right[16][256];
  for (uint32_t column = 0; column < product.columns; column++)
    for (uint32_t k = 0; k < 16; k++) right[k][column] = operand(product.b, product.b_across, column, k);
  for (uint32_t row = 0; row < 64; row++) {
    float sums[256] = {};
    for (uint32_t k = 0; k < 16; k++) {
      float left = operand(product.a, product.a_across, row, k);
      for (uint32_t column = 0; column < product.columns; column++) sums[column] += left * right[k][column];
    }
    for (uint32_t column = 0; column < product.columns; column++) {
      uint32_t thread = row / 16 * 32 + row % 8 * 4 + column % 8 / 2;
      float& d = product.d[thread][column / 8 * 4 + row % 16 / 8 * 2 + column % 2];
      d = (product.accumulate ? d : 0.0f) + sums[column];
    }
  }
}

void wgmma(float* d, uint32_t columns, uint64_t a, bool a_across, uint64_t b, bool b_across, bool accumulate) {
  if (a >> 62 != 1 || b >> 62 != 1) block->fail("wgmma: a descriptor without the 128-byte swizzle; no other is emulated");
  Thread& me = self();
  uint32_t group = me.number / 128;
  Warpgroup& warpgroup = block->hopper.warpgroups[group];
  uint64_t number = me.wgmma.issued++;
  if (number - warpgroup.first == warpgroup.products.size())
    warpgroup.products.push_back({a, b, a_across, b_across, columns, accumulate, 0, {}});
  Product& product = warpgroup.products[number - warpgroup.first];
  if (product.a != a || product.b != b || product.columns != columns || product.accumulate != accumulate)
    block->fail("wgmma: the threads of a warpgroup issue different products");
  product.d[me.number % 128] = d;
  if (++product.issued == 128) block->wake_all(Wait::Wgmma, group);
}

void wgmma_commit() { self().wgmma.groups.push_back(self().wgmma.issued); }

void wgmma_wait(uint32_t pending) {
  Thread& me = self();
  auto& groups = me.wgmma.groups;
  if (groups.size() <= pending) return;
  size_t over = groups.size() - pending;
  uint64_t target = groups[over - 1];
  uint32_t group = me.number / 128;
  Warpgroup& warpgroup = block->hopper.warpgroups[group];
  while (warpgroup.done < target) {
    const Product& next = warpgroup.products[warpgroup.done - warpgroup.first];
    if (next.issued < 128) {
      block->suspend(Wait::Wgmma, group);
      continue;
    }
    // A product belongs to the warpgroup, whichever of its threads computes it here.
    race::hear(key(warpgroup));
    compute(next);
    race::say(key(warpgroup));
    race::end_phase(key(warpgroup));
    warpgroup.done++;
  }
  race::hear(key(warpgroup));
  // Forgets finished products, except for the last few, which slower threads may not have issued yet.
  if (warpgroup.done - warpgroup.first > 64) {
    warpgroup.products.erase(warpgroup.products.begin(), warpgroup.products.begin() + 48);
    warpgroup.first += 48;
  }
  groups.erase(groups.begin(), groups.begin() + ptrdiff_t(over));
  block->yield();
}

}  // namespace emu
