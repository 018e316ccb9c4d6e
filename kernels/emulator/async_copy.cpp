// cp.async. A copy lands when its thread waits for it, as late as possible, so that a missing wait reads NaN. With a
// random order, some copies land immediately, so that a buffer that is overwritten too early shows as well.
#include "block.hpp"
#include "race.hpp"
#include "settings.hpp"

namespace emu {

static void land(const AsyncCopy& copy) {
  memcpy(copy.to, copy.from, copy.read);
  memset(static_cast<uint8_t*>(copy.to) + copy.read, 0, copy.bytes - copy.read);
}

void copy_async(void* to, const void* from, uint32_t bytes, uint32_t read) {
  block->check_shared(to, bytes, "cp.async");
  if (read && uintptr_t(from) % bytes) block->fail("cp.async: an unaligned address in global memory");
  bool is_early = settings().seed && block->random() % 4 == 0;
  AsyncCopy copy = {to, from, bytes, read, is_early, race::issue()};
  if (is_early) land(copy);
  self().copies.push_back(copy);
}

void copy_async_commit() { self().groups.push_back(self().copies.size()); }

void copy_async_wait(uint32_t pending) {
  auto& copies = self().copies;
  auto& groups = self().groups;
  if (groups.size() <= pending) return;
  size_t over = groups.size() - pending, landed = groups[over - 1];
  for (size_t i = 0; i < landed; i++) {
    const AsyncCopy& copy = copies[i];
    if (!copy.has_landed) land(copy);
    race::note_awaited(copy.issued, copy.to, copy.bytes);
  }
  copies.erase(copies.begin(), copies.begin() + ptrdiff_t(landed));
  groups.erase(groups.begin(), groups.begin() + ptrdiff_t(over));
  for (size_t& end : groups) end -= landed;
}

}  // namespace emu
