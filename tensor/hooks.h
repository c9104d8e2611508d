// What a program that embeds the library lends it: threads, memory, ears, and a word to stop. Hooks belong to the thread that
// sets them and to the workers of its parallel regions, so that every part of a program has its own:
//
//   ThreadPool pool(4);
//   std::stop_source stop;
//   const HookScope scope({.executor = &pool, .stop = stop.get_token(), .log = write_to_my_log});
//   set_threads(4);
//   tuning.step();  // throws Cancelled soon after stop.request_stop()
//
// Without hooks the library computes on threads of its own, takes memory from the system and says nothing at all.
#pragma once
#include <costate/tensor/error.h>

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string_view>

namespace costate {

// Threads of the host's. Results have the same bits on any executor: work is cut by shapes and set_threads, not by who runs it.
class Executor {
 public:
  virtual ~Executor() = default;
  // Calls work(0) ... work(pieces - 1), each once, on threads of its choice, which may be the calling one for all, and returns
  // when all have returned. `work` throws nothing and asks for no other piece. Threads that use one executor call it at the
  // same time.
  virtual void run(int pieces, const std::function<void(int piece)>& work) = 0;
};

// Workers that wait for a region spinning briefly, then asleep; the calling thread is one of them. What the library uses
// without an executor is one for the whole process; a trainer with a pool of its own waits for no other. A region that finds
// the pool at work for another thread, or that the system gives no threads, and every region in a child of fork, runs on the
// calling thread.
class ThreadPool final : public Executor {
 public:
  ThreadPool();
  ~ThreadPool() override;  // joins its threads
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  void run(int pieces, const std::function<void(int piece)>& work) override;

 private:
  class Workers;
  std::unique_ptr<Workers> workers_;
};

// Memory of tensors on the cpu. It must outlive every tensor made with it. Each tensor is one block: nothing is cached.
class Allocator {
 public:
  virtual ~Allocator() = default;
  // At least `bytes` > 0 bytes at a multiple of `alignment`, a power of two; null when there are none, which becomes
  // Error(Fault::memory). Any thread.
  virtual void* allocate(std::size_t bytes, std::size_t alignment) = 0;
  // A block of `allocate`, with the bytes that were asked for. Any thread.
  virtual void release(void* block, std::size_t bytes) noexcept = 0;
};

// How far a long computation is: `done` of `total` rows of `sample`, or updates of `train`.
struct Progress {
  std::string_view task;
  std::int64_t done, total;
};

enum class Severity { note, warning };

// Sinks may be called by any worker of a region, one call at a time for each scope. What they throw passes through the
// computation like an error of its own.
struct Hooks {
  Executor* executor = nullptr;    // null: the process's own pool
  Allocator* allocator = nullptr;  // null: the system's memory, cached (tensor/memory.h)
  std::stop_token stop{};
  std::function<void(const Progress&)> progress{};
  std::function<void(Severity, std::string_view sentence)> log{};
};

// The hooks of this thread while the scope stands; what is left empty is as it was outside.
class HookScope {
 public:
  explicit HookScope(Hooks hooks);
  ~HookScope();
  HookScope(const HookScope&) = delete;
  HookScope& operator=(const HookScope&) = delete;

 private:
  friend struct HookAccess;
  Hooks hooks_;
  std::mutex sinks_;
  HookScope* outer_;
  HookScope *progress_of_, *log_of_;  // the scopes whose sinks these are
};

// A computation that noticed the word to stop. What it was to make is not there; what it was to change is as it was before
// the last whole change: parameters, optimiser and averages are those after some number of updates.
class Cancelled final : public Error {
 public:
  explicit Cancelled(const std::string& sentence) : Error(Fault::runtime, sentence) {}
};

bool cancelled();  // whether the word to stop was given
// Throws Cancelled, naming what was under way, if it was. Samplers, solvers and adjoints call it before every step, losses
// before every chunk of rows.
void check_cancelled(std::string_view what);

// To the sink of this thread, if there is one.
void log(Severity severity, std::initializer_list<Piece> pieces);

// Counts the finished items of a task that are reported to this thread's sink, from any thread.
class ProgressReport {
 public:
  ProgressReport(std::string_view task, std::int64_t total);
  void add(std::int64_t items);

 private:
  std::string_view task_;
  std::int64_t total_;
  HookScope* scope_;
  std::atomic<std::int64_t> done_{0};
};

namespace detail {

// The hooks of this thread, to be handed to a worker; null: none.
HookScope* current_hooks();
HookScope* exchange_hooks(HookScope* scope);
Executor* current_executor();
Allocator* current_allocator();

}  // namespace detail
}  // namespace costate
