// How near a tuned chain is to the optimum of its control problem, from numbers that need no closed form. In units of the
// temperature 1/lambda the objective is
//   J = lambda E[r(x_K)] - KL(P_u || P) = log Z - KL(P_u || P*),   P* = P exp(lambda r)/Z on paths,
// so that J <= log Z for every control, with equality exactly at the optimum of a memoryless chain. With
// G = lambda r - log dP_u/dP along tuned paths, E[G] = J and E[e^G] = Z for every control, and Var G = 0 exactly there.
// A chain that remembers x_0 has Var[G | x_0] = 0 at its optimum, but not Var G. Reference: arXiv 2409.08861, Section 4; the
// identity is Gibbs' variational principle.
#pragma once
#include <costate/finetune/evaluate/estimate.h>
#include <costate/finetune/reward.h>

#include <span>
#include <vector>

namespace costate::finetune {

struct ControlReport {
  Estimate objective;                  // J, from sum |u|^2/2: the estimator of less variance
  Estimate path_kl;                    // KL(P_u || P), likewise
  Estimate girsanov;                   // the same from log dP_u/dP: a disagreement beyond the errors is a mistake somewhere
  Estimate log_z_of_base;              // from weights e^{lambda r} of base samples
  Estimate log_z_of_tuned;             // from weights e^G of tuned paths
  double log_weight_variance = 0;      // Var G, unbiased; NaN from one path
  double base_ess = 0, tuned_ess = 0;  // effective shares of the samples, in (0, 1]; the second tends to 1 at the optimum
  // log Z - J = KL(P_u || P*), by whichever of two estimates has the smaller standard error: log mean e^G - mean G, from the
  // same paths, whose errors cancel near the optimum (where both are the constant G); or log_z_of_base - objective, from
  // independent samples, where the control is so far off that few tuned paths carry all weight. The first is biased
  // downwards, as log_z_estimate is.
  Estimate gap;
};

// `base_rewards`: of samples of the base chain; `tuned_rewards`, `cost` (sum |u|^2/2) and `log_ratio` (log dP_u/dP): one a
// tuned path, as sde::Paths has them. Rewards without lambda. Throws Error(argument) on empty or unequal sizes.
ControlReport control_report(double lambda, std::span<const double> base_rewards, std::span<const double> tuned_rewards,
                             std::span<const double> cost, std::span<const double> log_ratio);

// Mean rewards with errors, rows: the models' samples (rows, ...); columns: rewards. What fine-tuning on one reward does to
// the others. Samples whose reward fails are dealt with by its policy.
std::vector<std::vector<Estimate>> cross_rewards(std::span<const Tensor> samples, std::span<const Reward> rewards);

}  // namespace costate::finetune
