#include "block.hpp"

#include <cstdio>
#include <cstdlib>

#include "race.hpp"
#include "settings.hpp"

namespace emu {

thread_local constinit Place* here = nullptr;
thread_local constinit Block* block = nullptr;

Block::Block() : shared(static_cast<uint8_t*>(aligned_alloc(1024, 256 * 1024))) {}
Block::~Block() { free(shared); }

size_t most_shared() {
  switch (settings().architecture) {
    case 75: return 64 * 1024;
    case 80: case 87: return 163 * 1024;
    case 86: case 89: case 120: case 121: return 99 * 1024;
    default: return MOST_SHARED;
  }
}

std::string Block::prepare(const Shape& shape) {
  size_t count = size_t(shape.block.x) * shape.block.y * shape.block.z;
  if (count == 0 || count > 1024) return "a block of " + std::to_string(count) + " threads: it must have from 1 to 1024";
  if (shape.shared > most_shared())
    return std::to_string(shape.shared) + " bytes of shared memory per block: this device has " + std::to_string(most_shared());
  shape_ = shape;
  shared_bytes = shape.shared;
  stacks_.reserve(count);
  threads.resize(count);
  warps.resize((count + 31) / 32);
  return "";
}

uint32_t Block::number() const { return place_.x + shape_.grid.x * (place_.y + shape_.grid.y * place_.z); }

std::string Block::run(uint3 place, const Body& body) {
  block = this;
  place_ = place;
  body_ = &body;
  error_.clear();
  living_ = uint32_t(threads.size());
  for (uint32_t& count : at_barrier_) count = 0;
  random_ = settings().seed * 0x9E3779B97F4A7C15ull + number() * 0xD1B54A32D192ED03ull + 1;
  // NaN in f32, f16 and bf16, so that reading too early shows in the result.
  memset(shared, 0xff, shared_bytes);
  for (Warp& warp : warps) warp.reset();
  hopper.reset();
  ready_.clear();
  for (uint32_t number = 0; number < threads.size(); number++) {
    Thread& thread = threads[number];
    dim3 size = shape_.block;
    thread.thread = {number % size.x, number / size.x % size.y, number / (size.x * size.y)};
    thread.block = place;
    thread.block_size = size;
    thread.grid_size = shape_.grid;
    thread.lane = number % 32;
    thread.number = number;
    thread.warp = &warps[number / 32];
    thread.wait = Wait::Nothing;
    thread.copies.clear();
    thread.groups.clear();
    thread.wgmma = {};
    stacks_.begin(thread.context, number, &Block::begin_thread);
    ready_.push_back(&thread);
  }
  race::begin_block(*this);
  Thread* first = take_ready();
  here = first;
  switch_context(host_, first->context);
  here = nullptr;
  if (error_.empty() && living_) error_ = describe_deadlock();
  block = nullptr;
  return error_;
}

uint64_t Block::random() {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return random_;
}

Thread* Block::take_ready() {
  if (ready_.empty()) return nullptr;
  if (settings().seed) std::swap(ready_.front(), ready_[random() % ready_.size()]);
  Thread* thread = ready_.front();
  ready_.pop_front();
  return thread;
}

void Block::suspend(Wait wait, uint64_t waits_for) {
  Thread& me = self();
  me.wait = wait;
  me.waits_for = waits_for;
  Thread* next = take_ready();
  if (next == &me) return;
  here = next;
  switch_context(me.context, next ? next->context : host_);
}

void Block::wake(Thread& thread) {
  thread.wait = Wait::Nothing;
  ready_.push_back(&thread);
}

void Block::wake_all(Wait wait, uint64_t waits_for) {
  for (Thread& thread : threads)
    if (thread.wait == wait && thread.waits_for == waits_for) wake(thread);
}

void Block::yield() {
  if (!settings().seed) return;
  ready_.push_back(&self());
  suspend(Wait::Nothing, 0);
}

// A barrier is identified by its id and its number of threads.
static uint64_t barrier_key(uint32_t id, uint32_t threads) { return uint64_t(id) << 32 | threads; }

void Block::release_barrier(uint32_t id, uint32_t count) {
  at_barrier_[id] = 0;
  std::vector<Thread*> met;
  if (self().wait != Wait::Ended) met.push_back(&self());
  for (Thread& thread : threads)
    if (thread.wait == Wait::Barrier && thread.waits_for == barrier_key(id, count)) met.push_back(&thread);
  race::meet(met);
  wake_all(Wait::Barrier, barrier_key(id, count));
}

void Block::barrier(uint32_t id, uint32_t count) {
  if (id >= 16) fail("barrier " + std::to_string(id) + ": ids go from 0 to 15");
  uint32_t needed = count ? count : living_;
  if (++at_barrier_[id] < needed) return suspend(Wait::Barrier, barrier_key(id, count));
  release_barrier(id, count);
  yield();
}

void Block::fail(const std::string& why) {
  const Thread& me = self();
  char where[96];
  snprintf(where, sizeof where, " (block %u, %u, %u, thread %u, %u, %u)", place_.x, place_.y, place_.z, me.thread.x,
           me.thread.y, me.thread.z);
  if (error_.empty()) error_ = why + where;
  // The stacks of the other threads are abandoned without running destructors.
  switch_context(self().context, host_);
  abort();
}

void Block::begin_thread() {
  (*block->body_)();
  block->end_thread();
}

void Block::end_thread() {
  Thread& me = self();
  if (!me.copies.empty()) fail("a thread ends without waiting for its asynchronous copies");
  if (me.warp->awaits(me.lane)) fail("a thread ends while its warp waits for it");
  living_--;
  me.wait = Wait::Ended;
  // __syncthreads waits only for threads that have not ended.
  if (living_ && at_barrier_[0] == living_) {
    release_barrier(0, 0);
  }
  suspend(Wait::Ended, 0);
  abort();
}

std::string Block::describe_deadlock() const {
  uint32_t waiting[6] = {};
  for (const Thread& thread : threads) waiting[size_t(thread.wait)]++;
  char text[256];
  snprintf(text, sizeof text,
           "deadlock in block %u, %u, %u: of %u threads, %u wait at a barrier, %u for lanes of their warp, %u at an "
           "mbarrier, %u for a wgmma",
           place_.x, place_.y, place_.z, living_, waiting[size_t(Wait::Barrier)], waiting[size_t(Wait::Warp)],
           waiting[size_t(Wait::Mbarrier)], waiting[size_t(Wait::Wgmma)]);
  return text;
}

void Block::check_shared(const void* address, size_t bytes, const char* what) {
  auto* at = static_cast<const uint8_t*>(address);
  if (uintptr_t(at) % bytes) fail(std::string(what) + ": an unaligned address in shared memory");
  if (at < shared || at + bytes > shared + shared_bytes)
    fail(std::string(what) + ": an address outside the block's shared memory");
}

uint8_t* shared_memory() { return block->shared; }

void check_aligned(const void* at, size_t bytes) {
  if (uintptr_t(at) % bytes) block->fail("a vector at an address that is not a multiple of its size");
}
void barrier(uint32_t id, uint32_t threads) { block->barrier(id, threads); }
void yield() { block->yield(); }

}  // namespace emu
