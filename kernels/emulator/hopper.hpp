// The features of sm_90a: mbarriers, tiles copied by TMA, products of a warpgroup (wgmma).
//
// All three are asynchronous on a device. The emulator performs each as late as the program allows: a tile arrives when
// a thread waits for its barrier, and a product is computed when a thread waits for it. So code that reads too early,
// or overwrites an operand too early, computes wrong numbers in every run.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda.hpp"
#include "race.hpp"

namespace emu {

// The 8 bytes of a barrier in shared memory. A phase ends when no arrival and no byte is outstanding.
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

// A product. Each of the 128 threads holds a part of the result.
struct Product {
  uint64_t a, b;
  bool a_across, b_across;
  uint32_t columns;
  bool accumulate;
  uint32_t issued;
  float* d[128];
};

// The products of a warpgroup in the order of issue. The first one in the list has number `first`.
struct Warpgroup {
  std::vector<Product> products;
  uint64_t first = 0, done = 0;
};

// The number of products that a thread has issued, and that number at the end of each committed group.
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
