// The emulator's libcuda.so.1: the functions of the CUDA driver that cudarc and cloze call.
//
// A stream does its work when the host waits for it, as late as it may; see `stream.hpp`. A graph is a list of functions, one
// per node, which a launch pushes to the stream.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <mutex>

#include "fault.hpp"
#include "launch.hpp"
#include "race.hpp"
#include "settings.hpp"
#include "stream.hpp"

using Result = int;
using Pointer = unsigned long long;

namespace {

constexpr Result SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, NOT_FOUND = 500,
                 ILLEGAL_ADDRESS = 700, LAUNCH_FAILED = 719;
constexpr int MOST_DEVICES = 64;

using emu::Stream;
using emu::Work;
using Graph = std::vector<Work>;

std::recursive_mutex mutex;
// A failed kernel makes the context unusable, as on a device: every later call returns this error.
Result sticky = SUCCESS;
thread_local void* current_context = nullptr;
int contexts[MOST_DEVICES], module;

Stream& stream_of(void* stream) {
  static Stream null_stream;
  return stream ? *static_cast<Stream*>(stream) : null_stream;
}

// Advances with `advance` and remembers an error.
template <class Advance> Result progress(const Advance& advance) {
  std::lock_guard lock(mutex);
  if (sticky) return sticky;
  Result result = advance();
  if (result != SUCCESS && result != emu::NOT_READY) sticky = result;
  return result;
}

// Advances until nothing is left to do. Work of another process may have to come first.
template <class Advance> Result finish(const Advance& advance) {
  for (;;) {
    Result result = progress(advance);
    if (result != emu::NOT_READY) return result;
    usleep(20);
  }
}

// Advances a stream for which the host waits. Seeds such as 2 and 6 do the work of all other streams before: what one of them
// should wait for, but does not, has not been done then.
Result advance(void* stream) {
  Stream& waited = stream_of(stream);
  if (emu::settings().seed % 4 == 2) {
    Result result = emu::advance_all(&waited);
    if (result != SUCCESS && result != emu::NOT_READY) return result;
  }
  return waited.advance();
}

// Odd seeds do work as soon as it is pushed, others when it is waited for.
Result push(void* stream, Work work) {
  std::lock_guard lock(mutex);
  if (sticky) return sticky;
  Stream& to = stream_of(stream);
  to.push(std::move(work));
  if (emu::settings().seed % 2 == 0) return SUCCESS;
  Result result = progress([&] { return to.advance(); });
  return result == emu::NOT_READY ? SUCCESS : result;
}

// Memory.

constexpr size_t PAGE = 4096, GRAIN = 256;

struct Allocation {
  void* mapped;
  size_t mapped_bytes, bytes;
};
// By address.
std::map<Pointer, Allocation> allocations;
size_t used = 0;

size_t rounded(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

// Allocates memory that is filled with NaN and followed by a guard page.
Result allocate(Pointer* pointer, size_t bytes) {
  std::lock_guard lock(mutex);
  size_t grains = rounded(bytes, GRAIN);
  if (bytes == 0) return INVALID_VALUE;
  if (grains > emu::settings().memory - used) return OUT_OF_MEMORY;
  size_t mapped_bytes = rounded(grains, PAGE) + PAGE;
  void* mapped = mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return OUT_OF_MEMORY;
  uint8_t* guard = static_cast<uint8_t*>(mapped) + mapped_bytes - PAGE;
  mprotect(guard, PAGE, PROT_NONE);
  uint8_t* begin = guard - grains;
  if (!emu::settings().idle) memset(begin, 0xff, grains);
  *pointer = Pointer(begin);
  allocations[*pointer] = {mapped, mapped_bytes, bytes};
  used += grains;
  emu::race::watch(begin, bytes);
  return SUCCESS;
}

Result release(Pointer pointer) {
  if (!pointer) return SUCCESS;
  finish([] { return emu::advance_all(); });
  std::lock_guard lock(mutex);
  auto found = allocations.find(pointer);
  if (found == allocations.end()) return INVALID_VALUE;
  const Allocation& allocation = found->second;
  size_t grains = rounded(allocation.bytes, GRAIN);
  Result result = SUCCESS;
  for (size_t i = allocation.bytes; i < grains && !result && !emu::settings().idle; i++)
    if (reinterpret_cast<uint8_t*>(pointer)[i] != 0xff) {
      fprintf(stderr, "emulator: a write past the end of an allocation of %zu bytes\n", allocation.bytes);
      result = ILLEGAL_ADDRESS;
    }
  emu::race::unwatch(reinterpret_cast<void*>(pointer));
  munmap(allocation.mapped, allocation.mapped_bytes);
  allocations.erase(found);
  used -= grains;
  return result;
}

bool is_inside(Pointer pointer, size_t bytes) {
  auto after = allocations.upper_bound(pointer);
  if (after == allocations.begin()) return bytes == 0;
  const auto& [begin, allocation] = *std::prev(after);
  return pointer + bytes <= begin + allocation.bytes;
}

uint8_t* host(Pointer pointer) { return reinterpret_cast<uint8_t*>(pointer); }

// Pinned memory of the host: its size by address. The device reads it when it gets there.
std::map<const uint8_t*, size_t> pinned;

bool is_pinned(const void* address) {
  auto after = pinned.upper_bound(static_cast<const uint8_t*>(address));
  return after != pinned.begin() && address < std::prev(after)->first + std::prev(after)->second;
}

// Units of work, which are pushed to a stream or become nodes of a graph.

// What a device does that computes nothing. Its memory is reserved and never written.
Work nothing() {
  return [] { return SUCCESS; };
}

// The shared memory above 48 KiB that cuFuncSetAttribute allowed, by function.
std::map<void*, unsigned> allowed;

// Returns an empty function if the launch uses more shared memory than was allowed.
Work launch(void* function, const emu::Shape& shape, void** arguments) {
  auto found = allowed.find(function);
  if (shape.shared > (found == allowed.end() ? 48 * 1024 : found->second)) return {};
  if (emu::settings().idle) return nothing();
  const emu::Kernel* kernel = static_cast<emu::Kernel*>(function);
  return [kernel, shape, body = kernel->bind(arguments)] {
    std::string wrong = emu::launch(shape, body);
    if (wrong.empty()) return SUCCESS;
    fprintf(stderr, "emulator: %s: %s\n", kernel->name, wrong.c_str());
    return sticky = LAUNCH_FAILED;
  };
}

// These return an empty function if the memory is not the device's.

// Pageable memory is read at once.
Work copy_in(Pointer to, const void* from, size_t bytes) {
  if (!is_inside(to, bytes)) return {};
  if (emu::settings().idle) return nothing();
  if (is_pinned(from)) return [=] { return memcpy(host(to), from, bytes), SUCCESS; };
  const uint8_t* begin = static_cast<const uint8_t*>(from);
  return [to, read = std::vector<uint8_t>(begin, begin + bytes)] {
    return memcpy(host(to), read.data(), read.size()), SUCCESS;
  };
}

Work copy_across(Pointer to, Pointer from, size_t bytes) {
  if (!is_inside(from, bytes) || !is_inside(to, bytes)) return {};
  if (emu::settings().idle) return nothing();
  return [=] { return memmove(host(to), host(from), bytes), SUCCESS; };
}

Work set(Pointer to, unsigned char value, size_t bytes) {
  if (!is_inside(to, bytes)) return {};
  if (emu::settings().idle) return nothing();
  return [=] { return memset(host(to), value, bytes), SUCCESS; };
}

// Pushes work that is not empty.
Result push_valid(void* stream, Work work) { return work ? push(stream, std::move(work)) : INVALID_VALUE; }

// The parameters of nodes, with the layouts of CUDA_KERNEL_NODE_PARAMS, CUDA_MEMCPY3D and CUDA_MEMSET_NODE_PARAMS.
struct KernelNode {
  void* function;
  unsigned grid[3], block[3], shared;
  void** arguments;
  void *extra, *kernel, *context;
};
struct CopyEnd {
  size_t x, y, z, level;
  int kind;  // 1: host, 2: device
  void* host;
  Pointer device;
  void *array, *reserved;
  size_t pitch, height;
};
struct CopyNode {
  CopyEnd from, to;
  size_t bytes, height, depth;
};
struct SetNode {
  Pointer to;
  size_t pitch;
  unsigned value, element_bytes;
  size_t width, height;
};

Work work_of(const KernelNode& node) {
  emu::Shape shape = {{node.grid[0], node.grid[1], node.grid[2]}, {node.block[0], node.block[1], node.block[2]}, node.shared};
  return launch(node.function, shape, node.arguments);
}

// Supports one row, from host or device to the device; returns an empty function for other copies.
Work work_of(const CopyNode& node) {
  if (node.height != 1 || node.depth != 1 || node.to.kind != 2) return {};
  return node.from.kind == 1 ? copy_in(node.to.device, node.from.host, node.bytes)
                             : copy_across(node.to.device, node.from.device, node.bytes);
}

Work work_of(const SetNode& node) {
  if (node.height != 1 || node.element_bytes != 1) return {};
  return set(node.to, static_cast<unsigned char>(node.value), node.width);
}

// Adds a node; its handle is its number, from 1. Only chains are supported: each node must depend on the previous one.
template <class Node>
Result add(void** to, void* graph, void* const* after, size_t count, const Node* node) {
  std::lock_guard lock(mutex);
  Graph& nodes = *static_cast<Graph*>(graph);
  bool is_chain = nodes.empty() ? count == 0 : count == 1 && size_t(after[0]) == nodes.size();
  Work work = work_of(*node);
  if (!is_chain || !work) return INVALID_VALUE;
  nodes.push_back(std::move(work));
  *to = reinterpret_cast<void*>(nodes.size());
  return SUCCESS;
}

template <class Node> Result change(void* executable, void* number, const Node* node) {
  std::lock_guard lock(mutex);
  Graph& nodes = *static_cast<Graph*>(executable);
  size_t at = size_t(number);
  Work work = work_of(*node);
  if (at == 0 || at > nodes.size() || !work) return INVALID_VALUE;
  nodes[at - 1] = std::move(work);
  return SUCCESS;
}

int attribute(int which) {
  switch (which) {
    case 10: return 32;                                   // lanes per warp
    case 16: return 4;                                    // multiprocessors
    case 75: return emu::settings().architecture / 10;    // compute capability
    case 76: return emu::settings().architecture % 10;
    case 97: return int(emu::most_shared());              // shared memory per block, opt-in
    case 115: return 1;                                   // memory pools
    default: return 0;
  }
}

// Begins a call that fails without effect if a test asks for that.
#define MAY_FAIL \
  if (Result failed = emu::fault()) return failed

// Returns the result of a call that frees something, which it does even if it reports a failure.
Result or_fault(Result result) {
  Result failed = emu::fault();
  return failed ? failed : result;
}

}  // namespace

extern "C" {

Result cuInit(unsigned) { MAY_FAIL; return SUCCESS; }
Result cuDriverGetVersion(int* version) {
  MAY_FAIL;
  *version = emu::settings().driver;
  return SUCCESS;
}
Result cuGetErrorName(Result result, const char** name) {
  static const std::map<Result, const char*> names = {
      {SUCCESS, "CUDA_SUCCESS"},
      {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
      {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
      {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
      {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
      {emu::NOT_READY, "CUDA_ERROR_NOT_READY"},
      {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
      {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
  };
  auto found = names.find(result);
  if (found == names.end()) return INVALID_VALUE;
  *name = found->second;
  return SUCCESS;
}
Result cuGetErrorString(Result result, const char** text) { return cuGetErrorName(result, text); }

// Devices and contexts.
Result cuDeviceGetCount(int* count) {
  MAY_FAIL;
  *count = emu::settings().devices;
  return SUCCESS;
}
Result cuDeviceGet(int* device, int ordinal) {
  MAY_FAIL;
  *device = ordinal;
  return ordinal >= 0 && ordinal < emu::settings().devices ? SUCCESS : INVALID_DEVICE;
}
// The same in every process, as those of GPUs are.
Result cuDeviceGetUuid_v2(char* uuid, int device) {
  MAY_FAIL;
  memset(uuid, 0, 16);
  uuid[15] = char(device);
  return SUCCESS;
}
Result cuDeviceGetName(char* name, int bytes, int) {
  MAY_FAIL;
  snprintf(name, size_t(bytes), "emulator");
  return SUCCESS;
}
Result cuDeviceTotalMem_v2(size_t* bytes, int) {
  MAY_FAIL;
  *bytes = emu::settings().memory;
  return SUCCESS;
}
Result cuDeviceGetAttribute(int* value, int which, int) {
  MAY_FAIL;
  *value = attribute(which);
  return SUCCESS;
}
Result cuDevicePrimaryCtxRetain(void** to, int device) {
  MAY_FAIL;
  *to = &contexts[device];
  return SUCCESS;
}
Result cuDevicePrimaryCtxRelease_v2(int) { return emu::fault(); }
Result cuCtxSetCurrent(void* to) {
  MAY_FAIL;
  current_context = to;
  return SUCCESS;
}
Result cuCtxGetCurrent(void** to) {
  MAY_FAIL;
  *to = current_context;
  return SUCCESS;
}
Result cuCtxSynchronize() {
  MAY_FAIL;
  return finish([] { return emu::advance_all(); });
}

// Streams, events and graphs.
Result cuStreamCreate(void** stream, unsigned) {
  MAY_FAIL;
  std::lock_guard lock(mutex);
  *stream = new Stream;
  return SUCCESS;
}
Result cuStreamSynchronize(void* stream) {
  MAY_FAIL;
  return finish([stream] { return advance(stream); });
}
Result cuStreamQuery(void* stream) {
  MAY_FAIL;
  return progress([stream] { return advance(stream); });
}
Result cuStreamDestroy_v2(void* stream) {
  Result result = or_fault(finish([stream] { return advance(stream); }));
  std::lock_guard lock(mutex);
  delete static_cast<Stream*>(stream);
  return result;
}
Result cuEventCreate(void** event, unsigned) {
  MAY_FAIL;
  *event = new emu::Event;
  return SUCCESS;
}
Result cuEventDestroy_v2(void* event) {
  delete static_cast<emu::Event*>(event);
  return emu::fault();
}
Result cuEventRecord(void* event, void* stream) {
  MAY_FAIL;
  std::lock_guard lock(mutex);
  *static_cast<emu::Event*>(event) = emu::record(stream_of(stream));
  return sticky;
}
Result cuEventElapsedTime_v2(float* milliseconds, void* start, void* end) {
  MAY_FAIL;
  std::lock_guard lock(mutex);
  auto time = [](void* event) { return static_cast<emu::Event*>(event)->time; };
  if (!time(start) || !time(end)) return INVALID_VALUE;
  bool are_over = *time(start) > emu::Clock::time_point() && *time(end) > emu::Clock::time_point();
  if (!are_over) return emu::NOT_READY;
  *milliseconds = std::chrono::duration<float, std::milli>(*time(end) - *time(start)).count();
  return sticky;
}
Result cuStreamWaitEvent(void* stream, void* event, unsigned) {
  MAY_FAIL;
  std::lock_guard lock(mutex);
  emu::wait(stream_of(stream), *static_cast<emu::Event*>(event));
  return sticky;
}
Result cuGraphCreate(void** graph, unsigned) {
  MAY_FAIL;
  *graph = new Graph;
  return SUCCESS;
}
Result cuGraphAddKernelNode_v2(void** to, void* graph, void* const* after, size_t count, const KernelNode* node) {
  MAY_FAIL;
  return add(to, graph, after, count, node);
}
Result cuGraphAddMemcpyNode(void** to, void* graph, void* const* after, size_t count, const CopyNode* node, void*) {
  MAY_FAIL;
  return add(to, graph, after, count, node);
}
Result cuGraphAddMemsetNode(void** to, void* graph, void* const* after, size_t count, const SetNode* node, void*) {
  MAY_FAIL;
  return add(to, graph, after, count, node);
}
Result cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
  MAY_FAIL;
  *executable = new Graph(*static_cast<Graph*>(graph));
  return SUCCESS;
}
Result cuGraphExecKernelNodeSetParams_v2(void* executable, void* number, const KernelNode* node) {
  MAY_FAIL;
  return change(executable, number, node);
}
Result cuGraphExecMemcpyNodeSetParams(void* executable, void* number, const CopyNode* node, void*) {
  MAY_FAIL;
  return change(executable, number, node);
}
Result cuGraphExecMemsetNodeSetParams(void* executable, void* number, const SetNode* node, void*) {
  MAY_FAIL;
  return change(executable, number, node);
}
Result cuGraphLaunch(void* executable, void* stream) {
  MAY_FAIL;
  std::lock_guard lock(mutex);
  // Pushes copies: the graph may be changed while this launch is under way.
  for (const Work& work : *static_cast<Graph*>(executable))
    if (Result result = push(stream, work)) return result;
  return SUCCESS;
}
Result cuGraphDestroy(void* graph) {
  std::lock_guard lock(mutex);
  delete static_cast<Graph*>(graph);
  return emu::fault();
}
Result cuGraphExecDestroy(void* executable) { return cuGraphDestroy(executable); }

// Memory.
Result cuMemGetInfo_v2(size_t* free, size_t* total) {
  MAY_FAIL;
  *total = emu::settings().memory;
  *free = *total - used;
  return SUCCESS;
}
Result cuMemAlloc_v2(Pointer* pointer, size_t bytes) { MAY_FAIL; return allocate(pointer, bytes); }
Result cuMemAllocAsync(Pointer* pointer, size_t bytes, void*) { MAY_FAIL; return allocate(pointer, bytes); }
Result cuMemFree_v2(Pointer pointer) { return or_fault(release(pointer)); }
Result cuMemFreeAsync(Pointer pointer, void*) { return or_fault(release(pointer)); }
Result cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
  MAY_FAIL;
  std::lock_guard lock(mutex);
  *pointer = malloc(bytes);
  if (!*pointer) return OUT_OF_MEMORY;
  pinned[static_cast<uint8_t*>(*pointer)] = bytes;
  return SUCCESS;
}
Result cuMemFreeHost(void* pointer) {
  Result result = or_fault(finish([] { return emu::advance_all(); }));
  std::lock_guard lock(mutex);
  pinned.erase(static_cast<uint8_t*>(pointer));
  free(pointer);
  return result;
}
Result cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t bytes, void* stream) {
  MAY_FAIL;
  std::lock_guard lock(mutex);
  return push_valid(stream, copy_in(to, from, bytes));
}
Result cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t bytes, void* stream) {
  MAY_FAIL;
  if (Result result = finish([stream] { return advance(stream); })) return result;
  std::lock_guard lock(mutex);
  if (!is_inside(from, bytes)) return INVALID_VALUE;
  if (emu::settings().idle)
    memset(to, 0, bytes);
  else
    memcpy(to, host(from), bytes);
  return SUCCESS;
}
Result cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, void* stream) {
  MAY_FAIL;
  std::lock_guard lock(mutex);
  return push_valid(stream, copy_across(to, from, bytes));
}
Result cuMemsetD8Async(Pointer to, unsigned char value, size_t bytes, void* stream) {
  MAY_FAIL;
  std::lock_guard lock(mutex);
  return push_valid(stream, set(to, value, bytes));
}

// Kernels. They are linked into this library; images are ignored.
Result cuModuleLoadData(void** to, const void* image) {
  MAY_FAIL;
  *to = &module;
  return image ? SUCCESS : INVALID_VALUE;
}
Result cuModuleUnload(void*) { return emu::fault(); }
Result cuModuleGetFunction(void** function, void*, const char* name) {
  MAY_FAIL;
  const emu::Kernel* kernel = emu::find_kernel(name);
  *function = const_cast<emu::Kernel*>(kernel);
  return kernel ? SUCCESS : NOT_FOUND;
}
Result cuFuncSetAttribute(void* function, int which, int value) {
  MAY_FAIL;
  std::lock_guard lock(mutex);
  if (which != 8 || value < 0 || size_t(value) > emu::most_shared()) return INVALID_VALUE;
  allowed[function] = unsigned(value);
  return SUCCESS;
}
Result cuFuncGetAttribute(int* value, int, void*) {
  MAY_FAIL;
  *value = 0;
  return SUCCESS;
}
Result cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared, void* stream, void** arguments, void**) {
  MAY_FAIL;
  std::lock_guard lock(mutex);
  return push_valid(stream, launch(function, {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared}, arguments));
}
Result cuTensorMapEncodeTiled(TensorMap* map, int type, unsigned rank, void* base, const uint64_t* size,
                              const uint64_t* row_bytes, const unsigned* box, const unsigned*, int interleave,
                              int swizzle, int, int) {
  MAY_FAIL;
  // In the order of CUtensorMapDataType: u8, u16, u32, i32, u64, i64, f16, f32, f64, bf16.
  static const uint32_t element_bytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2};
  bool is_valid = rank == 2 && size[0] > 0 && size[1] > 0 && !interleave && type >= 0 && type < 10 && uintptr_t(map) % 64 == 0 &&
                  uintptr_t(base) % 16 == 0 && row_bytes[0] % 16 == 0 && box[0] <= 256 && box[1] <= 256;
  if (!is_valid) return INVALID_VALUE;
  *map = {uint64_t(base), {size[0], size[1]}, row_bytes[0], {box[0], box[1]}, uint32_t(swizzle), element_bytes[type], {}};
  return SUCCESS;
}

// For the emulated NCCL.
Result emu_push(void* stream, const Work& work) { return push(stream, work); }
bool emu_is_inside(Pointer pointer, size_t bytes) {
  std::lock_guard lock(mutex);
  return is_inside(pointer, bytes);
}
int emu_device() { return current_context ? int(static_cast<int*>(current_context) - contexts) : -1; }

}  // extern "C"
