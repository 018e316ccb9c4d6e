// What sm_90a has beyond the rest: mbarriers, tiles copied by TMA, products of a warpgroup.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda.hpp"
#include "race.hpp"

namespace emu {

// The 8 bytes of a barrier in shared memory. A phase ends when nobody and no byte is awaited any more.
struct Mbarrier {
  uint16_t arrivals, pending;
  int32_t bytes : 31;
  uint32_t phase : 1;
};
static_assert(sizeof(Mbarrier) == 8);

struct TileCopy {
  uint8_t* to;
  TensorMap map;
  Mbarrier* barrier;
  int column, row;
  race::Issued issued;
};

// One product, of which each of the 128 threads holds a part of the result.
struct Product {
  uint64_t a, b;
  bool a_across, b_across;
  uint32_t columns;
  bool accumulate;
  uint32_t issued;
  float* d[128];
};

// The products of a warpgroup in the order of issue; the first of them is number `first`.
struct Warpgroup {
  std::vector<Product> products;
  uint64_t first = 0, done = 0;
};

// How many products a thread issued, and after how many each group ended that it committed.
struct WgmmaIssues {
  uint64_t issued = 0;
  std::vector<uint64_t> groups;
};

struct Hopper {
  std::vector<TileCopy> copies;
  Warpgroup warpgroups[8];
  void reset();
};

}  // namespace emu
