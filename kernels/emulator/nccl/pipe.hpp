// The shared memory of the ranks of a communicator: a pipe of bytes from each rank to each.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>

namespace emu {

constexpr int MOST_RANKS = 64;

// A ring of bytes with one writer and one reader.
class Pipe {
 public:
  // Both move as many bytes as possible now, and return how many.
  size_t write(const uint8_t* from, size_t bytes) {
    uint64_t written = written_.load(std::memory_order_relaxed), read = read_.load(std::memory_order_acquire);
    return move(bytes, CAPACITY - (written - read), written_, [&](size_t at, size_t done, size_t length) {
      memcpy(bytes_ + at, from + done, length);
    });
  }
  size_t read(uint8_t* to, size_t bytes) {
    uint64_t written = written_.load(std::memory_order_acquire), read = read_.load(std::memory_order_relaxed);
    return move(bytes, written - read, read_, [&](size_t at, size_t done, size_t length) {
      memcpy(to + done, bytes_ + at, length);
    });
  }

 private:
  template <class Copy> static size_t move(size_t bytes, size_t possible, std::atomic<uint64_t>& end, const Copy& copy) {
    size_t done = 0;
    bytes = bytes < possible ? bytes : possible;
    uint64_t from = end.load(std::memory_order_relaxed);
    while (done < bytes) {
      size_t at = (from + done) % CAPACITY, length = bytes - done < CAPACITY - at ? bytes - done : CAPACITY - at;
      copy(at, done, length);
      done += length;
    }
    end.store(from + done, std::memory_order_release);
    return done;
  }

  static constexpr size_t CAPACITY = 1 << 18;
  std::atomic<uint64_t> written_, read_;
  uint8_t bytes_[CAPACITY];
};

// Starts as zeros, and is valid as such.
struct Segment {
  std::atomic<int> ranks, joined;
  struct Member {
    std::atomic<int> pid, device;  // the device counts from 1
  } members[MOST_RANKS];
  Pipe pipes[];  // of `ranks` times `ranks`

  Pipe& pipe(int from, int to) { return pipes[from * ranks + to]; }
  static size_t bytes(int ranks) { return sizeof(Segment) + size_t(ranks) * size_t(ranks) * sizeof(Pipe); }
};

}  // namespace emu
