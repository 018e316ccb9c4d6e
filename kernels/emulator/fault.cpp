#include "fault.hpp"

#include <atomic>
#include <cstdint>

#include "settings.hpp"

namespace {

std::atomic<uint64_t> calls_left = emu::settings().fails;
std::atomic<int> error = emu::settings().error;

}  // namespace

int emu::fault() {
  // Most programs ask for no failure.
  if (calls_left.load(std::memory_order_relaxed) == 0) return 0;
  return calls_left.fetch_sub(1) == 1 ? error.load() : 0;
}

// Makes the call of this number from now on, from 1, fail with an error; 0 makes none fail. Returns how many calls were left
// until the failure that was asked for before, 0 if it has happened.
extern "C" uint64_t emu_fail(uint64_t call, int with) {
  error = with;
  return calls_left.exchange(call);
}
