// The emulator's libnccl.so.2: the functions of NCCL that cloze calls, for ranks that are processes on one machine, each with an
// emulated device of its own.
//
// It is strict where NCCL would hang or give wrong numbers: peers whose sends and receives differ, sends outside of a group,
// memory that is not the device's, calls on a communicator that is busy. Such a call returns an error, or makes the stream fail.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "pipe.hpp"

using Result = int;
using Work = std::function<int()>;

// From the emulated driver.
extern "C" {
int emu_push(void* stream, const Work& work);
bool emu_is_inside(unsigned long long pointer, size_t bytes);
int emu_device();
int cuStreamQuery(void* stream);
}

namespace {

constexpr Result SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE_ERROR = 6, IN_PROGRESS = 7;
constexpr int CUDA_NOT_READY = 600, CUDA_LAUNCH_FAILED = 719;

struct Id {
  char bytes[128];
};

// The first fields of ncclConfig_t, which never change.
struct Config {
  size_t bytes;
  unsigned magic, version;
  int blocking;
};

std::string last_error;

Result fail(Result result, const char* format, ...) {
  char text[300];
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof text, format, values);
  va_end(values);
  last_error = text;
  fprintf(stderr, "emulator: nccl: %s\n", text);
  return result;
}

enum Kind : uint32_t { SEND = 1, ALL_GATHER, BROADCAST };
const char* const NAMES[] = {"", "send", "all-gather", "broadcast"};

// What precedes the bytes of a message. Both ends must expect the same.
struct Header {
  Kind kind;
  int type, root;
  uint32_t padding;
  uint64_t bytes;
};

// Bytes that go to a peer or come from it.
struct Transfer {
  int peer;
  Header header;
  uint8_t* data;
  size_t done = 0;  // of header and bytes
};

struct Group {
  std::vector<Transfer> sent, received;
};

enum class State { JOINING, READY, BUSY, FINALIZING, FAILED };

struct Communicator {
  emu::Segment* segment = nullptr;
  size_t segment_bytes = 0;
  std::string name;
  int rank = 0, ranks = 0;
  bool blocks = true, is_aborted = false;
  State state = State::JOINING;
  Result error = SUCCESS;
  // The group that becomes work of the stream when the caller next asks for errors.
  Group next;
  void* stream = nullptr;
  int groups = 0, unfinished = 0;
  unsigned waits = 0;

  ~Communicator() {
    if (segment) munmap(segment, segment_bytes);
  }
};
// A stream may have work of a communicator that the caller has freed.
using Shared = std::shared_ptr<Communicator>;

thread_local int depth = 0;
thread_local Result of_group = SUCCESS;
thread_local Shared in_group;
thread_local void* stream_in_group = nullptr;
thread_local Group group;

Shared& of(void* handle) { return *static_cast<Shared*>(handle); }

// Moves bytes of a transfer; returns whether all have been moved. Those of the header come first.
template <class Move> bool pump(Transfer& transfer, Header& header, const Move& move) {
  if (transfer.done < sizeof header)
    transfer.done += move(reinterpret_cast<uint8_t*>(&header) + transfer.done, sizeof header - transfer.done);
  size_t done = transfer.done - sizeof header;
  if (transfer.done >= sizeof header && done < transfer.header.bytes)
    transfer.done += move(transfer.data + done, transfer.header.bytes - done);
  return transfer.done == sizeof header + transfer.header.bytes;
}

bool is_same(const Header& a, const Header& b) {
  return a.kind == b.kind && a.type == b.type && a.root == b.root && a.bytes == b.bytes;
}

// The messages between two ranks keep their order, so a transfer waits for those before it with the same peer.
struct Peers {
  bool waits[emu::MOST_RANKS] = {};
};

