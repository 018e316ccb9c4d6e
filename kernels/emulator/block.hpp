// A block of threads on one thread of the host: who runs, who waits for what.
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

// A copy to shared memory on its way.
struct AsyncCopy {
  void* to;
  const void* from;
  uint32_t bytes, read;
  bool has_landed;
  race::Issued issued;
};

struct Thread : Place {
  Context context;
  uint32_t number = 0;  // in its block
  Warp* warp = nullptr;
  Wait wait = Wait::Nothing;
  uint64_t waits_for = 0;         // which barrier, mask or address
  std::vector<AsyncCopy> copies;  // in the order of issue
  std::vector<size_t> groups;     // ends of committed groups, in copies
  WgmmaIssues wgmma;
};

// The most shared memory that any architecture gives a block, and that the one which is emulated does.
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

  // Makes room for blocks of a shape; says what is wrong with it.
  std::string prepare(const Shape& shape);
  // Runs the block at `place` from its first thread to its last; says what went wrong.
  std::string run(uint3 place, const Body& body);

  // The rest is for threads of the block that runs.
  void suspend(Wait wait, uint64_t waits_for);
  void wake(Thread& thread);
  void wake_all(Wait wait, uint64_t waits_for);
  void yield();
  void barrier(uint32_t id, uint32_t threads);
  [[noreturn]] void fail(const std::string& why);
  // A number that the seed decides.
  uint64_t random();
  // Fails unless `bytes` at `address` are shared memory of the block, aligned to their size.
  void check_shared(const void* address, size_t bytes, const char* what);
  // Its place among the blocks of the grid.
  uint32_t number() const;

  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Hopper hopper;
  uint8_t* shared;
  size_t shared_bytes = 0;

 private:
  static void begin_thread();
  void end_thread();
  // Lets the threads at a barrier go on, the running one too.
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

// The block that this thread of the host runs, and the thread of it.
extern thread_local constinit Block* block;
inline Thread& self() { return *static_cast<Thread*>(here); }

}  // namespace emu
