// Settings of the emulator, from the environment.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emu {

struct Settings {
  uint64_t seed;       // CLOZE_EMU_SEED: 0 (the default) runs threads in order, other seeds in a random order; with
                       // an even seed, streams work as late as they may (with 2, 6, .. those first for which nobody
                       // waits), with an odd one at once
  unsigned workers;    // CLOZE_EMU_WORKERS: host threads that run blocks; by default one per core
  size_t memory;       // CLOZE_EMU_MEMORY: device memory in bytes; by default 4 GiB
  int architecture;    // CLOZE_EMU_ARCH: compute capability times ten, such as 75, 80 or 90; by default 80
  int devices;         // CLOZE_EMU_DEVICES: how many devices there are; by default 1
  bool idle;           // CLOZE_EMU_IDLE: 1 for a device that checks what it is given and computes nothing
  int driver;          // CLOZE_EMU_DRIVER: the driver's CUDA version, such as 12090; by default 13000
  uint64_t fails;      // CLOZE_EMU_FAILS: the number of the driver's call that fails, from 1; by default 0, none
  int error;           // CLOZE_EMU_ERROR: the error that it returns; by default 2, out of memory
};

const Settings& settings();

}  // namespace emu