// Does what can be done of a group now.
int advance(Communicator& of, Group& group, std::vector<Header>& found) {
  if (of.is_aborted) return SUCCESS;
  bool is_done = true, has_moved = false;
  Peers to, from;
  for (Transfer& sent : group.sent) {
    size_t before = sent.done;
    emu::Pipe& pipe = of.segment->pipe(of.rank, sent.peer);
    bool waits = to.waits[sent.peer] ||
                 !pump(sent, sent.header, [&](uint8_t* data, size_t bytes) { return pipe.write(data, bytes); });
    if (waits) to.waits[sent.peer] = true, is_done = false;
    has_moved |= sent.done != before;
  }
  for (size_t i = 0; i < group.received.size(); i++) {
    Transfer& received = group.received[i];
    if (from.waits[received.peer]) continue;
    size_t before = received.done;
    emu::Pipe& pipe = of.segment->pipe(received.peer, of.rank);
    bool is_known = before >= sizeof(Header);
    auto read = [&](uint8_t* data, size_t bytes) -> size_t {
      if (data >= reinterpret_cast<uint8_t*>(&found[i]) && data < reinterpret_cast<uint8_t*>(&found[i] + 1))
        return pipe.read(data, bytes);
      // The header is complete; the bytes of a message that is not the expected one are left where they are.
      return is_known || is_same(found[i], received.header) ? pipe.read(data, bytes) : 0;
    };
    bool waits = !pump(received, found[i], read);
    if (received.done >= sizeof(Header) && !is_same(found[i], received.header)) {
      const Header &a = received.header, &b = found[i];
      of.error = fail(INVALID_USAGE, "rank %d expects a %s of %zu bytes of type %d from rank %d, which has a %s of %zu of type %d",
                      of.rank, NAMES[a.kind], size_t(a.bytes), a.type, received.peer, NAMES[b.kind % 4], size_t(b.bytes), b.type);
      return CUDA_LAUNCH_FAILED;
    }
    if (waits) from.waits[received.peer] = true, is_done = false;
    has_moved |= received.done != before;
  }
  if (is_done) {
    of.unfinished--;
    return SUCCESS;
  }
  // A peer that has died ends a connection. NCCL notices that, too, and goes on waiting.
  if (!has_moved && ++of.waits % 500 == 0 && !of.error)
    for (int rank = 0; rank < of.ranks; rank++)
      if (kill(of.segment->members[rank].pid, 0) && errno == ESRCH)
        of.error = fail(REMOTE_ERROR, "rank %d has lost rank %d", of.rank, rank);
  return CUDA_NOT_READY;
}

// Pushes a group to the stream.
Result submit(const Shared& to, Group group) {
  to->groups++;
  const char* fails = getenv("CLOZE_EMU_NCCL_FAILS");
  if (fails && to->rank == to->ranks - 1 && to->groups == atoi(fails))
    to->error = fail(SYSTEM_ERROR, "group %d fails as asked", to->groups);
  to->unfinished++;
  std::vector<Header> found(group.received.size());
  auto state = std::make_shared<std::pair<Group, std::vector<Header>>>(std::move(group), std::move(found));
  return emu_push(to->stream, [to, state] { return advance(*to, state->first, state->second); }) ? SYSTEM_ERROR : SUCCESS;
}

// Returns whether all ranks are there.
bool has_joined(Communicator& of) {
  if (of.segment->joined < of.ranks) return false;
  for (int rank = 0; rank < of.ranks; rank++)
    for (int other = 0; other < rank; other++)
      if (of.segment->members[rank].device == of.segment->members[other].device && !of.error) {
        of.state = State::FAILED;
        of.error = fail(INVALID_USAGE, "ranks %d and %d have the same device", other, rank);
      }
  if (of.state == State::JOINING) of.state = State::READY;
  return true;
}

