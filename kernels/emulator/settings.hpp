// Settings of the emulator, from the environment.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emu {

struct Settings {
  uint64_t seed;       // CLOZE_EMU_SEED: 0 runs threads in their order, any other number in a random one of that number
  unsigned workers;    // CLOZE_EMU_WORKERS: threads of the host that blocks are spread over; all of them if nothing is said
  size_t memory;       // CLOZE_EMU_MEMORY: bytes of the device; 4 GiB
  int architecture;    // CLOZE_EMU_ARCH: its compute capability, 75, 80, 90; 80
  int driver;          // CLOZE_EMU_DRIVER: the driver's CUDA version, as 12090; 13000
};

const Settings& settings();

}  // namespace emu
