#include <costate/tensor/hooks.h>

#include <unistd.h>

#include <condition_variable>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace costate {
namespace {

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

// A generation counter announces a region; a countdown announces that all are done. Regions of one iteration follow each other
// within microseconds, therefore the spinning.
class ThreadPool::Workers {
 public:
  using Work = std::function<void(int)>;

  ~Workers() {
    if (process_ != getpid()) {  // a child of fork has none of these threads: nothing can be joined
      new std::vector<std::thread>(std::move(threads_));
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (std::thread& t : threads_) t.join();
  }

  // Only one thread at a time; false when another one is at it, or where there are no threads.
  bool try_run(int pieces, const Work& work) {
    if (process_ != getpid() || busy_.exchange(true, std::memory_order_acquire)) return false;
    try {
      while (static_cast<int>(threads_.size()) < pieces - 1) {
        const int index = static_cast<int>(threads_.size()) + 1;
        threads_.emplace_back([this, index, seen = generation_.load()] { loop(index, seen); });
      }
    } catch (const std::system_error& e) {
      const bool first = !std::exchange(said_, true);
      const std::size_t had = threads_.size() + 1;
      busy_.store(false, std::memory_order_release);
      if (first)
        log(Severity::warning, {"parallel: the system gives no more threads than ", had, " of ", pieces, " (", e.what(),
                                "); the calling thread works alone"});
      return false;
    } catch (const std::bad_alloc&) {  // no memory for one: neither is there any for a sentence
      busy_.store(false, std::memory_order_release);
      return false;
    }
    pieces_ = pieces, work_ = &work;
    remaining_.store(static_cast<int>(threads_.size()), std::memory_order_relaxed);
    {
      const std::lock_guard lock(mutex_);
      generation_.fetch_add(1, std::memory_order_release);
    }
    if (sleeping_.load(std::memory_order_seq_cst) > 0) wake_.notify_all();
    work(0);
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
      if (index < pieces_) (*work_)(index);
      remaining_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  const pid_t process_ = getpid();
  std::vector<std::thread> threads_;
  std::atomic<bool> busy_{false}, stop_{false};
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<int> remaining_{0}, sleeping_{0};
  int pieces_ = 0;
  const Work* work_ = nullptr;
  bool said_ = false;
  std::mutex mutex_;
  std::condition_variable wake_;
};

ThreadPool::ThreadPool() : workers_(std::make_unique<Workers>()) {}
ThreadPool::~ThreadPool() = default;

void ThreadPool::run(int pieces, const std::function<void(int)>& work) {
  if (pieces > 1 && workers_->try_run(pieces, work)) return;
  for (int i = 0; i < pieces; ++i) work(i);
}

}  // namespace costate
