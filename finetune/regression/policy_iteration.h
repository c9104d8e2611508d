// Exact policy iteration backwards in time (PI-FT: Han, Razaviyayn, Xu, arXiv 2412.18164), without networks and samples:
// where the expectation can be computed, the fixed point of each step,
//   d <- (1 - w) d + w (std_k^2/b_k) E[grad V_{k+1}(mean_k(x) + d(x) + std_k e)],   d_k = std_k u_k the mean shift,
// is iterated until it stands, and V_k follows from the policy,
//   V_k(x) = E[V_{k+1}(mean_k + d_k + std_k e)] - b_k |d_k|^2/(2 std_k^2) - f_k(x).
// The undamped map (w = 1) contracts by the largest |kappa|, kappa the eigenvalues of std_k^2/b_k Hess V_{k+1}. kappa >= 1: the
// step has no optimum, Error(numerical) with step and kappa. kappa < -1: it has one, which w = 1/(1 + |kappa|) finds.
#pragma once
#include <costate/finetune/control_problem.h>

#include <functional>
#include <span>
#include <vector>

namespace costate::finetune {

struct PolicyIterationOptions {
  std::vector<double> kl_weights{};  // b_k, (K); one number stands for all, none for ones
  int iterations = 10000;            // at most, a step; Error(numerical) with step and kappa when they do not suffice
  double tolerance = 1e-13;          // the change, relative to 1 + |d|, at which the fixed point stands
  bool damping = true;               // w = 1/(1 + |kappa|) where the lowest kappa is negative; false: w = 1
  // Called with the norm of each change of d, if given. Affine chains only.
  std::function<void(int k, int iteration, double change)> visit{};
};

// x^T Q x/2 + b^T x + c: Q (dim x dim) row-major and symmetric.
struct Quadratic {
  std::vector<double> Q, b;
  double c = 0;
};
// M x + m, M (dim x dim) row-major.
struct AffineMap {
  std::vector<double> M, m;
};

// A chain with affine means: x_{k+1} = mean_k(x_k) + std_k e_k.
struct AffineChain {
  int dim = 1;
  std::vector<AffineMap> mean;  // (K)
  std::vector<double> std;      // (K)
};
// The chain of an exact network on data N(mean_i, variance_i) in coordinate i, all independent.
AffineChain affine_chain(const sde::Chain& chain, std::span<const double> mean, std::span<const double> variance);

struct AffinePolicy {
  std::vector<Quadratic> value;     // V_0..V_K
  std::vector<AffineMap> shift;     // d_k, (K); zero where there is no noise
  std::vector<double> contraction;  // (K): the measured ratio of the last two changes that were above rounding; 0 without any
  struct Extremes {
    double lowest = 0, highest = 0;
  };
  std::vector<Extremes> kappa;      // (K)
};
// `costs`: f_k, (K) or none.
AffinePolicy iterate_policy(const AffineChain& chain, const Quadratic& terminal, const PolicyIterationOptions& options = {},
                            std::span<const Quadratic> costs = {});

// Mean and covariance (dim x dim) of x_K under a policy, from x_0 ~ N(0, I); and its divergence from the base,
// E sum_k |d_k|^2/(2 std_k^2).
struct PolicyLaw {
  std::vector<double> mean, covariance;
  double kl = 0;
};
PolicyLaw law_of(const AffineChain& chain, std::span<const AffineMap> shift);

// In one dimension, for any base, reward and state cost: values on a grid of points, splines between, straight lines
// outside; expectations by the trapezoidal rule.
struct GridPolicyOptions {
  double low = -6, high = 6;
  int points = 801;
  int nodes = 49;  // of the expectation over e, between -7 and 7
  PolicyIterationOptions iteration{.tolerance = 1e-11};
};
struct GridPolicy {
  std::vector<double> x;                      // the grid
  std::vector<std::vector<double>> value;     // (K+1)(points)
  std::vector<std::vector<double>> slope;     // their derivatives, of the splines
  std::vector<std::vector<double>> shift;     // d_k, (K)(points)
  std::vector<AffinePolicy::Extremes> kappa;  // (K): over the grid

  // By linear interpolation, straight on outside.
  double shift_at(int k, double at) const;
  double slope_at(int k, double at) const;
};
// Of a problem whose samples have one feature. The base and the reward are called with points of the grid in f64.
GridPolicy iterate_policy(const ControlProblem& problem, const GridPolicyOptions& options = {});

}  // namespace costate::finetune
