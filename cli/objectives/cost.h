// What an objective asks for, from its options alone: the rows of networks, the rewards and the kept states of one trajectory
// in one iteration. Tests compare these with what is counted.
#pragma once
#include <costate/sde/chain.h>

#include <vector>

#include "config/config.h"

namespace costate::cli {

struct ObjectiveCost {
  // Rows of the networks; with finetune.guidance each is two, with and without its label.
  double policy = 0;      // of the tuned network, prediction alone
  double base = 0;        // of the base, prediction alone
  double state = 0;       // of either, differentiated by the state, and perhaps by the parameters with it
  double parameters = 0;  // of the tuned network, differentiated by its parameters alone
  double rewards = 0;     // samples that the reward is asked about
  bool reward_gradient = false;  // ... for gradients, of some of them at least
  // Tensors of the size of a sample that are kept for later in the iteration: states, predictions, costates. Of one of
  // micro_batch trajectories where they are fewer than the batch.
  double stored = 0;
  // exact; mean: over what an iteration draws; most: not known before the run, the costliest iteration.
  enum class Kind : unsigned char { exact, mean, most } kind = Kind::exact;

  // In all, before the first iteration: of the value of an initial law.
  double base_before = 0, rewards_before = 0;

  double plain() const { return policy + base; }
};

// One function a loop. Critics, value networks and reparametrisation matrices are not counted. Of iterations like all others:
// replays are full, and critics have warmed up. Throws Error(argument) where the chain of the configuration cannot be made.
ObjectiveCost regression_cost(const Config& config);
ObjectiveCost policy_gradient_cost(const Config& config);
ObjectiveCost backpropagation_cost(const Config& config);

// The chain that fine-tuning runs on: of the sampler, or of the control problem.
sde::Chain tuned_chain(const Config& config);
// The steps of a chain with noise, in order.
std::vector<int> noisy_steps(const sde::Chain& chain);
// Rows of the networks times what finetune.guidance makes of one.
ObjectiveCost with_guidance(ObjectiveCost cost, const Config& config);

}  // namespace costate::cli
