#include "settings.hpp"

#include <cstdlib>
#include <thread>

namespace emu {

static uint64_t read(const char* name, uint64_t otherwise) {
  const char* value = getenv(name);
  return value && *value ? strtoull(value, nullptr, 0) : otherwise;
}

const Settings& settings() {
  static const Settings settings = {
      .seed = read("CLOZE_EMU_SEED", 0),
      .workers = unsigned(read("CLOZE_EMU_WORKERS", std::thread::hardware_concurrency())),
      .memory = read("CLOZE_EMU_MEMORY", 4ull << 30),
      .architecture = int(read("CLOZE_EMU_ARCH", 80)),
      .devices = int(read("CLOZE_EMU_DEVICES", 1)),
      .idle = read("CLOZE_EMU_IDLE", 0) != 0,
      .driver = int(read("CLOZE_EMU_DRIVER", 13000)),
      .fails = read("CLOZE_EMU_FAILS", 0),
      .error = int(read("CLOZE_EMU_ERROR", 2)),
  };
  return settings;
}

}  // namespace emu