Result join(Communicator& of, const Id& id) {
  char name[64];
  uint64_t words[2];
  memcpy(words, id.bytes, sizeof words);
  snprintf(name, sizeof name, "/emu-nccl-%016lx%016lx", (unsigned long)words[0], (unsigned long)words[1]);
  int file = shm_open(name, O_RDWR | O_CREAT, 0600);
  if (file < 0) return fail(SYSTEM_ERROR, "no shared memory: %s", strerror(errno));
  of.segment_bytes = emu::Segment::bytes(of.ranks);
  // Ranks that disagree about their number have mapped it with another size.
  off_t there = lseek(file, 0, SEEK_END);
  bool is_sized = there == off_t(of.segment_bytes) || (there == 0 && ftruncate(file, off_t(of.segment_bytes)) == 0);
  void* mapped = is_sized ? mmap(nullptr, of.segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
  close(file);
  if (mapped == MAP_FAILED) return fail(INVALID_ARGUMENT, "the ranks disagree about their number, or memory is short");
  of.segment = static_cast<emu::Segment*>(mapped);
  of.segment->ranks = of.ranks;
  int nobody = 0;
  if (!of.segment->members[of.rank].pid.compare_exchange_strong(nobody, getpid()))
    return fail(INVALID_ARGUMENT, "rank %d is there already", of.rank);
  of.segment->members[of.rank].device = emu_device() + 1;
  // All have mapped it, so its name is no longer needed.
  if (of.segment->joined.fetch_add(1) == of.ranks - 1) shm_unlink(name);
  return SUCCESS;
}

const size_t TYPE_BYTES[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};

// Checks a call, and opens a group of its own for it if it may stand alone. Returns the bytes of an element.
Result begin(void* handle, void* stream, int type, size_t* bytes, bool is_collective) {
  if (!handle) return fail(INVALID_ARGUMENT, "no communicator");
  const Shared& to = of(handle);
  if (to->error) return to->error;
  if (to->state != State::READY) return fail(INVALID_USAGE, "the communicator is busy: ask for its state until it is not");
  if (type < 0 || type > 9) return fail(INVALID_ARGUMENT, "type %d is unknown", type);
  if (depth == 0 && !is_collective) return fail(INVALID_USAGE, "a send or receive outside of a group waits for ever");
  if (to->stream && to->stream != stream && to->unfinished)
    return fail(INVALID_USAGE, "the emulator supports one stream of a communicator at a time");
  if (in_group && in_group != to) return fail(INVALID_USAGE, "the emulator supports one communicator in a group");
  in_group = to;
  stream_in_group = stream;
  *bytes = TYPE_BYTES[type];
  return SUCCESS;
}

bool is_device(const void* pointer, size_t bytes) {
  return bytes == 0 || emu_is_inside(reinterpret_cast<unsigned long long>(pointer), bytes);
}

void add(std::vector<Transfer>& transfers, Kind kind, int peer, int type, int root, const void* data, size_t bytes) {
  uint8_t* at = const_cast<uint8_t*>(static_cast<const uint8_t*>(data));
  transfers.push_back({peer, {kind, type, root, 0, bytes}, at});
}

// Adds an end of an exchange with another rank to the group; `what` names it in errors.
Result point_to_point(std::vector<Transfer>& ends, const char* what, const void* data, size_t count, int type, int peer, void* handle,
                      void* stream) {
  size_t bytes = 0;
  if (Result result = begin(handle, stream, type, &bytes, false)) return of_group = result;
  if (peer < 0 || peer >= of(handle)->ranks || peer == of(handle)->rank || !is_device(data, count * bytes))
    return of_group = fail(INVALID_ARGUMENT, "%s rank %d of %zu elements at %p", what, peer, count, data);
  add(ends, SEND, peer, type, 0, data, count * bytes);
  return SUCCESS;
}

// Copies within this rank when the stream comes to it.
void copy_later(void* to, const void* from, size_t bytes, void* stream) {
  if (to != from && bytes) emu_push(stream, [=] { return memmove(to, from, bytes), SUCCESS; });
}

// Ends the group of a collective that stands alone.
Result end(Result result);

}  // namespace

