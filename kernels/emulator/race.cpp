#include "race.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <unordered_map>

#include "block.hpp"

namespace emu::race {

// An access: a thread and its time.
struct Moment {
  uint32_t thread, time;
};

// The history of a byte: its last write, and the reads since. Of reads that are ordered the last is enough. Up to four
// others are kept here, more in `crowds`.
struct Cell {
  uint32_t launch, block;
  Moment write;
  Moment reads[4];
  uint16_t read_count;
  bool is_written, is_crowded;
};

// Memory that is checked. Its cells are untouched pages of zeros at first; launches are numbered from 1.
struct Region {
  const uint8_t* begin;
  size_t bytes;
  Cell* cells;
};

static bool on = false;
static uint32_t launch = 0;
static Region shared = {nullptr, 0, nullptr};
// By address.
static std::map<const uint8_t*, Region> global;
// For bytes with many concurrent readers, the time of each thread's read.
static std::unordered_map<const Cell*, Clock> crowds;
// The clocks of the running block's threads.
static std::vector<Clock> clocks;
// The clocks published in the current phase of a barrier, and in the previous one.
struct Words {
  Clock being_said, said;
};
static std::unordered_map<uint64_t, Words> words;

static void join(Clock& clock, const Clock& other) {
  if (clock.size() < other.size()) clock.resize(other.size());
  for (size_t i = 0; i < other.size(); i++) clock[i] = std::max(clock[i], other[i]);
}

static Cell* new_cells(size_t bytes) {
  void* cells = mmap(nullptr, bytes * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                     -1, 0);
  if (cells == MAP_FAILED) abort();
  return static_cast<Cell*>(cells);
}

bool is_on() { return on; }

void begin_launch() {
  launch++;
  crowds.clear();
}

void begin_block(Block& block) {
  if (!on) return;
  if (!shared.cells) shared.cells = new_cells(MOST_SHARED);
  shared.begin = block.shared;
  shared.bytes = block.shared_bytes;
  memset(static_cast<void*>(shared.cells), 0, shared.bytes * sizeof(Cell));
  words.clear();
  size_t count = block.threads.size();
  clocks.assign(count, Clock(count, 0));
  for (size_t thread = 0; thread < count; thread++) clocks[thread][thread] = 1;
}

void watch(const void* address, size_t bytes) {
  if (!on) return;
  auto* begin = static_cast<const uint8_t*>(address);
  global[begin] = {begin, bytes, new_cells(bytes)};
}

void unwatch(const void* address) {
  auto found = global.find(static_cast<const uint8_t*>(address));
  if (found == global.end()) return;
  munmap(found->second.cells, found->second.bytes * sizeof(Cell));
  global.erase(found);
}

// Order.

void meet(const std::vector<Thread*>& threads) {
  if (!on) return;
  Clock all;
  for (const Thread* thread : threads) join(all, clocks[thread->number]);
  for (const Thread* thread : threads) {
    clocks[thread->number] = all;
    clocks[thread->number][thread->number]++;
  }
}

void say(uint64_t key) {
  if (!on) return;
  uint32_t me = self().number;
  join(words[key].being_said, clocks[me]);
  clocks[me][me]++;
}

void end_phase(uint64_t key) {
  if (!on) return;
  words[key].said = std::move(words[key].being_said);
  words[key].being_said.clear();
}

void hear(uint64_t key) {
  if (on) join(clocks[self().number], words[key].said);
}

Issued issue() {
  if (!on) return {};
  uint32_t me = self().number;
  Issued issued = {me, clocks[me]};
  clocks[me][me]++;
  return issued;
}

void say_of(const Issued& issued, uint64_t key) {
  if (on) join(words[key].being_said, issued.clock);
}

// Accesses.

static const Region* region_of(const uint8_t* address) {
  if (address >= shared.begin && address < shared.begin + shared.bytes) return &shared;
  auto after = global.upper_bound(address);
  if (after == global.begin()) return nullptr;
  const Region& region = std::prev(after)->second;
  return address < region.begin + region.bytes ? &region : nullptr;
}

[[noreturn]] static void report(const char* what, const Region& region, size_t at, uint32_t thread, uint32_t of_block) {
  bool is_shared = &region == &shared;
  block->fail(std::string(what) + " race on " + (is_shared ? "shared memory" : "an allocation of ") +
              (is_shared ? "" : std::to_string(region.bytes) + " bytes") + " at byte " + std::to_string(at) +
              ": with thread " + std::to_string(thread) + " of block " + std::to_string(of_block));
}

// Checks and records an access to one byte, by a thread with this clock, at time `now`.
static void touch(const Region& region, size_t at, bool write, const Clock& clock, Moment now) {
  Cell& cell = region.cells[at];
  uint32_t mine = block->number();
  auto is_over = [&](Moment other) { return other.time <= clock[other.thread]; };
  if (cell.launch != launch) cell = {.launch = launch, .block = mine, .write = {}, .reads = {}, .read_count = 0,
                                     .is_written = false, .is_crowded = false};
  if (cell.block != mine) {
    // Another block of this launch touched the byte; only reads may be concurrent.
    if (cell.is_written) report(write ? "write-write" : "read-after-write", region, at, cell.write.thread, cell.block);
    if (write) report("write-after-read", region, at, cell.reads[0].thread, cell.block);
    return;
  }
  if (cell.is_written && !is_over(cell.write))
    report(write ? "write-write" : "read-after-write", region, at, cell.write.thread, mine);
  if (write) {
    for (uint32_t i = 0; i < cell.read_count; i++)
      if (!is_over(cell.reads[i])) report("write-after-read", region, at, cell.reads[i].thread, mine);
    if (cell.is_crowded) {
      const Clock& readers = crowds[&cell];
      for (uint32_t i = 0; i < readers.size(); i++)
        if (!is_over({i, readers[i]})) report("write-after-read", region, at, i, mine);
    }
    cell.write = now;
    cell.is_written = true;
    cell.read_count = 0;
    cell.is_crowded = false;
    return;
  }
  if (&region == &shared && !cell.is_written)
    block->fail("byte " + std::to_string(at) + " of shared memory is read before it is written");
  uint16_t kept = 0;
  for (uint32_t i = 0; i < cell.read_count; i++)
    if (!is_over(cell.reads[i])) cell.reads[kept++] = cell.reads[i];
  cell.read_count = kept;
  if (kept < 4) {
    cell.reads[cell.read_count++] = now;
    return;
  }
  Clock& readers = crowds[&cell];
  if (!cell.is_crowded) readers.assign(clock.size(), 0);
  cell.is_crowded = true;
  readers[now.thread] = now.time;
}

static void access(const void* address, size_t bytes, bool write, const Clock& clock, Moment now) {
  auto* begin = static_cast<const uint8_t*>(address);
  const Region* region = region_of(begin);
  if (!region) return;
  size_t first = size_t(begin - region->begin);
  if (first + bytes > region->bytes) block->fail("an access past the end of shared memory or of an allocation");
  for (size_t at = first; at < first + bytes; at++) touch(*region, at, write, clock, now);
}

void note(const void* address, size_t bytes, bool write) {
  if (!on || !here) return;
  uint32_t me = self().number;
  access(address, bytes, write, clocks[me], {me, clocks[me][me]});
}

void note_landed(const Issued& issued, const void* address, size_t bytes) {
  if (on) access(address, bytes, true, issued.clock, {issued.thread, issued.clock[issued.thread]});
}

void note_awaited(const Issued& issued, const void* address, size_t bytes) {
  if (on) access(address, bytes, true, issued.clock, {issued.thread, clocks[issued.thread][issued.thread]});
}

}  // namespace emu::race

