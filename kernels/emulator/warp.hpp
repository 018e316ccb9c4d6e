// Lanes of a warp that exchange values: shuffles, votes, ldmatrix and mma.
#pragma once

#include <cstdint>

#include "cuda.hpp"

namespace emu {

// The meeting point of the lanes of one mask. There are two sets of slots in turns, because a fast lane may pass its next value
// before a slow one has read the previous ones.
struct Meeting {
  uint32_t mask = 0, arrived = 0, turn = 0;
  alignas(64) uint8_t slots[2][32 * SLOT];
  // The result of mma, computed once, by the last lane to arrive.
  alignas(64) float product[2][16 * 8];
};

class Warp {
 public:
  void reset();
  // Returns whether other lanes wait for this one.
  bool awaits(uint32_t lane) const;
  // Returns the meeting point of a mask. Diverged parts of a warp may meet concurrently, but at most four of them: null
  // for a fifth.
  Meeting* of(uint32_t mask);

 private:
  Meeting meetings_[4];
};

}  // namespace emu
