// One fixed pool of threads with a static partition. Work is cut by shapes, never by the number of threads, so that
// results do not depend on it; nested calls run serially on the calling thread.
#pragma once
#include <cstdint>
#include <memory>
#include <type_traits>

namespace costate {

// The number of threads that `parallel` uses when called from this thread: 1 until set, and within a parallel region. Each
// host thread has its own setting and shares one pool; a call while another host thread holds the pool runs serially.
int threads();
void set_threads(int n);  // 1 <= n <= 1024, else throws

namespace detail {
using ParallelBody = void (*)(const void* closure, std::int64_t task);
void run_parallel(std::int64_t tasks, ParallelBody body, const void* closure);
}  // namespace detail

// Calls body(0) ... body(tasks-1). Thread i of T runs the tasks [tasks*i/T, tasks*(i+1)/T), in order. The first
// exception (by task number) is rethrown after all threads have stopped.
template <class Body>
void parallel(std::int64_t tasks, const Body& body) {
  detail::run_parallel(
      tasks, [](const void* c, std::int64_t task) { (*static_cast<const Body*>(c))(task); }, &body);
}

// Calls body(begin, end) over pieces of [0, n) of `grain` items (the last may be shorter).
template <class Body>
void parallel_for(std::int64_t n, std::int64_t grain, const Body& body) {
  if (n <= grain) {
    if (n > 0) body(std::int64_t{0}, n);
    return;
  }
  parallel((n + grain - 1) / grain, [&](std::int64_t i) {
    const std::int64_t begin = i * grain, end = begin + grain < n ? begin + grain : n;
    body(begin, end);
  });
}

}  // namespace costate
