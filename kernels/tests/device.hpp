// The part of the driver that the tests need, from the libcuda.so.1 that the linker finds: the emulator's or a GPU's.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

using Pointer = unsigned long long;

struct alignas(64) Map {
  uint64_t opaque[16];
};

class Device {
 public:
  // `images` are files of cubins with the kernels. Without any, the device is the emulator, which has them linked in.
  explicit Device(int count, char** images) : is_emulated(count == 0) {
    library_ = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library_) throw std::runtime_error(dlerror());
    check(call<int(unsigned)>("cuInit")(0), "cuInit");
    int device;
    check(call<int(int*, int)>("cuDeviceGet")(&device, 0), "cuDeviceGet");
    void* context;
    check(call<int(void**, int)>("cuDevicePrimaryCtxRetain")(&context, device), "cuDevicePrimaryCtxRetain");
    check(call<int(void*)>("cuCtxSetCurrent")(context), "cuCtxSetCurrent");
    check(call<int(void**, unsigned)>("cuStreamCreate")(&stream, 1), "cuStreamCreate");
    if (is_emulated) load({0});
    for (int i = 0; i < count; i++) {
      std::ifstream file(images[i], std::ios::binary);
      if (!file) throw std::runtime_error(std::string(images[i]) + ": cannot read");
      load(std::vector<char>(std::istreambuf_iterator<char>(file), {}));
    }
  }

  int attribute(int which) const {
    int value;
    check(call<int(int*, int, int)>("cuDeviceGetAttribute")(&value, which, 0), "cuDeviceGetAttribute");
    return value;
  }

  // Launches a kernel and waits for it; returns the driver's error.
  int launch(const char* kernel, const unsigned (&grid)[3], unsigned threads, unsigned shared,
             const std::vector<void*>& arguments) const {
    enqueue(kernel, grid, threads, shared, arguments);
    return synchronize();
  }
  int enqueue(const char* kernel, const unsigned (&grid)[3], unsigned threads, unsigned shared,
              const std::vector<void*>& arguments) const {
    void* function = nullptr;
    for (void* module : modules_)
      if (!call<int(void**, void*, const char*)>("cuModuleGetFunction")(&function, module, kernel)) break;
    if (!function) throw std::runtime_error(std::string("no kernel is named ") + kernel);
    if (shared > 48 * 1024) check(call<int(void*, int, int)>("cuFuncSetAttribute")(function, 8, int(shared)), kernel);
    using Launch = int(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
    return call<Launch>("cuLaunchKernel")(function, grid[0], grid[1], grid[2], threads, 1, 1, shared, stream,
                                          const_cast<void**>(arguments.data()), nullptr);
  }
  int synchronize() const { return call<int(void*)>("cuStreamSynchronize")(stream); }

  static void check(int result, const std::string& what) {
    if (result) throw std::runtime_error(what + ": error " + std::to_string(result));
  }

  template <class F> F* call(const char* name) const {
    void* symbol = dlsym(library_, (std::string(name) + "_v2").c_str());
    if (!symbol) symbol = dlsym(library_, name);
    if (!symbol) throw std::runtime_error(std::string("the driver has no function ") + name);
    return reinterpret_cast<F*>(symbol);
  }

  void* stream = nullptr;
  bool is_emulated;

 private:
  void load(const std::vector<char>& image) {
    modules_.push_back(nullptr);
    check(call<int(void**, const void*)>("cuModuleLoadData")(&modules_.back(), image.data()), "cuModuleLoadData");
  }

  void* library_ = nullptr;
  std::vector<void*> modules_;
};

// An array in device memory.
template <class T> class Array {
 public:
  Array(const Device& device, size_t count) : device_(device), count_(count) {
    Device::check(device.call<int(Pointer*, size_t)>("cuMemAlloc")(&pointer, count * sizeof(T)), "cuMemAlloc");
  }
  Array(const Device& device, const std::vector<T>& values) : Array(device, values.size()) {
    auto copy = device.call<int(Pointer, const void*, size_t, void*)>("cuMemcpyHtoDAsync");
    Device::check(copy(pointer, values.data(), count_ * sizeof(T), device.stream), "cuMemcpyHtoDAsync");
  }
  Array(const Array&) = delete;
  ~Array() { freed = device_.call<int(Pointer)>("cuMemFree")(pointer); }

  std::vector<T> values() const {
    std::vector<T> values(count_);
    auto copy = device_.call<int(void*, Pointer, size_t, void*)>("cuMemcpyDtoHAsync");
    Device::check(copy(values.data(), pointer, count_ * sizeof(T), device_.stream), "cuMemcpyDtoHAsync");
    Device::check(device_.synchronize(), "cuStreamSynchronize");
    return values;
  }
  void* argument() { return &pointer; }

  Pointer pointer = 0;
  static inline int freed = 0;

 private:
  const Device& device_;
  size_t count_;
};
