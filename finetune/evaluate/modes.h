// How much mass a set of samples puts on each component of a mixture.
#pragma once
#include <costate/finetune/problem/gaussian_mixture.h>

#include <span>
#include <vector>

namespace costate::finetune {

enum class ModeAssignment {
  responsibility,  // each sample shared out by its posterior component probabilities: unbiased for samples of
                   // the mixture
  nearest,         // all to the component with the nearest mean (Euclidean)
};

// Shares that sum to 1, one a component. x (rows, dim) row-major; `weights` (rows) or empty for equal ones.
std::vector<double> mode_weights(const GaussianMixture& mixture, std::span<const double> x,
                                 ModeAssignment assignment = ModeAssignment::responsibility,
                                 std::span<const double> weights = {});

}  // namespace costate::finetune
