// A block of CUDA threads, run by one thread of the host.
//
// Each CUDA thread is a fiber, and exactly one of them runs at a time. It runs until CUDA would let it wait, at a
// barrier, in a shuffle or for a copy; then it records what it waits for and switches to the next ready fiber. The
// fiber that completes the event makes the waiting ones ready again. So there are no locks, a run is repeatable, and a
// deadlock is simply the moment at which fibers are left and none of them is ready. With a seed above 0 the next fiber
// is drawn at random, which makes a missing barrier likely to give wrong numbers.
#pragma once

#include <atomic>
#include <deque>
#include <string>
#include <vector>

#include "cuda.hpp"
#include "fiber.hpp"
#include "hopper.hpp"
#include "warp.hpp"

namespace emu {

enum class Wait : uint8_t { Nothing, Warp, Barrier, Mbarrier, Wgmma, Ended };

// A cp.async to shared memory that its thread has not waited for.
struct AsyncCopy {
  void* to;
  const void* from;
  uint32_t bytes, read;
  bool has_landed;
  race::Issued issued;
};

struct Thread : Place {
  Context context;
  uint32_t number = 0;  // within the block
  Warp* warp = nullptr;
  Wait wait = Wait::Nothing;
  uint64_t waits_for = 0;         // the barrier, lane mask or address
  std::vector<AsyncCopy> copies;  // in the order of issue
  std::vector<size_t> groups;     // the ends of committed groups, as indices of copies
  WgmmaIssues wgmma;
};

// The most shared memory per block: of any architecture, and of the one that is emulated.
constexpr size_t MOST_SHARED = 227 * 1024;
size_t most_shared();

struct Shape {
  dim3 grid, block;
  size_t shared;
};

class Block {
 public:
  Block();
  ~Block();
  Block(const Block&) = delete;

  // Makes room for blocks of this shape. Returns an error message, or an empty string.
  std::string prepare(const Shape& shape);
  // Runs the block at `place` until all its threads have ended. Returns an error message, or an empty string.
  std::string run(uint3 place, const Body& body);

  // The rest is called by threads of the running block.
  void suspend(Wait wait, uint64_t waits_for);
  void wake(Thread& thread);
  void wake_all(Wait wait, uint64_t waits_for);
  void yield();
  void barrier(uint32_t id, uint32_t threads);
  [[noreturn]] void fail(const std::string& why);
  // Returns a pseudo-random number that depends only on the seed and the block.
  uint64_t random();
  // Fails unless `bytes` bytes at `address` are in the block's shared memory and aligned to their size.
  void check_shared(const void* address, size_t bytes, const char* what);
  // Returns the number of the block within the grid.
  uint32_t number() const;

  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Hopper hopper;
  uint8_t* shared;
  size_t shared_bytes = 0;

 private:
  static void begin_thread();
  void end_thread();
  // Releases all threads at a barrier. The running thread is the last to arrive.
  void release_barrier(uint32_t id, uint32_t threads);
  Thread* take_ready();
  std::string describe_deadlock() const;

  Shape shape_{};
  uint3 place_{};
  const Body* body_ = nullptr;
  Stacks stacks_;
  Context host_;
  std::deque<Thread*> ready_;
  uint32_t living_ = 0;
  uint32_t at_barrier_[16] = {};
  uint64_t random_ = 1;
  std::string error_;
};

// The block that this thread of the host runs, and the running thread of that block.
extern thread_local constinit Block* block;
inline Thread& self() { return *static_cast<Thread*>(here); }

}  // namespace emu
