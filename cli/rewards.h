// From the sections `reward` and `gold` to rewards: the registry of their kinds.
#pragma once
#include <costate/finetune/data/dataset.h>
#include <costate/finetune/reward.h>

#include <span>
#include <string>
#include <vector>

#include "config/config.h"

namespace costate::cli {

// The reward of a kind with its policy, ensemble and bump, before any f-divergence, for samples as the network sees them. For
// classifier rewards `classifiers` are its members, otherwise it is not looked at. Programs are not started before they are
// needed. Throws Fault::argument, naming the key of `section`, for the kind `none` and where config and data do not fit.
finetune::Reward make_reward(const RewardConfig& config, const data::Dataset& data, std::span<const nn::Classifier> classifiers,
                             const std::string& section = "reward");

// Q of a quadratic reward, as a full matrix or its diagonal, checked against the dimension.
std::vector<double> precision_of(const RewardConfig& config, std::size_t dim, const std::string& section = "reward");

// The size of pictures in kB (1000 bytes) as JPEG files, with the sign: -1 for compressibility (Black et al. 2023, arXiv
// 2305.13301, with quality 95). Values return to the units of the source, of which [0, 1] becomes 0 ... 255.
finetune::Reward jpeg_reward(const data::Dataset& data, int quality, double sign);

// Settings of the i-th classifier of an ensemble: those of classifiers.reward with a seed of its own.
ClassifierConfig member_config(const ClassifierConfig& config, std::int64_t i);
// "checkpoints/reward_classifier.safetensors", "checkpoints/reward_classifier_2.safetensors", ...
std::string member_checkpoint(std::int64_t i);

}  // namespace costate::cli
