// Lanes of a warp that meet.
#pragma once

#include <cstdint>

#include "cuda.hpp"

namespace emu {

// Where the lanes of one mask meet. What they give has two places in turns: a lane that is quick may give again before a
// slow one has read.
struct Meeting {
  uint32_t mask = 0, arrived = 0, turn = 0;
  alignas(64) uint8_t slots[2][32 * SLOT];
  // Computed once by the lane that comes last.
  alignas(64) float product[2][16 * 8];
};

class Warp {
 public:
  void reset();
  // Whether others wait for a lane.
  bool awaits(uint32_t lane) const;
  // The place of a mask. Parts of a warp that diverged may meet at the same time; `nullptr` if more than four do.
  Meeting* of(uint32_t mask);

 private:
  Meeting meetings_[4];
};

}  // namespace emu
