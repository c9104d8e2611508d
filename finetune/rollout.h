// Trajectories of a tuned field, and the likelihood of each of their steps with respect to the base.
#pragma once
#include <costate/finetune/control_problem.h>

#include <vector>

namespace costate::finetune {

class StateVisitor;

struct Trajectories {
  sde::NoiseKey key;                     // of x_0 and of the noises e_k, which are made from it again when they are needed
  Tensor labels;                         // (rows,) or undefined
  std::vector<Tensor> states;            // x_0..x_K, (rows, ...) each; those before RolloutOptions::first_step are undefined
  std::vector<Tensor> predictions;       // tuned, of step k (K entries); undefined where the step has no noise
  std::vector<Tensor> base_predictions;  // of the base; empty unless they were asked for, undefined where there is no noise

  // Problems that stop: the first step that a row does not take (K: it takes all); empty where nothing stops.
  std::vector<int> stopped_at{};

  bool active(int k, std::int64_t row) const {
    return stopped_at.empty() || k < stopped_at[static_cast<std::size_t>(row)];
  }
  std::int64_t rows() const { return states.back().extent(0); }
  int steps() const { return static_cast<int>(states.size()) - 1; }
  const Tensor& terminal() const { return states.back(); }
  void visit_state(StateVisitor& v);
};

struct RolloutOptions {
  bool base_predictions = true;
  // Start at x_{first_step} = `start` (rows, ...) instead of at x_0.
  int first_step = 0;
  Tensor start{};
  Tensor labels{};  // (rows,) of i32, instead of those that the problem draws
};

// Chunks of rows in parallel; noises and labels are those of the key, whatever the split of the batch.
Trajectories simulate(const sde::Field& tuned, const ControlProblem& problem, std::int64_t rows, const sde::NoiseKey& key,
                      const RolloutOptions& options = {});

// Of every step and path, in double precision, with u_k = C_k (tuned - base)/std_k and the noise e_k of the tuned step:
struct StepLikelihoods {
  std::vector<std::vector<double>> control_cost;  // (K)(rows): |u_k|^2/2, the conditional divergence of the step
  std::vector<std::vector<double>> log_ratio;     // (K)(rows): log p_u/p (x_{k+1} | x_k) = u_k . e_k + |u_k|^2/2
  // Sums over k >= first, (rows).
  std::vector<double> path_cost(int first = 0) const;
  std::vector<double> path_log_ratio(int first = 0) const;
};
// Zeros for steps without noise, before first_step, of rows that have stopped, and on the meta device. Needs the predictions of the base.
StepLikelihoods step_likelihoods(const ControlProblem& problem, const Trajectories& paths);

// sum_k f_k(x_k) of every path, (rows,), over the steps that it takes; zeros without a state cost and on the meta device.
std::vector<double> path_state_cost(const ControlProblem& problem, const Trajectories& paths, int first = 0);

}  // namespace costate::finetune
