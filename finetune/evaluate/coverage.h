// Whether samples find all modes, in the proportions they should: counts of modes against exact weights, and precision and
// recall of point sets.
#pragma once
#include <costate/finetune/problem/gaussian_mixture.h>

#include <cstdint>
#include <span>
#include <vector>

namespace costate::finetune {

// Counts against the probabilities that they should have: Pearson's X^2 = sum (n_i - n p_i)^2/(n p_i) and the likelihood
// ratio G = 2 sum n_i log(n_i/(n p_i)), both chi-squared with categories - 1 degrees of freedom in the limit of large n p_i
// (5 and more, by the usual rule). A count where p_i = 0 makes both infinite.
struct CountTest {
  double chi_squared = 0, g = 0;
  int degrees = 0;
  double chi_squared_p = 1, g_p = 1;  // probability of at least as much from the exact law
  double total_variation = 0;         // sum |n_i/n - p_i|/2
};
// Probabilities are nonnegative and are scaled to sum to 1; at least two categories and one count.
CountTest count_test(std::span<const std::int64_t> counts, std::span<const double> probabilities);

// P(X > x) of the chi-squared law with so many degrees of freedom: the regularised upper incomplete gamma function
// Q(degrees/2, x/2) (Abramowitz and Stegun, 26.4.19 and 6.5).
double chi_squared_tail(double x, int degrees);

// Samples x (rows, dim) assigned to the component with the nearest mean, or to none if that is more than `reach` of its
// standard deviations away (Mahalanobis), against the weights of the mixture. The shares of the nearest mean are the weights
// up to the overlap of the components: a test of separated modes.
struct ModeCoverage {
  std::vector<std::int64_t> counts;  // one a component
  std::int64_t outside = 0;          // assigned to none
  int covered = 0;                   // components with more than a tenth of the mass that they should have
  CountTest test;                    // of the counts; all of its numbers are 0 resp. 1 with one component or no count
};
ModeCoverage mode_coverage(const GaussianMixture& target, std::span<const double> x, double reach = 4);

// Improved precision and recall (Kynkaanniemi, Karras, Laine, Lehtinen, Aila: arXiv 1904.06991): with B_k(X) the union of
// the balls about each point of X that reach its k-th nearest neighbour in X, precision is the share of generated points in
// B_k(real), recall the share of real points in B_k(generated). Both sets (rows, dim) with more than k rows. O(rows^2 dim).
struct PrecisionRecall {
  double precision = 0, recall = 0;
};
PrecisionRecall precision_recall(int dim, std::span<const double> real, std::span<const double> generated, int k = 3);

// -sum p log p in nats of nonnegative numbers, scaled to sum to 1; exp of it is the effective number of categories.
double entropy(std::span<const double> masses);

}  // namespace costate::finetune
