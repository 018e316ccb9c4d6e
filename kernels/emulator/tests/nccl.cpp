// nccl: tests the emulated NCCL with processes as ranks: that exchanges bring the right bytes, when the stream comes to them, and
// that what would hang or be wrong with NCCL is an error here.
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

struct Id {
  char bytes[128];
};
struct Config {
  size_t bytes;
  unsigned magic, version;
  int blocking;
};

constexpr int IN_PROGRESS = 7, BYTES = 1, FLOATS = 7, NOT_READY = 600, LAUNCH_FAILED = 719;

static void* library(const char* name) {
  void* opened = dlopen(name, RTLD_NOW);
  if (!opened) throw std::runtime_error(dlerror());
  return opened;
}
template <class... T> static int cuda(const char* name, T... arguments) {
  static void* opened = library("libcuda.so.1");
  return reinterpret_cast<int (*)(T...)>(dlsym(opened, name))(arguments...);
}
template <class... T> static int nccl(const char* name, T... arguments) {
  static void* opened = library("libnccl.so.2");
  return reinterpret_cast<int (*)(T...)>(dlsym(opened, name))(arguments...);
}

static void expect(int found, int expected, const std::string& what) {
  if (found != expected)
    throw std::runtime_error(what + ": " + std::to_string(found) + ", expected " + std::to_string(expected));
}

// A rank with a stream, and two arrays on its device.
struct Rank {
  static constexpr size_t COUNT = 200000;
  int rank, ranks;
  void *communicator = nullptr, *stream = nullptr;
  uint8_t *send, *receive;

  Rank(int rank, int ranks, const Id& id) : rank(rank), ranks(ranks) {
    void* context;
    expect(cuda("cuDevicePrimaryCtxRetain", &context, rank), 0, "context");
    cuda("cuCtxSetCurrent", context);
    cuda("cuStreamCreate", &stream, 1u);
    cuda("cuMemAlloc_v2", reinterpret_cast<unsigned long long*>(&send), COUNT);
    cuda("cuMemAlloc_v2", reinterpret_cast<unsigned long long*>(&receive), COUNT);
    Config config = {sizeof(Config), 0xcafebeef, 21400, 0};
    expect(nccl("ncclCommInitRankConfig", &communicator, ranks, id, rank, static_cast<const Config*>(&config)), IN_PROGRESS, "join");
    settle();
  }

  int state() {
    int state;
    expect(nccl("ncclCommGetAsyncError", communicator, &state), 0, "state");
    return state;
  }
  void settle() {
    while (state() == IN_PROGRESS) usleep(100);
  }
  int finish() { return cuda("cuStreamSynchronize", stream); }

  int send_to(int peer, size_t bytes, int type = BYTES) {
    return nccl("ncclSend", static_cast<const void*>(send), bytes, type, peer, communicator, stream);
  }
  int receive_from(int peer, size_t bytes, int type = BYTES) {
    return nccl("ncclRecv", static_cast<void*>(receive), bytes, type, peer, communicator, stream);
  }
  void set(uint8_t value) { expect(cuda("cuMemsetD8Async", reinterpret_cast<unsigned long long>(send), value, COUNT, stream), 0, "set"); }
  void check(uint8_t value, size_t at) { expect(receive[at], value, "byte " + std::to_string(at)); }
};

