// The loop of updates of an objective, with its metrics, its progress and its checkpoints.
#pragma once
#include <costate/finetune/objective.h>

#include <functional>

#include "stages/stages.h"

namespace costate::cli {

struct TrainingHooks {
  // Keeps the averaged network after `step` updates; not called in a plan.
  std::function<void(const std::string& name, const nn::Network& average, std::int64_t step)> keep;
  // More numbers of the network for a row of the metrics; none if null.
  std::function<Values(const nn::Network& network)> probe{};
};

// finetune.iterations updates. Leaves the final network in `file`, and intermediate ones beside it.
void train(Session& session, finetune::Objective& objective, const std::string& file, const TrainingHooks& hooks);

}  // namespace costate::cli
