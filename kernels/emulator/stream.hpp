// Streams and events: queues of work, which is done as late as the order of waits allows.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>

namespace emu {

// The result of work that cannot be done yet, because it waits for another process: CUDA_ERROR_NOT_READY.
constexpr int NOT_READY = 600;

// A unit of work. It returns 0 when it is done, NOT_READY to be called again, or an error.
using Work = std::function<int()>;

class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;

  void push(Work work);

  // Does the work up to this number, counted from the first that was ever pushed. Returns NOT_READY if some cannot be done yet.
  int advance_to(uint64_t number);
  int advance() { return advance_to(pushed_); }

  uint64_t pushed() const { return pushed_; }

 private:
  std::deque<Work> queue_;
  uint64_t pushed_ = 0, done_ = 0;
};

using Clock = std::chrono::steady_clock;

// A point in a stream, and the time at which the stream came to it.
struct Event {
  Stream* stream = nullptr;
  uint64_t number = 0;
  std::shared_ptr<Clock::time_point> time;
};

// Puts a point behind what was pushed to the stream.
Event record(Stream& stream);

// Makes what is pushed to the stream from now on wait for the event.
void wait(Stream& stream, const Event& event);

// Does the work of all streams, except one.
int advance_all(const Stream* except = nullptr);

}  // namespace emu
