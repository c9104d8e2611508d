// Rewards with a fault, to study what becomes of it. A proxy is what fine-tuning raises, the gold reward is what was meant:
//   r_proxy(x) = r_gold(x) + A exp(-|x - centre|^2 / (2 width^2)).
// A bump where the base has little density costs the proxy nothing until the tilt is strong enough to reach it; from then on
// the proxy rises and the gold reward falls (Gao, Schulman and Hilton 2023, arXiv 2210.10760, for language models).
#pragma once
#include <costate/finetune/reward/reward.h>

namespace costate::finetune {

// sum_i weight_i r_i(x): differentiable when all terms are, else a black box. Throws Error(Fault::argument) when there is no
// term, one is empty, or a weight is not finite.
struct WeightedReward {
  double weight = 1.0;
  Reward reward;
};
Reward sum_reward(std::vector<WeightedReward> terms);

// amount exp(-|x - centre|^2 / (2 width^2)) of the flattened features. width > 0.
Reward bump_reward(std::vector<double> centre, double width, double amount);

// The name tells what was added: "quadratic with a bump".
Reward proxy_reward(const Reward& gold, std::vector<double> centre, double width, double amount);

}  // namespace costate::finetune
