// The loop around a training: updates until all are made or the host says stop (tensor/hooks.h).
#pragma once
#include <costate/finetune/flow_matching.h>
#include <costate/finetune/objective.h>

#include <functional>

namespace costate::finetune {

// Up to `iterations` calls of step(), after each of which the thread's hooks hear of the progress of `train`, and `after` of
// the iterations done and the metrics of the last one. Returns how many were finished: fewer than asked for only where the
// host said stop. An iteration that was stopped leaves an objective that makes one update an iteration as it was before it,
// so that training on gives the bits of an uninterrupted one; objectives with several updates an iteration, a value network, a
// critic or a replay buffer are as after the last update that was finished.
std::int64_t train(Objective& objective, std::int64_t iterations,
                   const std::function<void(std::int64_t done, const Metrics&)>& after = nullptr);
std::int64_t train(FlowMatching& training, std::int64_t iterations,
                   const std::function<void(std::int64_t done, const FlowMatchingMetrics&)>& after = nullptr);

}  // namespace costate::finetune
