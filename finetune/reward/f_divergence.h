// Rewards under another divergence than the Kullback-Leibler one. Of all laws p, the one that maximises
//   E_p[r] - a D_f(p || q),   D_f(p || q) = E_q[f(dp/dq)],   f convex, f(1) = 0,
// has the density w*(s) = (f')^{-1}(s), s = (r(x) - lambda)/a, with respect to the base q (0 where f' does not reach down to
// s); the multiplier lambda makes it a law, E_q[w*] = 1. The same w* of the end point is the optimal density among laws of
// paths, because D_f of paths is at least D_f of end points, with equality for densities that depend on end points only. So
// fine-tuning under D_f is fine-tuning under KL with the reward a' log w*(x) at temperature a', whatever a' (Tang 2024, arXiv
// 2403.06279, treats f-divergences): every objective of this library takes it unchanged.
//
//   name               f(t)                          f'(t)                 w*(s)                   for s           (log w*)'
//   reverse_kl         t log t                       log t + 1             e^(s-1)                 all             1
//   forward_kl         -log t                        -1/t                  -1/s                    s < 0           -1/s
//   jensen_shannon     t log t - (t+1) log((t+1)/2)  log(2t/(1+t))         e^s/(2 - e^s)           s < log 2       2/(2 - e^s)
//   pearson            (t-1)^2                       2(t-1)                (1 + s/2)_+             all             1/(2 + s)
//   neyman             (1-t)^2/t                     1 - 1/t^2             (1-s)^(-1/2)            s < 1           1/(2(1-s))
//   squared_hellinger  (sqrt t - 1)^2                1 - 1/sqrt t          (1-s)^(-2)              s < 1           2/(1-s)
//   alpha              (t^A - A t - (1-A))/(A(A-1))  (t^(A-1) - 1)/(A-1)   b_+^(1/(A-1)),          b > 0 if A < 1  1/b
//                                                                          b = 1 + (A-1)s
//
// The alpha family (Amari) has reverse KL at A = 1, forward KL at A = 0, half of Pearson's at A = 2, half of Neyman's at
// A = -1, twice Hellinger's at A = 1/2. Total variation is not here: its optimum puts a whole atom of mass on the largest
// reward, which no density, and no control, realises; `f_divergence` says so.
#pragma once
#include <costate/finetune/reward/reward.h>

#include <span>
#include <string_view>

namespace costate::finetune {

struct FDivergence {
  enum class Kind { reverse_kl, forward_kl, jensen_shannon, pearson, neyman, squared_hellinger, alpha };
  Kind kind = Kind::reverse_kl;
  double alpha = 0.5;  // A of the alpha family

  double f(double t) const;          // t >= 0; infinite at 0 where the limit is
  double slope(double t) const;      // f'(t), t > 0
  double conjugate(double s) const;  // f^*(s) = sup_{t >= 0} (s t - f(t)); infinite where s is not below supremum()
  double density(double s) const;    // w*(s); infinite where s is not below supremum()
  double log_density(double s) const;
  double log_density_slope(double s) const;  // (log w*)'(s); 0 where w* is 0 or infinite
  double supremum() const;                   // s from which on there is no density: f'(infinity), or infinity
};

// By the names of the table; `alpha` is looked at for the alpha family alone. Throws Error(Fault::argument) for others, for
// total_variation with the reason.
FDivergence f_divergence(std::string_view name, double alpha = 0.5);

// The optimum, from rewards of samples of the base.
struct DivergenceTilt {
  FDivergence divergence;
  double temperature = 1;         // a
  double lambda = 0;              // the multiplier of mass
  double standard_error = 0;      // of lambda, by the delta method: deviation(w*) / (sqrt n E_q[w*'(s)]/a)
  double floor = 0, ceiling = 0;  // w* is taken to lie between them

  // Estimates from the same samples.
  double mean_reward = 0;        // E_p r
  double divergence_value = 0;   // D_f(p || q)
  double value = 0;              // E_p r - a D_f
  double dual_value = 0;         // a E_q[f^*((r - lambda)/a)] + lambda: equal to `value`, by Fenchel's duality
  double floor_share = 0;        // share of base samples with w* at the floor, whose gradient is 0
  double ceiling_share = 0;      // and at the ceiling
  double largest_share = 0;      // of the tuned law that the best sample carries
  double effective_samples = 0;  // (sum v w*)^2 / sum (v w*)^2

  double log_density(double reward) const;        // log of w* between floor and ceiling
  double log_density_slope(double reward) const;  // its derivative by the reward; 0 beyond them
};

struct DivergenceTiltOptions {
  double temperature = 1;              // a > 0
  double floor = 1e-6, ceiling = 1e6;  // 0 < floor < 1 < ceiling
};
// rewards (n) of samples of q, with importance weights (n) when q is not what they were drawn from (empty: equal; any sum).
// lambda by bisection to the last bit. Throws Error(Fault::argument) for fewer than two samples or bad weights;
// Error(Fault::numerical) for rewards that are not finite, and where no density solves the problem: for divergences with a
// finite supremum, when the law cannot be had from all but the best sample, at the smallest lambda that this sample allows:
// then a share of the mass sits on that sample however many there are (rewards too peaked, or a too small).
DivergenceTilt divergence_tilt(const FDivergence& divergence, std::span<const double> rewards,
                               const DivergenceTiltOptions& options = {}, std::span<const double> weights = {});

// temperature log w*(r(x)): fine-tuning raises it with the multiplier 1/temperature. A black box when r is one; the policy on
// failures is that of r, with its bounds transformed as its values are.
Reward f_divergence_reward(const Reward& r, const DivergenceTilt& tilt, double temperature);

}  // namespace costate::finetune
