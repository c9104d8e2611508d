// Best of n: of n samples the one with the largest reward. The law of the result has density n F(r(x))^{n-1} p_base(x), F the
// distribution function of rewards under the base (without ties), so that its divergence is known without the densities:
//   KL(best of n || base) = log n - (n - 1)/n.
// The simplest way to spend evaluations at sampling time, and the frontier of reward against divergence that fine-tuning is
// measured by. References: Stiennon et al., arXiv 2009.01325, Appendix G.3; with ties the formula is an upper bound (Beirami
// et al., arXiv 2401.01879).
#pragma once
#include <costate/finetune/reward.h>
#include <costate/sde/field.h>

#include <functional>
#include <span>
#include <vector>

namespace costate::finetune {

// log n - (n - 1)/n, n >= 1.
double best_of_n_kl(std::int64_t n);

// The expected largest of n of these rewards, without sampling again: the mean over all subsets of n of the m rewards,
//   sum_i r_(i) C(i - 1, n - 1)/C(m, n) with r_(1) <= ... <= r_(m),
// an unbiased estimate of E max for 1 <= n <= m.
double expected_best_of_n(std::span<const double> rewards, std::int64_t n);

struct BestOfN {
  Tensor x;                    // (count, ...)
  std::vector<double> reward;  // (count)
};

// `draw(round)` gives `count` samples, others in every round, of one shape; for each row the best of n rounds is kept, the
// first of equals. Two batches are in memory at a time. On the meta device the same memory is asked for.
BestOfN best_of_n(std::int64_t n, const Reward& reward, const std::function<Tensor(std::int64_t round)>& draw);

}  // namespace costate::finetune
