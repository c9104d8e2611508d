// What fine-tuning on one reward does to the others: each setting's samples under the reward of each setting, and under the
// gold rewards.
#pragma once
#include "compare/runs.h"

namespace costate::cli {

// Of samples/tuned_sde.npy of each run. Two settings whose sections `reward` differ in multiplier and f-divergence alone have
// one reward; a learned one is that of the first run that was trained on it. No columns where there are fewer than two rewards.
// Rewards that are programs are not asked. What cannot be read is a note and no error.
CrossRewards cross_rewards_of(const std::vector<ComparedGroup>& groups);

}  // namespace costate::cli
