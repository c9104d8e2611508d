// Losses of the likelihood of whole paths. With S = lambda r(x_K) - sum_k f_k and L = log p_theta/p_base of a path that any
// policy v has made, the optimal law is p_base e^S / Z: the log weight
//   G = S - L
// is then the constant log Z on every path (on every path of one x_0, where x_0 is not forgotten).
//   log variance          Var(G)                             Nuesken and Richter, arXiv 2005.05409
//   moment                E (G - y_0)^2, y_0 learned         Hartmann, Kebiri, Neureither, Richter, Chaos 29 (2019)
//   trajectory balance    E (G - log Z)^2 / 2                Malkin et al., arXiv 2201.13259; batch mean: arXiv 2010.10436
//   variance              Var(e^G) / Z^2                     the relative variance of the weights of importance sampling
//   cross entropy         -E[ w L ], w = e^{S - L_v} / Z     KL(P* || P_theta) up to a constant, by importance sampling
// All expectations are over paths of v, which is not differentiated: the gradient of each is that of
// -sum_i weight_i log p_theta(path i).
// Over paths of v = theta the gradient of trajectory balance with the batch mean, and half that of log variance, have the
// mean of the gradient of KL(P_theta || P*), as -E[(G - c) grad L] is that gradient for every constant c.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace costate::finetune {

struct PathLoss {
  double loss = 0;
  std::vector<double> weight;  // (paths): -d loss / d L_i
  double log_z_gradient = 0;   // d loss / d log Z, where that is learned
};

// The mean over sets of `set` paths each of the unbiased variance of G. Throws unless sets have 2 paths and fill the batch.
PathLoss log_variance(std::span<const double> G, std::int64_t set);
PathLoss moment(std::span<const double> G, double y0);
PathLoss trajectory_balance(std::span<const double> G, double log_z);
// log Z = the mean of G over the set.
PathLoss trajectory_balance_by_sets(std::span<const double> G, std::int64_t set);
// The unbiased variance of e^{G - log_z}, log_z a constant. Throws for a single path.
PathLoss variance(std::span<const double> G, double log_z);
// -mean of e^{log_weight - log_z} L: log_weight = S - L_v of the policy that made the paths.
PathLoss cross_entropy(std::span<const double> log_weight, std::span<const double> L, double log_z);

double log_mean_exp(std::span<const double> v);
// (sum w)^2 / (n sum w^2) of w = e^v, in (0, 1]: 1 at the optimum.
double effective_share(std::span<const double> v);

}  // namespace costate::finetune
