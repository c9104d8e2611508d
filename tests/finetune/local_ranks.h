// Ranks that are threads of the test.
#pragma once
#include <costate/finetune/distributed/communicator.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

namespace costate::finetune::testing {

// What is under way between all ranks: of each pair the messages in the order in which they were sent.
class Post {
 public:
  void put(int from, int to, Tensor copy) {
    const std::lock_guard lock(mutex_);
    boxes_[{from, to}].sent.push_back(std::move(copy));
    arrived_.notify_all();
  }
  std::size_t expect(int from, int to) {
    const std::lock_guard lock(mutex_);
    return boxes_[{from, to}].expected++;
  }
  Tensor take(int from, int to, std::size_t number) {
    std::unique_lock lock(mutex_);
    Box& box = boxes_[{from, to}];
    arrived_.wait(lock, [&] { return box.sent.size() > number; });
    return std::move(box.sent[number]);
  }

 private:
  struct Box {
    std::deque<Tensor> sent;
    std::size_t expected = 0;
  };
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<std::pair<int, int>, Box> boxes_;
};

class LocalRank final : public Communicator {
 public:
  LocalRank(Post& post, int rank, int size) : post_(post), rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::unique_ptr<Transfer> send(int to, const Tensor& bytes) override {
    post_.put(rank_, to, bytes.clone());
    bytes_sent += bytes.bytes();
    return std::make_unique<Sent>();
  }
  std::unique_ptr<Transfer> receive(int from, const Tensor& into) override {
    return std::make_unique<Awaited>(*this, from, post_.expect(from, rank_), into);
  }

 private:
  struct Sent final : Transfer {
    void wait() override {}
  };
  struct Awaited final : Transfer {
    Awaited(LocalRank& o, int f, std::size_t n, Tensor i) : owner(o), from(f), number(n), into(std::move(i)) {}
    void wait() override {
      const Tensor message = owner.post_.take(from, owner.rank_, number);
      require(message.bytes() == into.bytes(), "a message of ", message.bytes(), " bytes where ", into.bytes(),
              " were expected");
      into.copy_from(message.reshape(into.shape()));
    }
    LocalRank& owner;
    int from;
    std::size_t number;
    Tensor into;
  };
  Post& post_;
  int rank_, size_;
};

// Calls body(rank) by each of `size` threads, whose communicator is its own; throws what the lowest rank threw. An error of one
// rank must be one of all, or the others wait for ever.
inline void on_ranks(int size, const std::function<void(LocalRank&)>& body, Reduction reduction = Reduction::ordered) {
  Post post;
  std::vector<std::thread> threads;
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(size));
  for (int r = 0; r < size; ++r)
    threads.emplace_back([&, r] {
      LocalRank rank(post, r, size);
      rank.reduction = reduction;
      const CommunicatorScope scope(&rank);
      try {
        body(rank);
      } catch (...) {
        errors[static_cast<std::size_t>(r)] = std::current_exception();
      }
    });
  for (std::thread& t : threads) t.join();
  for (const std::exception_ptr& e : errors)
    if (e) std::rethrow_exception(e);
}

}  // namespace costate::finetune::testing
