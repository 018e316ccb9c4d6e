// Fibers: functions that each have a stack and switch to one another explicitly.
//
// A block of 1,024 CUDA threads meets at a barrier thousands of times, so switching must cost nanoseconds. On x86-64 it
// saves six registers and exchanges the stack pointer; elsewhere it is `swapcontext`.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emu {

// The point at which a suspended fiber resumes.
struct Context {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t state;
#endif
};

// Resumes `to`. Returns when another fiber resumes `from`.
void switch_context(Context& from, Context& to);

// Stacks of equal size, each above a guard page.
class Stacks {
 public:
  Stacks() = default;
  Stacks(const Stacks&) = delete;
  ~Stacks();
  // Makes room for `count` stacks; the contents of existing ones are lost.
  void reserve(size_t count);
  // Sets up a context that starts `entry` on stack `number`.
  void begin(Context& context, size_t number, void (*entry)());

 private:
  uint8_t* stacks_ = nullptr;
  size_t count_ = 0;
};

}  // namespace emu
