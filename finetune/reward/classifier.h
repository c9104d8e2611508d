// What a classifier says of a sample.
#pragma once
#include <costate/finetune/reward/reward.h>
#include <costate/nn/mlp.h>

namespace costate::finetune {

// log p(target | x); several targets: of any of them, log of the sum of their probabilities.
Reward classifier_reward(nn::Classifier classifier, std::vector<std::int32_t> targets);

}  // namespace costate::finetune