static void exchanges(Rank& r) {
  int peer = 1 - r.rank;
  for (uint8_t round = 0; round < 3; round++) {
    // The stream sets the bytes before they are sent, and longer messages than the shared memory holds at a time pass through.
    r.set(uint8_t(10 * round + r.rank));
    nccl("ncclGroupStart");
    expect(r.send_to(peer, Rank::COUNT - size_t(r.rank)), 0, "send");
    expect(r.receive_from(peer, Rank::COUNT - size_t(peer)), 0, "receive");
    expect(nccl("ncclGroupEnd"), IN_PROGRESS, "group");
    expect(nccl("ncclCommFinalize", r.communicator), 5, "a busy communicator");
    r.settle();
    expect(r.finish(), 0, "stream");
    r.check(uint8_t(10 * round + peer), 0);
    r.check(uint8_t(10 * round + peer), Rank::COUNT - 2);
  }
  r.set(uint8_t(70 + r.rank));
  expect(nccl("ncclAllGather", static_cast<const void*>(r.send), static_cast<void*>(r.receive), size_t(100), BYTES, r.communicator, r.stream), IN_PROGRESS, "all-gather");
  r.settle();
  expect(r.finish(), 0, "stream");
  r.check(70, 99);
  r.check(71, 100);
  r.set(uint8_t(90 + r.rank));
  expect(nccl("ncclBroadcast", static_cast<const void*>(r.send), static_cast<void*>(r.receive), size_t(9), BYTES, 1, r.communicator, r.stream), IN_PROGRESS, "broadcast");
  r.settle();
  expect(r.finish(), 0, "stream");
  r.check(91, 8);
  r.check(70, 9);
  expect(nccl("ncclCommFinalize", r.communicator), IN_PROGRESS, "finalize");
  r.settle();
  expect(nccl("ncclCommDestroy", r.communicator), 0, "destroy");
}

static void refusals(Rank& r) {
  int peer = 1 - r.rank;
  expect(r.send_to(peer, 4), 5, "a send outside of a group");
  nccl("ncclGroupStart");
  expect(r.send_to(r.rank, 4), 4, "a send to itself");
  expect(r.send_to(peer, Rank::COUNT + 1), 4, "a send from beyond the memory");
  expect(nccl("ncclGroupEnd"), 4, "a group with errors");
  int on_host;
  expect(nccl("ncclBroadcast", static_cast<const void*>(&on_host), static_cast<void*>(&on_host), size_t(4), BYTES, 0, r.communicator, r.stream), 4, "memory of the host");
  expect(nccl("ncclGroupEnd"), 5, "the end of no group");
}

// The two ranks exchange different numbers of bytes, or types.
static void mismatch(Rank& r, size_t bytes, int type) {
  int peer = 1 - r.rank;
  nccl("ncclGroupStart");
  r.send_to(peer, 12);
  r.receive_from(peer, r.rank ? bytes : 12, r.rank ? type : BYTES);
  nccl("ncclGroupEnd");
  r.settle();
  int result = r.finish();
  expect(result, r.rank ? LAUNCH_FAILED : 0, "a message of another length or type");
  if (r.rank) expect(r.state(), 5, "the state after it");
}

static void lost_peer(Rank& r) {
  if (r.rank == 1) _exit(0);
  nccl("ncclGroupStart");
  r.receive_from(1, 4);
  nccl("ncclGroupEnd");
  r.settle();
  for (int i = 0; i < 100000 && r.state() != 6; i++) {
    expect(cuda("cuStreamQuery", r.stream), NOT_READY, "the stream");
    usleep(10);
  }
  expect(r.state(), 6, "a lost peer");
}

// Runs a function as two ranks, which are processes.
static void in_ranks(const char* what, const std::function<void(Rank&)>& function) {
  Id id;
  expect(nccl("ncclGetUniqueId", &id), 0, "id");
  std::vector<pid_t> children;
  for (int rank = 0; rank < 2; rank++) {
    children.push_back(fork());
    if (children.back()) continue;
    try {
      Rank of(rank, 2, id);
      function(of);
    } catch (std::exception& error) {
      fprintf(stderr, "FAILED: %s, rank %d: %s\n", what, rank, error.what());
      _exit(1);
    }
    _exit(0);
  }
  // In the order of their ends, so that a rank that has died is gone and not a zombie.
  bool is_right = true;
  for (size_t i = 0; i < children.size(); i++) {
    int status;
    wait(&status);
    is_right = is_right && status == 0;
  }
  if (!is_right) exit(1);
}

int main() {
  setenv("CLOZE_EMU_DEVICES", "2", 1);
  in_ranks("exchanges", exchanges);
  in_ranks("refusals", refusals);
  in_ranks("mismatch of lengths", [](Rank& r) { mismatch(r, 16, BYTES); });
  in_ranks("mismatch of types", [](Rank& r) { mismatch(r, 3, FLOATS); });
  in_ranks("lost peer", lost_peer);
  puts("nccl: exchanges are right, and errors are found");
}
