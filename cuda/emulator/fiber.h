// A stack of its own that can be left and entered again, and the sanitizers' bookkeeping of it.
//
// The scheduler is compiled without instrumentation; COSTATE_EMULATED_ASAN and COSTATE_EMULATED_TSAN say which sanitizer
// the kernels carry.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

#ifndef __x86_64__
#include <ucontext.h>
#endif

#ifdef COSTATE_EMULATED_TSAN
extern "C" {
void* __tsan_get_current_fiber(void);
void* __tsan_create_fiber(unsigned);
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#endif
#ifdef COSTATE_EMULATED_ASAN
extern "C" {
void __sanitizer_start_switch_fiber(void**, const void*, std::size_t);
void __sanitizer_finish_switch_fiber(void*, const void**, std::size_t*);
}
#endif

namespace costate::cuda::emulator {

// What orders two fibers in the thread sanitizer's eyes; nothing without it.
struct Order {
  [[maybe_unused]] char address = 0;
#ifdef COSTATE_EMULATED_TSAN
  void release() { __tsan_release(&address); }
  void acquire() { __tsan_acquire(&address); }
#else
  void release() {}
  void acquire() {}
#endif
};

#ifdef __x86_64__
extern "C" void costate_switch_stack(void** save, void* to);
#endif

struct Stack {
  static constexpr std::size_t size = 128 << 10;
#ifdef __x86_64__
  void* top = nullptr;  // where to go on
#else
  ucontext_t context;
#endif
  std::byte* bytes = nullptr;
  std::size_t length = size;
  [[maybe_unused]] void* fake = nullptr;  // the address sanitizer's
  [[maybe_unused]] void* tsan = nullptr;

  // Memory, with a page below it that nobody may touch.
  void map() {
    constexpr std::size_t page = 4096;
    auto* p = static_cast<std::byte*>(
        mmap(nullptr, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    mprotect(p, page, PROT_NONE);
    bytes = p + page;
  }
  // Entering it next starts `entry`, which must never return.
  void start(void (*entry)()) {
    if (!bytes) map();
#ifdef __x86_64__
    auto** s = reinterpret_cast<void**>(bytes + size);
    *--s = nullptr;  // alignment as after a call
    *--s = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--s = nullptr;  // registers that a call preserves
    top = s;
#else
    getcontext(&context);
    context.uc_stack.ss_sp = bytes, context.uc_stack.ss_size = size, context.uc_link = nullptr;
    makecontext(&context, entry, 0);
#endif
  }
  // From this stack to another; `over`: this one will not be entered again as it is.
  void leave_for(Stack& to, [[maybe_unused]] bool over) {
#ifdef COSTATE_EMULATED_ASAN
    __sanitizer_start_switch_fiber(over ? nullptr : &fake, to.bytes, to.length);
#endif
#ifdef COSTATE_EMULATED_TSAN
    __tsan_switch_to_fiber(to.tsan, 1);  // 1: the switch itself orders nothing
#endif
#ifdef __x86_64__
    costate_switch_stack(&top, to.top);
#else
    swapcontext(&context, &to.context);
#endif
#ifdef COSTATE_EMULATED_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }
};

}  // namespace costate::cuda::emulator
