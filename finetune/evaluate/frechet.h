// Frechet distance between the Gaussians fitted to two sets of feature vectors (Dowson and Landau 1982; the
// FID of Heusel et al., arXiv 1706.08500, when the features are those of a classifier):
//   d^2 = |m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x^{1/2} S_y S_x^{1/2})^{1/2}).
#pragma once
#include <span>

namespace costate::finetune {

// x and y: rows of `dim` features. Covariances are the unbiased ones, and `ridge` times the mean variance
// (tr S_x + tr S_y)/(2 dim) is added to the diagonal of both, so that features that never vary leave them
// invertible. The estimate has a bias that falls with the number of rows: compare equal counts only. Returns
// d^2 >= 0. Throws Error(argument) unless both sets have at least 2 rows, Error(numerical) on features that
// are not finite.
double frechet_distance(int dim, std::span<const double> x, std::span<const double> y, double ridge = 1e-6);

// The same between weighted sets, such as tuned samples and samples of the base with weights exp(lambda r), the law that
// fine-tuning aims at: means sum w x and covariances sum w (x - m)(x - m)^T/(1 - sum w^2), the unbiased ones for weights
// that do not depend on x. Weights (rows), nonnegative, scaled to sum to 1, or empty for equal ones; at least two weights of
// a set must be positive. The bias is that of about as many rows as the weights' effective sample size.
double weighted_frechet_distance(int dim, std::span<const double> x, std::span<const double> x_weights,
                                 std::span<const double> y, std::span<const double> y_weights, double ridge = 1e-6);

}  // namespace costate::finetune
