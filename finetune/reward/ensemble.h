// Several rewards that were learnt from the same data: where they disagree, none is to be believed. A lower bound of what they
// say keeps fine-tuning away from there (Uehara et al. 2024, arXiv 2405.19673: penalise by the uncertainty of the reward).
#pragma once
#include <costate/finetune/reward/reward.h>

namespace costate::finetune {

enum class EnsembleRule {
  mean,
  minimum,      // at ties the gradient is one of the smallest members'
  lower_bound,  // mean - c deviation; the deviation is sqrt(sum_i (r_i - mean)^2 / members), smoothed by 1e-6
};

// Differentiable when all members are, else a black box. c >= 0 is used by lower_bound only. Throws Error(Fault::argument) for
// fewer than two members, or empty ones.
Reward ensemble_reward(std::vector<Reward> members, EnsembleRule rule, double c = 1.0);

}  // namespace costate::finetune
