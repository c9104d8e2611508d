#include <costate/tensor/parallel.h>

#include <algorithm>
#include <atomic>
#include <costate/tensor/flops.h>
#include <costate/tensor/hooks.h>
#include <costate/tensor/precision.h>
#include <costate/tensor/storage.h>
#include <exception>
#include <mutex>
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
  DType kept;
  HookScope* hooks;
  std::atomic<int> finished{0};
  std::mutex mutex;
  std::exception_ptr error;
  std::int64_t error_task = 0;

  void work(int worker) {
    const std::int64_t begin = tasks * worker / workers, end = tasks * (worker + 1) / workers;
    const memory::TagScope scope(tag);
    const PrecisionScope arithmetic(precision);
    const KeptTypeScope keeping(kept);
    Account* outer = memory::detail::exchange_account(&accounts[worker]);
    HookScope* const own_hooks = detail::exchange_hooks(hooks);
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
    detail::exchange_hooks(own_hooks);
    memory::detail::exchange_account(outer);
    finished.fetch_add(1, std::memory_order_acq_rel);
  }
};

// The pool of threads that bring no executor.
ThreadPool& pool() {
  static ThreadPool p;
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
  job.tag = memory::current_tag(), job.precision = current_precision(), job.kept = current_kept_type();
  job.hooks = detail::current_hooks();
  memory::detail::open_accounts(job.region, job.accounts.data(), job.workers);
  Executor* const lent = current_executor();
  (lent ? *lent : pool()).run(job.workers, [&job](int worker) { job.work(worker); });
  const int finished = job.finished.load(std::memory_order_acquire);
  memory::detail::merge(job.region, job.accounts.data(), job.workers);
  if (finished != job.workers)
    fail(Fault::runtime, {"parallel: the host's executor returned when ", finished, " of ", job.workers, " pieces were done"});
  count_flops(job.flops.load());
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace detail
}  // namespace costate
