#include "launch.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "race.hpp"
#include "settings.hpp"

namespace emu {

// Kernels register themselves before `main`, in an unspecified order, so the map is created on first use.
static std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> kernels;
  return kernels;
}

void add_kernel(const Kernel& kernel) { kernels()[kernel.name] = kernel; }

const Kernel* find_kernel(const std::string& name) {
  auto found = kernels().find(name);
  return found == kernels().end() ? nullptr : &found->second;
}

std::string launch(const Shape& shape, const Body& body) {
  uint64_t blocks = uint64_t(shape.grid.x) * shape.grid.y * shape.grid.z;
  if (blocks == 0) return "an empty grid";
  race::begin_launch();
  std::atomic<uint64_t> next = 0;
  std::mutex mutex;
  std::string error;
  std::atomic<bool> failed = false;
  auto fail = [&](const std::string& why) {
    std::lock_guard lock(mutex);
    if (error.empty()) error = why;
    failed = true;
  };
  auto work = [&] {
    // Stacks and shared memory are reused from launch to launch. The block is behind a pointer because a library that is
    // opened at run time gets little initial-exec thread-local memory, and `here` needs it.
    static thread_local std::unique_ptr<Block> own = std::make_unique<Block>();
    std::string wrong = own->prepare(shape);
    if (!wrong.empty()) return fail(wrong);
    for (uint64_t i; !failed && (i = next++) < blocks;) {
      // Odd seeds run the blocks in reverse.
      uint64_t b = settings().seed % 2 ? blocks - 1 - i : i;
      const dim3& grid = shape.grid;
      uint3 place = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / (uint64_t(grid.x) * grid.y))};
      std::string went_wrong = own->run(place, body);
      if (!went_wrong.empty()) fail(went_wrong);
    }
  };
  // The race checker handles one block at a time.
  uint64_t workers = race::is_on() ? 1 : std::min<uint64_t>(settings().workers, blocks);
  if (workers <= 1) {
    work();
  } else {
    std::vector<std::thread> threads;
    for (uint64_t i = 0; i < workers; i++) threads.emplace_back(work);
    for (std::thread& thread : threads) thread.join();
  }
  return error;
}

}  // namespace emu
