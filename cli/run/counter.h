// Counting what a run asks of its networks, in rows: how many samples' predictions, and which of them were
// differentiated; and of its reward: how many samples it was asked about.
#pragma once
#include <costate/finetune/reward.h>
#include <costate/nn/network.h>
#include <atomic>
#include <cstdint>
#include <memory>

namespace costate::cli {

struct Evaluations {
  std::int64_t plain = 0;       // predictions only
  std::int64_t state = 0;       // differentiated with respect to the state (pullbacks)
  std::int64_t parameters = 0;  // differentiated with respect to the parameters (training)
  std::int64_t rewards = 0;     // samples that the reward was asked about, with or without its gradient
  std::int64_t total() const { return plain + state + parameters; }  // of networks
  friend bool operator==(const Evaluations&, const Evaluations&) = default;
  friend Evaluations operator+(const Evaluations& a, const Evaluations& b) {
    return {a.plain + b.plain, a.state + b.state, a.parameters + b.parameters, a.rewards + b.rewards};
  }
  friend Evaluations operator-(const Evaluations& a, const Evaluations& b) {
    return {a.plain - b.plain, a.state - b.state, a.parameters - b.parameters, a.rewards - b.rewards};
  }
};

// What `wanted` rounds take more than `made` ones, which took `amount`: exact where the rounds are whole periods.
constexpr std::int64_t more(std::int64_t amount, std::int64_t made, std::int64_t wanted) {
  return amount / made * (wanted - made) + amount % made * (wanted - made) / made;
}

class Counter {
 public:
  void add(std::int64_t rows, bool state, bool parameters) {
    (parameters ? parameters_ : state ? state_ : plain_).fetch_add(rows, std::memory_order_relaxed);
  }
  void add_rewards(std::int64_t rows) { rewards_.fetch_add(rows, std::memory_order_relaxed); }
  // What was added since `before` was `made` rounds; makes it `wanted` rounds.
  void repeat(const Evaluations& before, std::int64_t made, std::int64_t wanted) {
    const Evaluations e = now();
    plain_ += more(e.plain - before.plain, made, wanted);
    state_ += more(e.state - before.state, made, wanted);
    parameters_ += more(e.parameters - before.parameters, made, wanted);
    rewards_ += more(e.rewards - before.rewards, made, wanted);
  }
  void restore(const Evaluations& e) {
    plain_ = e.plain, state_ = e.state, parameters_ = e.parameters, rewards_ = e.rewards;
  }
  Evaluations now() const { return {plain_.load(), state_.load(), parameters_.load(), rewards_.load()}; }

 private:
  std::atomic<std::int64_t> plain_{0}, state_{0}, parameters_{0}, rewards_{0};
};

// A network that counts; in everything else the network itself.
inline nn::Network counted(nn::Network network, std::shared_ptr<Counter> counter) {
  struct Counting {
    nn::Network network;
    std::shared_ptr<Counter> counter;
    Var operator()(const Var& x, const Var& t, const Tensor& labels) const {
      Var y = network(x, t, labels);
      counter->add(x.extent(0), x.tape() != nullptr, x.tape() == nullptr && y.tape() != nullptr);
      return y;
    }
    void visit(const nn::Visitor& v) { network.visit(v); }
    Counting recompute_blocks(bool on) const { return {network.recompute_blocks(on), counter}; }
    Counting prepared() const { return {network.prepared(), counter}; }
    Counting with_dropout(const nn::DropoutKey& key) const { return {network.with_dropout(key), counter}; }
  };
  return nn::Network(Counting{std::move(network), std::move(counter)});
}

// A reward that counts.
inline finetune::Reward counted(finetune::Reward reward, std::shared_ptr<Counter> counter) {
  if (reward.value)
    reward.value = [value = std::move(reward.value), counter](const Var& x) {
      counter->add_rewards(x.extent(0));
      return value(x);
    };
  if (reward.black_box)
    reward.black_box = [black_box = std::move(reward.black_box), counter](const Tensor& x) {
      counter->add_rewards(x.extent(0));
      return black_box(x);
    };
  return reward;
}

}  // namespace costate::cli
