// The emulator's scheduler: runs the threads of a block as fibers and finds what a device would not forgive.
//
// Found in every run, and thrown as costate::Error with kernel, block, thread and line:
//   threads of a block at different barriers, or at one that some never reach; lanes of a warp that disagree on a mask, or
//   name one that has exited; shared memory beyond what there is, or written past an array's end; bad launch shapes.
// Shared memory starts as NaN, so that what was never written shows. Where a barrier is missing, the result depends on the
// order of the threads: COSTATE_EMULATED_ORDER=forward|reverse|shuffled in the environment, read at every launch, chooses
// it, and with the thread sanitizer the race itself is reported.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <tuple>

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern uint3 threadIdx, blockIdx;  // of the fiber that runs
extern dim3 blockDim, gridDim;

namespace costate::cuda::emulator {

struct Place {
  const char* file = "";
  unsigned line = 0;
};

// Runs body(arguments) for every thread of the grid. One launch at a time, whoever calls.
void run(void (*body)(void*), void* arguments, dim3 grid, dim3 block, std::size_t dynamic_bytes, const char* name);

// Ends the launch, for what the running thread does: the fibers are abandoned where they are, with nothing on their stacks
// that wants to be destroyed, and the host throws.
[[noreturn]] void stop(const char* what, const Place* place = nullptr);

int lane();  // of the running thread in its warp
void wait_for_block(const Place& place);
void wait_for_warp(unsigned mask, const Place& place);
void exchange_bytes(unsigned mask, const void* in, void* out, std::size_t bytes, int source, const Place& place);
template <class T>
T exchange(unsigned mask, T value, int source, const Place& place) {
  T result;
  exchange_bytes(mask, &value, &result, sizeof(T), source, place);
  return result;
}
// What all 32 lanes of a warp do at once: each hands in `bytes` bytes, at most 48; together(in, out), of the lanes in order,
// is called by the last one and writes what each of them gets.
using Together = void (*)(const void* const* in, void* const* out);
void combine_bytes(const void* in, std::size_t bytes, void* out, Together together, const Place& place);

extern unsigned block_number;  // counts blocks: arrays of an earlier block are stale
void* take_shared(std::size_t bytes);
void* dynamic_shared();
// A copy to shared memory that a thread begins and waits for later. defer: whether it is put off until then: in the forward
// order all are, in the reverse order none, in the shuffled one every other. Where a wait is missing, or a barrier before what
// is overwritten, results depend on it. next_deferred: takes the running thread's, in their order; false when there is none.
struct Copy {
  const void* from;  // null: zeros
  void* to;
  std::size_t bytes;
};
bool defer(const Copy& copy);
bool next_deferred(Copy& copy);
bool is_shared(const void* p, std::size_t bytes);  // whether they lie in a block's shared memory
// The one array of this type at this place (`Tag`) of the running block.
template <class Array, class Tag>
__attribute__((no_sanitize("thread"))) Array* shared_array() {
  static Array* array = nullptr;
  static unsigned of_block = 0;
  if (of_block != block_number) array = static_cast<Array*>(take_shared(sizeof(Array))), of_block = block_number;
  return array;
}

template <class... Parameters>
struct Call {
  void (*kernel)(Parameters...);
  std::tuple<Parameters...> arguments;
  static void body(void* call) {
    auto* c = static_cast<Call*>(call);
    std::apply(c->kernel, c->arguments);
  }
};

}  // namespace costate::cuda::emulator
