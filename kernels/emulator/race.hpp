// Races, and reads of what nobody wrote, in shared memory and in global allocations.
//
// Kernels that are compiled with -fsanitize=thread, but linked without its library, call our hooks at each access. Each thread
// of a block has a vector clock (C. Flanagan, S. Freund, "FastTrack: efficient and precise dynamic race detection", 2009):
// barriers, __syncwarp and mbarriers order what was before them and what comes after; shuffles, votes and ldmatrix do not,
// nor does anything order the blocks of a launch. Without the flag nothing here does anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace emu {
class Block;
struct Thread;
}  // namespace emu

namespace emu::race {

// What a thread knows of the others: how far each had come.
using Clock = std::vector<uint32_t>;

// Whether kernels of this process are checked.
bool is_on();
void begin_launch();
void begin_block(Block& block);

// Threads met: whatever each did before is over for all of them.
void meet(const std::vector<Thread*>& threads);
// The running thread says at `key` what it did, and learns what others said there. A phase's words are heard when it is over.
void say(uint64_t key);
void end_phase(uint64_t key);
void hear(uint64_t key);

// An access that is no instruction of the kernel itself: a copy that lands, a matrix that is loaded.
void note(const void* address, size_t bytes, bool write);
// What the running thread knows now: it begins a write that lands by itself. Such a write races with whatever is not over
// when it begins. It ends when its thread waits for it, or is said to at `key`.
struct Issued {
  uint32_t thread;
  Clock clock;
};
Issued issue();
void note_landed(const Issued& issued, const void* address, size_t bytes);
void note_awaited(const Issued& issued, const void* address, size_t bytes);
void say_of(const Issued& issued, uint64_t key);

// Watches an allocation of global memory, until it is freed.
void watch(const void* address, size_t bytes);
void unwatch(const void* address);

}  // namespace emu::race
