// Pretraining by flow matching (Lipman et al., arXiv 2210.02747; Albergo and Vanden-Eijnden, arXiv 2209.15571) on any path:
//   min E | network(x_t, t) - target |^2,   x_t = alpha x_1 + beta x_0,   x_0 ~ N(0, I), t ~ U(0, 1),
// target alpha' x_1 + beta' x_0 for velocity networks, x_0 for epsilon, x_1 for x1 networks.
#pragma once
#include <costate/finetune/data/dataset.h>
#include <costate/finetune/gradients.h>
#include <costate/nn/optim.h>
#include <costate/sde/parametrisation.h>

namespace costate::finetune {

class StateVisitor;

struct FlowMatchingOptions {
  sde::Schedule schedule{};
  sde::Parametrisation prediction = sde::Parametrisation::velocity;
  std::int64_t batch = 256;
  std::int64_t micro_batch = 0;     // items at a time, which ranks share (distributed/communicator.h); 0: all
  std::uint64_t seed = 0;
  nn::AdamWOptions adamw{};
  nn::LearningRate lr{};
  double clip_norm = 1.0;           // of the gradient; 0: none
  double ema_decay = 0.999;         // 0: no average
  double label_drop = 0.1;          // probability of the null class, for networks with classes
  double time_margin = 0.0;         // t ~ U(margin, 1 - margin)
};

struct FlowMatchingMetrics {
  double loss, gradient_norm, lr;
};

class FlowMatching {
 public:
  // The dataset's items are x_1 (already scaled as the network shall see them); labels are used if `conditional`.
  FlowMatching(nn::Network network, const data::Dataset& data, bool conditional, const FlowMatchingOptions& options,
               Device device = Device::cpu);

  // One update. Throws Error(Fault::numerical) when the loss is not finite; the parameters are then as before.
  FlowMatchingMetrics step();

  std::int64_t iteration() const { return iteration_; }
  void visit_state(StateVisitor& v);  // training_state.h
  nn::Network& network() { return network_; }
  // The averaged network, or the network itself without averaging. A value: shares no storage with what is trained.
  nn::Network average() const;

 private:
  // Of rows first, ... of the batch, whose items are `index`.
  Gradients gradient(std::int64_t first, std::span<const std::int32_t> index) const;

  FlowMatchingOptions options_;
  nn::Network network_;
  Tensor items_, labels_;  // (count, ...), (count,)
  std::int32_t null_class_ = 0;
  nn::AdamW optimiser_;
  nn::Ema ema_;
  std::int64_t iteration_ = 0, epoch_ = -1;
  std::vector<std::int64_t> order_;
};

}  // namespace costate::finetune
