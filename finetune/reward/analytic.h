// Rewards in closed form, of the flattened features of a sample.
#pragma once
#include <costate/finetune/reward/reward.h>

namespace costate::finetune {

// c^T x.
Reward linear_reward(std::vector<double> c);
// c^T x - (x - centre)^T Q (x - centre) / 2; Q row-major (dim x dim), symmetric, or a vector of its diagonal.
Reward quadratic_reward(std::vector<double> centre, std::vector<double> q, std::vector<double> c = {});

// Isotropic Gaussian mixture: means (components, dim), one variance each, weights (of any sum).
struct IsotropicMixture {
  std::vector<double> means, variances, weights;
};
// log p(x): with lambda the tuned law is the product of the base and the mixture to the power of lambda.
Reward log_density_reward(IsotropicMixture p, std::int64_t dim);
// log p_a(x) - log p_b(x).
Reward log_density_ratio_reward(IsotropicMixture a, IsotropicMixture b, std::int64_t dim);

}  // namespace costate::finetune
