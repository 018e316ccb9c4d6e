#include "stream.hpp"

#include <set>

namespace emu {

static std::set<Stream*>& streams() {
  static std::set<Stream*> streams;
  return streams;
}

Stream::Stream() { streams().insert(this); }
Stream::~Stream() { streams().erase(this); }

void Stream::push(Work work) {
  queue_.push_back(std::move(work));
  pushed_++;
}

int Stream::advance_to(uint64_t number) {
  while (done_ < number && !queue_.empty()) {
    int result = queue_.front()();
    if (result == NOT_READY) return NOT_READY;
    queue_.pop_front();
    done_++;
    if (result) return result;
  }
  return 0;
}

Event record(Stream& stream) {
  auto time = std::make_shared<Clock::time_point>();
  stream.push([time] { return *time = Clock::now(), 0; });
  return {&stream, stream.pushed(), time};
}

void wait(Stream& stream, const Event& event) {
  // An event that was never recorded is over, and so are those of streams that are gone.
  stream.push([event] { return streams().count(event.stream) ? event.stream->advance_to(event.number) : 0; });
}

int advance_all(const Stream* except) {
  int waits = 0;
  for (Stream* stream : streams()) {
    if (stream == except) continue;
    int result = stream->advance();
    if (result == NOT_READY) waits = NOT_READY;
    else if (result) return result;
  }
  return waits;
}

}  // namespace emu