// The hooks that the compiler calls.
extern "C" {
void __tsan_init() { emu::race::on = true; }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

#define HOOKS(bytes)                                                                  \
  void __tsan_read##bytes(void* p) { emu::race::note(p, bytes, false); }              \
  void __tsan_write##bytes(void* p) { emu::race::note(p, bytes, true); }              \
  void __tsan_unaligned_read##bytes(void* p) { emu::race::note(p, bytes, false); }    \
  void __tsan_unaligned_write##bytes(void* p) { emu::race::note(p, bytes, true); }    \
  void __tsan_volatile_read##bytes(void* p) { emu::race::note(p, bytes, false); }     \
  void __tsan_volatile_write##bytes(void* p) { emu::race::note(p, bytes, true); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void* p, unsigned long bytes) { emu::race::note(p, bytes, false); }
void __tsan_write_range(void* p, unsigned long bytes) { emu::race::note(p, bytes, true); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

// Atomics do not race.
#define ATOMICS(bits, type)                                                                                      \
  type __tsan_atomic##bits##_load(const volatile type* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }  \
  void __tsan_atomic##bits##_store(volatile type* p, type v, int) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }  \
  type __tsan_atomic##bits##_fetch_add(volatile type* p, type v, int) {                                          \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                                           \
  }                                                                                                              \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile type* p, type* e, type v, int, int) {                 \
    return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                      \
  }                                                                                                              \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile type* p, type* e, type v, int, int) {               \
    return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                      \
  }
ATOMICS(8, unsigned char)
ATOMICS(16, unsigned short)
ATOMICS(32, unsigned)
ATOMICS(64, unsigned long)
void __tsan_atomic_thread_fence(int) {}
}
