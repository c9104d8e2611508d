// The divergence of a tuned chain from its base, measured along tuned trajectories: two estimators of the path KL from the
// sums of sde/girsanov.h. It bounds the KL of the terminal laws and equals it at the memoryless optimum. Reference: arXiv
// 2409.08861, eq. 18.
#pragma once
#include <costate/finetune/evaluate/estimate.h>
#include <costate/sde/girsanov.h>

#include <cstdint>
#include <span>
#include <vector>

namespace costate::finetune {

class PathKl {
 public:
  explicit PathKl(std::int64_t rows) : ratio_(rows) {}

  // One step of all trajectories, as sde::PathRatio::add.
  template <class T>
  void add(int dim, const T* control, const T* noise) {
    ratio_.add(dim, control, noise);
  }

  std::span<const double> cost() const { return ratio_.cost(); }            // sum |u|^2/2, one a trajectory
  std::span<const double> log_ratio() const { return ratio_.log_ratio(); }  // sum u . e + |u|^2/2, one a trajectory

  Estimate control_cost() const {
    return mean_estimate(cost());
  }  // the estimator of less variance: report this one
  Estimate girsanov() const { return mean_estimate(log_ratio()); }

  // G = reward - log(p^u/p): log weights from the tuned chain to the tilted base chain (importance.h).
  // rewards (rows).
  std::vector<double> tilted_log_weights(std::span<const double> rewards) const;

 private:
  sde::PathRatio ratio_;
};

// Relative control error of a step, sum |u - u*|^2/sum |u*|^2 over `count` numbers; NaN where u* = 0
// throughout.
template <class T>
double relative_control_error(std::int64_t count, const T* control, const T* optimal);

}  // namespace costate::finetune
