#include "fiber.hpp"

#include <sys/mman.h>

#include <new>

namespace emu {

constexpr size_t PAGE = 4096;
constexpr size_t STACK = 64 * 1024;
constexpr size_t STRIDE = STACK + PAGE;

#if defined(__x86_64__)
// Saves the registers that the calling convention tells a function to preserve, and exchanges stacks. `swapcontext` would also
// make two system calls, to save and restore the signal mask, which never changes here.
extern "C" __attribute__((naked, noinline)) void emu_switch(void** /* rdi */, void* /* rsi */) {
  asm volatile(
      "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
      "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
      "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
}

void switch_context(Context& from, Context& to) { emu_switch(&from.stack_pointer, to.stack_pointer); }
#else
void switch_context(Context& from, Context& to) { swapcontext(&from.state, &to.state); }
#endif

Stacks::~Stacks() {
  if (stacks_) munmap(stacks_, count_ * STRIDE);
}

void Stacks::reserve(size_t count) {
  if (count <= count_) return;
  if (stacks_) munmap(stacks_, count_ * STRIDE);
  stacks_ = nullptr;
  void* stacks =
      mmap(nullptr, count * STRIDE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) throw std::bad_alloc();
  stacks_ = static_cast<uint8_t*>(stacks);
  count_ = count;
  for (size_t number = 0; number < count; number++) mprotect(stacks_ + number * STRIDE, PAGE, PROT_NONE);
}

void Stacks::begin(Context& context, size_t number, void (*entry)()) {
  uint8_t* bottom = stacks_ + number * STRIDE + PAGE;
#if defined(__x86_64__)
  // The tops are staggered; otherwise the frames in use would compete for the same cache sets.
  uintptr_t top = (uintptr_t(bottom + STACK) - number % 64 * 320) & ~uintptr_t(63);
  auto* words = reinterpret_cast<uint64_t*>(top);
  *--words = 0;  // the return address of `entry`, which never returns
  *--words = reinterpret_cast<uint64_t>(entry);
  words -= 6;  // the registers that `emu_switch` pops
  context.stack_pointer = words;
#else
  getcontext(&context.state);
  context.state.uc_stack.ss_sp = bottom;
  context.state.uc_stack.ss_size = STACK;
  context.state.uc_link = nullptr;
  makecontext(&context.state, entry, 0);
#endif
}

}  // namespace emu