extern "C" {

Result ncclGetVersion(int* version) {
  *version = 22304;
  return SUCCESS;
}
Result ncclGetUniqueId(Id* id) {
  std::random_device random;
  for (char& byte : id->bytes) byte = char(random());
  return SUCCESS;
}
const char* ncclGetErrorString(Result result) {
  static const char* const TEXTS[] = {"no error",         "unhandled cuda error", "unhandled system error",
                                      "internal error",   "invalid argument",     "invalid usage",
                                      "remote process exited or there was a network error", "operation in progress"};
  return result >= 0 && result < 8 ? TEXTS[result] : "unknown result code";
}
const char* ncclGetLastError(void*) { return last_error.c_str(); }

Result ncclCommInitRankConfig(void** handle, int ranks, Id id, int rank, const Config* config) {
  if (ranks < 1 || ranks > emu::MOST_RANKS || rank < 0 || rank >= ranks || emu_device() < 0)
    return fail(INVALID_ARGUMENT, "rank %d of %d on device %d", rank, ranks, emu_device());
  if (config && config->magic != 0xcafebeef) return fail(INVALID_ARGUMENT, "the configuration is not initialised");
  auto communicator = std::make_shared<Communicator>();
  communicator->rank = rank;
  communicator->ranks = ranks;
  communicator->blocks = !config || config->blocking != 0;
  if (Result result = join(*communicator, id)) return result;
  *handle = new Shared(communicator);
  if (!communicator->blocks) return IN_PROGRESS;
  while (!has_joined(*communicator)) usleep(100);
  return communicator->error;
}

// A communicator that does not block goes on only when it is asked for its state.
Result ncclCommGetAsyncError(void* handle, Result* state) {
  const Shared& to = of(handle);
  *state = SUCCESS;
  if (to->state == State::JOINING && !has_joined(*to)) *state = IN_PROGRESS;
  if (to->state == State::BUSY) {
    to->state = State::READY;
    Group next = std::move(to->next);
    to->next = {};
    // A stream that works at once may have found a better reason already.
    if (Result result = submit(to, std::move(next)); result && !to->error) to->error = result;
  }
  if (to->state == State::FINALIZING && to->unfinished > 0) {
    cuStreamQuery(to->stream);
    *state = IN_PROGRESS;
  }
  if (to->error) *state = to->error;
  return SUCCESS;
}

Result ncclGroupStart() {
  depth++;
  return SUCCESS;
}
Result ncclGroupEnd() {
  if (depth == 0) return fail(INVALID_USAGE, "no group has begun");
  return end(SUCCESS);
}

Result ncclSend(const void* data, size_t count, int type, int peer, void* handle, void* stream) {
  return point_to_point(group.sent, "send to", data, count, type, peer, handle, stream);
}
Result ncclRecv(void* data, size_t count, int type, int peer, void* handle, void* stream) {
  return point_to_point(group.received, "receive from", data, count, type, peer, handle, stream);
}

Result ncclAllGather(const void* own, void* all, size_t count, int type, void* handle, void* stream) {
  ncclGroupStart();
  size_t bytes = 0;
  if (Result result = begin(handle, stream, type, &bytes, true)) return end(result);
  const Communicator& to = *of(handle);
  bytes *= count;
  if (!is_device(own, bytes) || !is_device(all, bytes * size_t(to.ranks)))
    return end(fail(INVALID_ARGUMENT, "all-gather of %zu elements from %p at %p", count, own, all));
  uint8_t* parts = static_cast<uint8_t*>(all);
  copy_later(parts + size_t(to.rank) * bytes, own, bytes, stream);
  for (int peer = 0; peer < to.ranks; peer++) {
    if (peer == to.rank) continue;
    add(group.sent, ALL_GATHER, peer, type, 0, own, bytes);
    add(group.received, ALL_GATHER, peer, type, 0, parts + size_t(peer) * bytes, bytes);
  }
  return end(SUCCESS);
}

Result ncclBroadcast(const void* from, void* to, size_t count, int type, int root, void* handle, void* stream) {
  ncclGroupStart();
  size_t bytes = 0;
  if (Result result = begin(handle, stream, type, &bytes, true)) return end(result);
  const Communicator& communicator = *of(handle);
  bytes *= count;
  if (root < 0 || root >= communicator.ranks || !is_device(to, bytes) || (root == communicator.rank && !is_device(from, bytes)))
    return end(fail(INVALID_ARGUMENT, "broadcast of rank %d of %zu elements at %p", root, count, to));
  if (root != communicator.rank) {
    add(group.received, BROADCAST, root, type, root, to, bytes);
    return end(SUCCESS);
  }
  copy_later(to, from, bytes, stream);
  for (int peer = 0; peer < communicator.ranks; peer++)
    if (peer != root) add(group.sent, BROADCAST, peer, type, root, from, bytes);
  return end(SUCCESS);
}

Result ncclCommFinalize(void* handle) {
  if (of(handle)->state == State::BUSY) return fail(INVALID_USAGE, "the communicator is busy");
  of(handle)->state = State::FINALIZING;
  return of(handle)->blocks ? SUCCESS : IN_PROGRESS;
}
Result ncclCommDestroy(void* handle) {
  bool is_idle = of(handle)->unfinished == 0;
  delete static_cast<Shared*>(handle);
  return is_idle ? SUCCESS : fail(INVALID_USAGE, "destroyed with work under way");
}
Result ncclCommAbort(void* handle) {
  of(handle)->is_aborted = true;
  delete static_cast<Shared*>(handle);
  return SUCCESS;
}

}  // extern "C"

namespace {

Result end(Result result) {
  if (result) of_group = result;
  if (--depth > 0) return result;
  Shared to = std::exchange(in_group, nullptr);
  Group whole = std::exchange(group, {});
  if (Result wrong = std::exchange(of_group, SUCCESS)) return wrong;
  if (!to || (whole.sent.empty() && whole.received.empty())) return SUCCESS;
  to->stream = stream_in_group;
  if (to->blocks) return submit(to, std::move(whole));
  to->next = std::move(whole);
  to->state = State::BUSY;
  return IN_PROGRESS;
}

}  // namespace
