#include <costate/tensor/parallel.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <costate/tensor/flops.h>
#include <costate/tensor/precision.h>
#include <costate/tensor/storage.h>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace costate {
namespace {

using memory::detail::Account;
using memory::detail::Region;

thread_local int thread_count = 1;
thread_local bool inside = false;  // this thread is working in a parallel region

struct Job {
  std::int64_t tasks;
  detail::ParallelBody body;
  const void* closure;
  int workers;
  Region region;
  std::vector<Account> accounts;
  std::atomic<std::int64_t> flops{0};
  memory::Tag tag;
  Precision precision;
  std::mutex mutex;
  std::exception_ptr error;
  std::int64_t error_task = 0;

  void work(int worker) {
    const std::int64_t begin = tasks * worker / workers, end = tasks * (worker + 1) / workers;
    const memory::TagScope scope(tag);
    const PrecisionScope arithmetic(precision);
    Account* outer = memory::detail::exchange_account(&accounts[worker]);
    const bool was_inside = std::exchange(inside, true);
    const std::int64_t own_flops = detail::exchange_flops(0);
    std::int64_t task = begin;
    try {
      for (; task < end; ++task) body(closure, task);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error || task < error_task) error = std::current_exception(), error_task = task;
    }
    flops.fetch_add(detail::exchange_flops(own_flops), std::memory_order_relaxed);
    inside = was_inside;
    memory::detail::exchange_account(outer);
  }
};

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Workers wait for a new job by spinning briefly (regions of one iteration follow each other within microseconds), then
// asleep. A generation counter announces a job; a countdown announces that all are done.
class Pool {
 public:
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (std::thread& t : threads_) t.join();
  }

  // Only one host thread at a time; false when another one is at it.
  bool try_run(Job& job) {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    try {
      while (static_cast<int>(threads_.size()) < job.workers - 1) {
        const int index = static_cast<int>(threads_.size()) + 1;
        threads_.emplace_back([this, index, seen = generation_.load()] { loop(index, seen); });
      }
    } catch (const std::system_error&) {  // no more threads to be had: the caller works alone
      busy_.store(false, std::memory_order_release);
      return false;
    }
    job_ = &job;
    remaining_.store(static_cast<int>(threads_.size()), std::memory_order_relaxed);
    {
      const std::lock_guard lock(mutex_);
      generation_.fetch_add(1, std::memory_order_release);
    }
    if (sleeping_.load(std::memory_order_seq_cst) > 0) wake_.notify_all();
    job.work(0);
    for (int spins = 0; remaining_.load(std::memory_order_acquire) > 0; ++spins)
      if (spins < 20000) pause();
      else std::this_thread::yield();
    busy_.store(false, std::memory_order_release);
    return true;
  }

 private:
  void loop(int index, std::uint64_t seen) {
    for (;;) {
      for (int spins = 0; generation_.load(std::memory_order_acquire) == seen && spins < 4000; ++spins) pause();
      if (generation_.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex_);
        sleeping_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
        sleeping_.fetch_sub(1, std::memory_order_seq_cst);
      }
      if (stop_) return;
      seen = generation_.load(std::memory_order_acquire);
      if (index < job_->workers) job_->work(index);
      remaining_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  std::vector<std::thread> threads_;
  std::atomic<bool> busy_{false}, stop_{false};
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<int> remaining_{0}, sleeping_{0};
  Job* job_ = nullptr;
  std::mutex mutex_;
  std::condition_variable wake_;
};

Pool& pool() {
  static Pool p;
  return p;
}

}  // namespace

int threads() { return inside ? 1 : thread_count; }
void set_threads(int n) {
  require(n >= 1 && n <= 1024, "set_threads: ", n, " threads were asked for; expected 1 to 1024");
  thread_count = n;
}

namespace detail {

void run_parallel(std::int64_t tasks, ParallelBody body, const void* closure) {
  if (inside || tasks <= 1 || thread_count == 1) {
    for (std::int64_t i = 0; i < tasks; ++i) body(closure, i);
    return;
  }
  Job job;
  job.tasks = tasks, job.body = body, job.closure = closure;
  job.workers = static_cast<int>(std::min<std::int64_t>(tasks, thread_count));
  job.accounts.resize(static_cast<std::size_t>(job.workers));
  job.tag = memory::current_tag(), job.precision = current_precision();
  memory::detail::open_accounts(job.region, job.accounts.data(), job.workers);
  if (!pool().try_run(job))
    for (int w = 0; w < job.workers; ++w) job.work(w);
  memory::detail::merge(job.region, job.accounts.data(), job.workers);
  count_flops(job.flops.load());
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace detail
}  // namespace costate
