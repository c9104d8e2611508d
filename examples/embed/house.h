// What the host owns and lends: a crew of threads that also does other things, memory with a budget, a journal.
#pragma once
#include <costate/tensor/hooks.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace embed {

// A queue of jobs and some threads. Whoever brings a job works on it too, so that a job is done even by a busy crew.
class Crew final : public costate::Executor {
 public:
  explicit Crew(int hands) {
    for (int i = 0; i < hands; ++i) threads_.emplace_back([this](std::stop_token stop) { serve(stop); });
  }
  ~Crew() override {
    for (std::jthread& t : threads_) t.request_stop();
    changed_.notify_all();
  }
  void run(int pieces, const std::function<void(int)>& work) override {
    const auto job = std::make_shared<Job>(Job{&work, pieces});
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(job);
    }
    changed_.notify_all();
    std::unique_lock lock(mutex_);
    while (help(*job, lock)) {
    }
    changed_.wait(lock, [&] { return job->done == pieces; });
  }

 private:
  struct Job {
    const std::function<void(int)>* work;
    int pieces, taken = 0, done = 0;
  };
  // Does one piece of the job, if one is left.
  bool help(Job& job, std::unique_lock<std::mutex>& lock) {
    if (job.taken == job.pieces) return false;
    const int piece = job.taken++;
    lock.unlock();
    (*job.work)(piece);
    lock.lock();
    if (++job.done == job.pieces) changed_.notify_all();
    return true;
  }
  void serve(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, stop, [&] { return !jobs_.empty(); });
      if (stop.stop_requested()) return;
      const std::shared_ptr<Job> job = jobs_.front();
      if (!help(*job, lock)) std::erase(jobs_, job);
    }
  }

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::shared_ptr<Job>> jobs_;
  std::vector<std::jthread> threads_;
};

// Memory within a budget: an embedded model must not take what the simulation needs.
class Pantry final : public costate::Allocator {
 public:
  explicit Pantry(std::size_t budget) : budget_(budget) {}
  void* allocate(std::size_t bytes, std::size_t alignment) override {
    const std::size_t now = out_.fetch_add(bytes) + bytes;
    void* block = now <= budget_ ? std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment) : nullptr;
    if (!block) {
      out_.fetch_sub(bytes);
      return nullptr;
    }
    for (std::size_t most = most_; now > most && !most_.compare_exchange_weak(most, now);) {
    }
    return block;
  }
  void release(void* block, std::size_t bytes) noexcept override {
    std::free(block);
    out_.fetch_sub(bytes);
  }
  std::size_t out() const { return out_; }
  std::size_t most() const { return most_; }

 private:
  const std::size_t budget_;
  std::atomic<std::size_t> out_{0}, most_{0};
};

// What the library says goes where everything else of this program goes.
class Journal {
 public:
  void write(std::string line) {
    const std::lock_guard lock(mutex_);
    lines_.push_back(std::move(line));
  }
  std::vector<std::string> lines() const {
    const std::lock_guard lock(mutex_);
    return lines_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> lines_;
};

// The newest value of something that one thread makes and another one uses.
template <class T>
class Latest {
 public:
  void put(T value) {
    const std::lock_guard lock(mutex_);
    value_ = std::move(value);
  }
  T get() const {
    const std::lock_guard lock(mutex_);
    return value_;
  }

 private:
  mutable std::mutex mutex_;
  T value_{};
};

}  // namespace embed
