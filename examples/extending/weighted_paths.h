// An objective of one's own: paths of the base, weighted by exp(lambda r), are paths of the optimal law, so that the tuned
// network is fitted to them by likelihood,
//   sum_i w_i sum_k |u_k(x_k^i) - e_k^i|^2/2,   w = exp(lambda r)/sum exp(lambda r),   u_k = C_k (tuned - base)/std_k,
// e_k the noise of the base's step. No gradient of the reward is asked for. The weights rest on few paths where the optimum is
// far from the base: the metric `ess` is their effective share. It is the cross-entropy method (arXiv 2005.05409) with the
// base as the law of the paths.
#pragma once
#include <costate/autograd/ops.h>
#include <costate/finetune/chunks.h>
#include <costate/finetune/learner.h>
#include <costate/finetune/objective.h>
#include <costate/finetune/rollout.h>

#include <algorithm>
#include <cmath>

namespace extending {

using namespace costate;

class WeightedPaths final : public finetune::Objective {
 public:
  WeightedPaths(finetune::ControlProblem problem, nn::Network tuned, std::int64_t batch,
                const finetune::LearnerOptions& options)
      : problem_(std::move(problem)), learner_("weighted paths", std::move(tuned), options), batch_(batch) {
    problem_.check("weighted paths");            // a chain of single steps with noise, a base, a reward
    problem_.require_endless("weighted paths");  // every path goes to step K
  }

  finetune::Metrics step() override {
    // 1. Paths, all from this iteration's part of the counter of noise.
    const sde::NoiseKey key{/*seed=*/1, static_cast<std::uint64_t>(learner_.updates() * batch_)};
    const finetune::Trajectories paths = simulate(problem_.base, problem_, batch_, key, {.base_predictions = false});

    // 2. Weights.
    const Tensor reward = problem_.reward.scores(paths.terminal(), /*with_gradient=*/false).value;
    const Tensor weights = softmax(problem_.reward_multiplier * Var(reward.reshape({1, batch_}))).value().reshape({batch_});
    double squares = 0;
    for (const double w : weights.to_doubles()) squares += w * w;

    // 3. The gradient of the loss, cut into chunks of rows in the same way for any number of threads.
    const finetune::Chunks chunks(batch_, finetune::training_rows(problem_.sample_shape.numel()));
    const finetune::Gradients gradients =
        finetune::sum_gradients(learner_.network(), chunks.count(), [&](const nn::Network& tuned, std::int64_t chunk) {
          const std::int64_t first = chunks.first(chunk), rows = chunks.rows(chunk);
          Var loss;
          for (const int k : problem_.controlled_steps()) {
            const auto at = [&](const Tensor& t) { return t.slice(first, rows); };
            const Tensor x = at(paths.states[k]), base = at(paths.predictions[k]);
            const double A = problem_.chain.A[k], C = problem_.chain.C[k], std = problem_.chain.std[k];
            const Var noise = (1 / std) * (at(paths.states[k + 1]) - axpby(A, x, C, base));
            const Var control = (C / std) * (tuned(x, sde::step_time(problem_.chain, k, x), {}) - base);
            const Var cost = sum(reshape(square(control - noise), {rows, -1}), 1);
            const Var term = 0.5 * sum(at(weights) * cost);
            loss = loss.defined() ? loss + term : term;
          }
          return loss;
        });

    // 4. One update: clipping, AdamW, averaged weights, and an error when a number is not finite.
    const auto update = learner_.update(gradients);
    finetune::Metrics metrics;
    metrics.set("loss", gradients.loss);
    metrics.set("gradient_norm", update.gradient_norm);
    metrics.set("lr", update.lr);
    metrics.set("reward", mean(reward).value().item());
    metrics.set("control_cost", 0);  // the base made these paths
    metrics.set("ess", 1 / squares / static_cast<double>(batch_));
    return metrics;
  }

  const nn::Network& network() const override { return learner_.network(); }
  nn::Network average() const override { return learner_.average(); }
  void visit_state(finetune::StateVisitor& v) override { v("learner", learner_); }  // all that step() depends on and changes

 private:
  finetune::ControlProblem problem_;
  finetune::Learner learner_;
  std::int64_t batch_;
};

}  // namespace extending
