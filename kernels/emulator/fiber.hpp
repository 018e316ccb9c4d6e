// Fibers: a CUDA thread is one, and a thread of the host runs those of a block in turns.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emu {

// Where a fiber that does not run goes on.
struct Context {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t state;
#endif
};

// Goes on at `to`; comes back when somebody goes on at `from`.
void switch_context(Context& from, Context& to);

// Stacks of one size, each above a page that faults when it is touched.
class Stacks {
 public:
  Stacks() = default;
  Stacks(const Stacks&) = delete;
  ~Stacks();
  // Room for `count` of them; what was there is gone.
  void reserve(size_t count);
  // A context that begins `entry` on stack `number`.
  void begin(Context& context, size_t number, void (*entry)());

 private:
  uint8_t* stacks_ = nullptr;
  size_t count_ = 0;
};

}  // namespace emu
