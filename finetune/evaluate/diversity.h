// How far samples lie from each other, and one-dimensional histograms.
#pragma once
#include <span>
#include <vector>

namespace costate::finetune {

// Mean over pairs i < j of |x_i - x_j|. x: at least 2 rows of `dim` numbers (else throws Error(argument)).
// O(rows^2 dim).
double mean_pairwise_distance(int dim, std::span<const double> x);

// Mean over pairs i < j of |x_i - x_j|^2, the diversity of arXiv 2409.08861, Appendix G.4: twice the trace of
// the unbiased covariance, in O(rows dim).
double mean_pairwise_squared_distance(int dim, std::span<const double> x);

// sum_ij |x_i - x_j|^2/(2 n (n - 1)), the "variance" of generated sets that fine-tuning studies report (of features of
// pictures): half of the above, the trace of the unbiased covariance.
inline double pairwise_variance(int dim, std::span<const double> x) { return mean_pairwise_squared_distance(dim, x) / 2; }

// The share of the mass in each of `bins` equal cells of [low, high), and outside. Everything sums to 1.
struct Histogram {
  double low, high;
  std::vector<double> mass;  // (bins)
  double below, above;       // x < low, x >= high
  double density(int bin) const { return mass[bin] * static_cast<double>(mass.size()) / (high - low); }
  double centre(int bin) const { return low + (high - low) * (bin + 0.5) / static_cast<double>(mass.size()); }
};
// `weights` (one a value, nonnegative) or empty for equal ones.
Histogram histogram(std::span<const double> values, double low, double high, int bins,
                    std::span<const double> weights = {});

}  // namespace costate::finetune
