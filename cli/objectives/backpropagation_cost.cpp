// Rows of the loop `backpropagation`; the table is that of finetune/backpropagation/backpropagation.h.
#include <costate/sde/adjoint/adjoint.h>
#include <costate/sde/adjoint/checkpoints.h>
#include <costate/sde/adjoint/methods.h>

#include <algorithm>
#include <cmath>

#include "objectives/cost.h"

namespace costate::cli {
namespace {

// A path of `taken` steps of which those from `first` on have a record, with probability `share`.
void add_sweep(ObjectiveCost& cost, const Config& c, const sde::Chain& chain, int taken, bool stopped, int first,
               double share) {
  const BackpropagationConfig& b = c.finetune.backpropagation;
  sde::Process process;
  process.steps = taken - first;
  sde::AdjointOptions adjoint;
  adjoint.method = sde::adjoint_method(b.adjoint);
  adjoint.segment = static_cast<int>(b.segment), adjoint.slots = static_cast<int>(b.slots);
  if (adjoint.method == sde::AdjointMethod::forward) {  // tangents are pushed through every step; they are not counted
    cost.policy += share * taken, cost.state += share * (taken - first), cost.stored += share;
    return;
  }
  const sde::PlanCost plan = sde::cost(sde::detail::plan_of(process, adjoint), process.steps);
  cost.policy += share * (taken + static_cast<double>(plan.recomputed));
  cost.stored += share * static_cast<double>(plan.kept + plan.offloaded);
  const int pool = taken - first - (stopped ? 1 : 0);  // what trained_steps are drawn from
  for (int k = first; k < taken; ++k) {
    const bool estimate = stopped && k == taken - 1;  // noiseless
    const bool noisy = !estimate && chain.std[static_cast<std::size_t>(k)] > 0;
    // The chance to be trained: equally spaced behind a random offset is as likely for every step.
    double trained = 1;
    if (b.trained_steps > 0 && !estimate) trained = static_cast<double>(std::min<std::int64_t>(b.trained_steps, pool)) / pool;
    if (b.kl_weight > 0 && !noisy) trained = 0;
    const bool cut = b.detached_inputs || k == first;  // the state needs no derivative
    const bool pulled = !b.detached_inputs && k != first;
    if (c.finetune.keep_activations) cost.policy -= share * (b.detached_inputs ? trained : 1);  // its record is kept
    cost.parameters += cut ? share * trained : 0;
    cost.state += cut ? 0 : share * (pulled ? 1 : trained);
    if (b.kl_weight > 0 && noisy) (cut ? cost.base : cost.state) += share * (cut ? trained : 1);
  }
}

}  // namespace

ObjectiveCost backpropagation_cost(const Config& c) {
  const BackpropagationConfig& b = c.finetune.backpropagation;
  const sde::Chain chain = tuned_chain(c);
  const int K = chain.steps();
  ObjectiveCost cost;
  cost.reward_gradient = true;
  const auto again = static_cast<double>(b.renoisings);
  cost.rewards = 1 + again;
  // Each re-noising takes the last step and sweeps it.
  cost.policy += c.finetune.keep_activations ? 0 : again, cost.parameters += again;

  // The law of the number of steps, then that of the first one with a record.
  const bool stops = b.stop_to != 0;
  const int from = stops ? static_cast<int>(std::ceil(b.stop_from * K)) + 1 : K;
  const int to = stops ? static_cast<int>(std::ceil(b.stop_to * K)) : K;
  if (stops || b.truncation == "uniform" || b.truncation == "normal") cost.kind = ObjectiveCost::Kind::mean;
  for (int taken = from; taken <= to; ++taken) {
    const double share = 1.0 / (to - from + 1);
    const auto sweep = [&](int first, double p) {
      if (p > 0) add_sweep(cost, c, chain, taken, stops, first, share * p);
    };
    if (b.truncation == "full") {
      sweep(0, 1);
    } else if (b.truncation == "last") {
      sweep(std::max(0, taken - static_cast<int>(b.last_steps)), 1);
    } else if (b.truncation == "uniform") {
      for (int first = 0; first < taken; ++first) sweep(first, 1.0 / taken);
    } else {
      // round(s taken), s normal, cut to 0 .. taken - 1.
      const auto below = [&](double x) {  // P(s taken < x)
        if (b.normal_deviation == 0) return b.normal_mean * taken < x ? 1.0 : 0.0;
        return 0.5 * std::erfc(-(x / taken - b.normal_mean) / (b.normal_deviation * std::sqrt(2.0)));
      };
      for (int first = 0; first < taken; ++first)
        sweep(first, (first + 1 < taken ? below(first + 0.5) : 1.0) - (first > 0 ? below(first - 0.5) : 0.0));
    }
  }
  if (c.finetune.initial_law.kind != "noise") {
    const InitialLawConfig& i = c.finetune.initial_law;
    const auto paths = static_cast<double>(i.iterations * i.batch * i.rollouts);
    cost.base_before = paths * K, cost.rewards_before = paths;
  }
  cost = with_guidance(cost, c);
  if (c.finetune.guidance > 0) cost.base_before *= 2;
  return cost;
}

}  // namespace costate::cli
