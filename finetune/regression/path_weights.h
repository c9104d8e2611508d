// Weights that turn paths of any policy v into paths of the optimal law P* = P exp(lambda r - sum f)/Z:
//   alpha = exp(lambda r(x_K) - sum_k f_k(x_k) - log p_v/p),   E_v[alpha] = Z,
// all in logarithms (arXiv 2312.02027, Section 3). A regression with weights alpha/Z is one under the optimal law.
#pragma once
#include <costate/finetune/regression/costate_batch.h>

#include <span>

namespace costate::finetune {

// log alpha, (rows); -infinity for rows without a reward. Needs tuned and base predictions of all steps with noise. Zeros on
// the meta device.
std::vector<double> log_path_weights(const ControlProblem& problem, const CostateBatch& batch);

// sum_{k >= first} f_k(x_k), (rows); zeros without a state cost and on the meta device.
std::vector<double> state_costs(const ControlProblem& problem, const Trajectories& paths, int first = 0);

// The effective sample size of weights (0 allowed) a row: (sum w)^2/(n sum w^2).
double relative_ess(std::span<const double> weights);

// The running mean of exp(log alpha) over batches, Z <- decay Z + (1 - decay) mean, in logarithms; the first batch sets it.
class Normaliser {
 public:
  explicit Normaliser(double decay);  // throws unless 0 <= decay < 1
  // Takes a batch in; its weights alpha/Z with the new Z. Throws Error(numerical) when no weight is finite and above 0.
  std::vector<double> weights(std::span<const double> log_weights);
  double log_z() const { return log_z_; }
  void visit_state(StateVisitor& v);

 private:
  double decay_, log_z_ = 0;
  bool started_ = false;
};

}  // namespace costate::finetune
