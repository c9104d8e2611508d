// Counting what a run asks of its networks, in rows: how many samples' predictions, and which of them were
// differentiated.
#pragma once
#include <costate/nn/network.h>
#include <atomic>
#include <cstdint>
#include <memory>

namespace costate::cli {

struct Evaluations {
  std::int64_t plain = 0;       // predictions only
  std::int64_t state = 0;       // differentiated with respect to the state (pullbacks)
  std::int64_t parameters = 0;  // differentiated with respect to the parameters (training)
  std::int64_t total() const { return plain + state + parameters; }
  friend bool operator==(const Evaluations&, const Evaluations&) = default;
};

class Counter {
 public:
  void add(std::int64_t rows, bool state, bool parameters) {
    (parameters ? parameters_ : state ? state_ : plain_).fetch_add(rows, std::memory_order_relaxed);
  }
  // What was added since `before` was `made` rounds; makes it `wanted` rounds.
  void repeat(const Evaluations& before, std::int64_t made, std::int64_t wanted) {
    const Evaluations e = now();
    plain_ += (e.plain - before.plain) / made * (wanted - made);
    state_ += (e.state - before.state) / made * (wanted - made);
    parameters_ += (e.parameters - before.parameters) / made * (wanted - made);
  }
  Evaluations now() const { return {plain_.load(), state_.load(), parameters_.load()}; }

 private:
  std::atomic<std::int64_t> plain_{0}, state_{0}, parameters_{0};
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
    Counting with_dropout(const nn::DropoutKey& key) const { return {network.with_dropout(key), counter}; }
  };
  return nn::Network(Counting{std::move(network), std::move(counter)});
}

}  // namespace costate::cli
