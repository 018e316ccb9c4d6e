// The race checker: data races in shared memory and global allocations, and reads of shared memory that was never written.
//
// A missing barrier may still give the right numbers in every order that a test tries. So the checker does not look at
// numbers but at whether accesses are ordered at all. Each thread of a block has a vector clock (C. Flanagan, S.
// Freund, "FastTrack: efficient and precise dynamic race detection", 2009), and each byte remembers who wrote it last
// and who has read it since. Two accesses to a byte, at least one of them a write, race unless the later thread's clock
// contains the earlier access.
//
// Barriers, __syncwarp and mbarriers order what is before them and what comes after. Shuffles, votes and ldmatrix do not, and
// nothing orders the blocks of a launch.
//
// The compiler inserts the calls: kernels are compiled with -fsanitize=thread but linked without its library, and the hooks are
// here. In kernels that are compiled without it, the checker is off.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace emu {
class Block;
struct Thread;
}  // namespace emu

namespace emu::race {

// A vector clock: for each thread, the time up to which its accesses are known to be over.
using Clock = std::vector<uint32_t>;

// Returns whether the kernels of this process are instrumented.
bool is_on();
void begin_launch();
void begin_block(Block& block);

// Orders everything that any of the threads did before what any of them does from here on.
void meet(const std::vector<Thread*>& threads);
// Arrival at an mbarrier: the running thread publishes its clock at `key` (say). When the phase ends, the published
// clocks become visible (end_phase), and a thread that waits for the phase joins them into its own (hear).
void say(uint64_t key);
void end_phase(uint64_t key);
void hear(uint64_t key);

// Records an access that is not an instruction of the kernel, such as that of ldmatrix.
void note(const void* address, size_t bytes, bool write);
// An asynchronous write: the thread that issued it, with its clock at that time. The write races with every access that is not
// over when it is issued. It is over once its thread has waited for it, or once a phase ends at whose `key` it was published.
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
