#include <costate/finetune/regression/path_weights.h>

#include <costate/finetune/evaluate/importance.h>
#include <costate/finetune/training_state.h>

#include <cmath>
#include <limits>

namespace costate::finetune {

std::vector<double> state_costs(const ControlProblem& problem, const Trajectories& paths, int first) {
  std::vector<double> total(static_cast<std::size_t>(paths.rows()));
  if (!problem.state_cost) return total;
  for (int k = first; k < paths.steps(); ++k) {
    const Tensor f = problem.state_cost(k, Var(paths.states[static_cast<std::size_t>(k)])).value();
    if (f.is_meta()) continue;
    const auto values = f.to_doubles();
    for (std::size_t i = 0; i < total.size(); ++i) total[i] += values[i];
  }
  return total;
}

std::vector<double> log_path_weights(const ControlProblem& problem, const CostateBatch& batch) {
  std::vector<double> log_weight = step_likelihoods(problem, batch.paths).path_log_ratio();
  const std::vector<double> cost = state_costs(problem, batch.paths);
  for (std::size_t i = 0; i < log_weight.size(); ++i) {
    log_weight[i] = problem.reward_multiplier * batch.reward[i] - cost[i] - log_weight[i];
    if (!batch.valid.empty() && !batch.valid[i]) log_weight[i] = -std::numeric_limits<double>::infinity();
  }
  return log_weight;
}

double relative_ess(std::span<const double> weights) {
  double sum = 0, squares = 0;
  for (const double w : weights) sum += w, squares += w * w;
  return squares > 0 ? sum * sum / (squares * static_cast<double>(weights.size())) : 0;
}

Normaliser::Normaliser(double decay) : decay_(decay) {
  require(decay >= 0 && decay < 1, "path weights: the decay of their running mean is ", decay, "; expected 0 <= decay < 1");
}

void Normaliser::visit_state(StateVisitor& v) { v("log_z", log_z_), v("started", started_); }

std::vector<double> Normaliser::weights(std::span<const double> log_weights) {
  const double mean = log_sum_exp(log_weights) - std::log(static_cast<double>(log_weights.size()));
  if (!std::isfinite(mean))
    fail(Fault::numerical, {"path weights: the mean of the densities with respect to the optimal law is exp(", mean,
                            "); the policy's paths have nothing in common with it"});
  const double terms[] = {std::log(decay_) + log_z_, std::log1p(-decay_) + mean};
  log_z_ = started_ && decay_ > 0 ? log_sum_exp(terms) : mean;
  started_ = true;
  std::vector<double> w(log_weights.begin(), log_weights.end());
  for (double& v : w) v = std::exp(v - log_z_);
  return w;
}

}  // namespace costate::finetune
