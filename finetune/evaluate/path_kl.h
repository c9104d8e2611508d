// The divergence of a tuned chain from its base, measured along tuned trajectories. With the control
// u_k = (tuned mean - base mean)/std_k and the noise e_k of the step, the log density ratio of the tuned to
// the base path is (Girsanov, exact for Gaussian chains of equal std)
//   log(p^u/p) = sum_k [u_k . e_k + |u_k|^2/2],
// whose mean under the tuned chain is the path KL; sum_k |u_k|^2/2 has the same mean and less variance. The
// path KL bounds the KL of the terminal laws and equals it at the memoryless optimum. A step with std = 0 has
// no control and is left out. Reference: arXiv 2409.08861, eq. 18.
#pragma once
#include <costate/finetune/evaluate/estimate.h>

#include <cstdint>
#include <span>
#include <vector>

namespace costate::finetune {

class PathKl {
 public:
  explicit PathKl(std::int64_t rows);  // trajectories; throws unless rows >= 1

  // One step of all trajectories: controls u_k and noises e_k, both (rows, dim) row-major. T is float or
  // double.
  template <class T>
  void add(int dim, const T* control, const T* noise);

  std::int64_t rows() const { return static_cast<std::int64_t>(cost_.size()); }
  std::span<const double> cost() const { return cost_; }            // sum |u|^2/2, one a trajectory
  std::span<const double> log_ratio() const { return log_ratio_; }  // sum u . e + |u|^2/2, one a trajectory

  Estimate control_cost() const {
    return mean_estimate(cost_);
  }  // the estimator of less variance: report this one
  Estimate girsanov() const { return mean_estimate(log_ratio_); }

  // G = reward - log(p^u/p): log weights from the tuned chain to the tilted base chain (importance.h).
  // rewards (rows).
  std::vector<double> tilted_log_weights(std::span<const double> rewards) const;

 private:
  std::vector<double> cost_, log_ratio_;
};

// Relative control error of a step, sum |u - u*|^2/sum |u*|^2 over `count` numbers; NaN where u* = 0
// throughout.
template <class T>
double relative_control_error(std::int64_t count, const T* control, const T* optimal);

}  // namespace costate::finetune
