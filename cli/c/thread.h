// A thread that does one thing after the other for whoever asks. What is computed there leaves nothing behind on the threads of
// the program: caches, ledger and thread-local objects are this thread's and end with it.
#pragma once
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace costate::c {

class Thread {
 public:
  Thread() : thread_([this] { loop(); }) {}
  ~Thread() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

  // Returns when `task`, which throws nothing, has been done.
  void run(const std::function<void()>& task) {
    const std::lock_guard one_at_a_time(callers_);
    std::unique_lock lock(mutex_);
    task_ = &task;
    changed_.notify_all();
    changed_.wait(lock, [&] { return task_ == nullptr; });
  }

 private:
  void loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return ended_ || task_; });
      if (!task_) return;
      lock.unlock();
      (*task_)();
      lock.lock();
      task_ = nullptr;
      changed_.notify_all();
    }
  }

  std::mutex callers_, mutex_;
  std::condition_variable changed_;
  const std::function<void()>* task_ = nullptr;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace costate::c
