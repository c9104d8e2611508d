// Fine-tuning of a one-dimensional Gaussian chain under any reward, by dynamic programming on a grid: the optimum over all mean
// shifts d_k(x) of E[r(x_K)] - a sum_k E d_k^2/(2 s_k^2) with the widths s_k held fixed,
//   V_K = r,   V_k(x) = max_d { S_k(m_k(x) + d) - a d^2/(2 s_k^2) },   S_k(y) = E V_{k+1}(y + s_k e),
// where y = m + d solves y - (s_k^2/a) S_k'(y) = m by Newton's method, damped where a step would not help. The left side
// increases while kappa_k(y) = s_k^2 S_k''(y)/a < 1, which is required. The laws of x_k under base and optimum are propagated
// forwards as densities. Expectations are trapezoidal sums over the normal density, whose error vanishes exponentially as the
// grid is refined; what remains is the interpolation between its points, h^4.
//
// Coordinates that neither data nor reward couples are problems of their own: rewards, divergences, J and log Z add, and laws
// multiply.
#pragma once
#include <costate/finetune/problem/gaussian_mixture.h>
#include <costate/finetune/problem/gaussian_moments.h>
#include <costate/finetune/problem/grid_function.h>
#include <costate/finetune/problem/kl_penalty.h>
#include <costate/sde/chain.h>

#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace costate::finetune {

// The base's prediction, of the chain's parametrisation, at points x and one time t.
using ScalarPrediction = std::function<void(double t, std::span<const double> x, std::span<double> prediction)>;

// The exact prediction for data from a one-dimensional mixture, on this chain's path and in its parametrisation.
ScalarPrediction mixture_prediction(std::shared_ptr<const GaussianMixture> mixture, const sde::Chain& chain);

struct GridControlOptions {
  double temperature = 1;  // a
  KlPenalty penalty = KlPenalty::in_return;
  int first_step = 0;      // steps before it stay the base's
  GaussianMoments initial{0, 1};  // the law of x_0, of positive variance
  // Wide enough that the laws do not reach the ends, fine enough for the value and the narrowest law.
  UniformGrid grid{-8, 8, 1600};
};

class GridControl {
 public:
  // Throws Error(argument) naming the step, kappa and the place where kappa >= 1, and for a chain of several steps' memory;
  // Error(numerical) when a law leaves the grid or a noiseless step folds it.
  GridControl(const sde::Chain& chain, const ScalarPrediction& prediction, const std::function<double(double)>& reward,
              const GridControlOptions& options = {});

  // V_k, k = 0..K (of KlPenalty::in_loss W_k), and d_k, k = 0..K-1.
  double value(int k, double x) const { return value_.at(static_cast<std::size_t>(k))(x); }
  double shift(int k, double x) const { return shift_.at(static_cast<std::size_t>(k))(x); }
  double max_kappa() const { return max_kappa_; }

  // A law of x_K by its density.
  struct Law {
    GridFunction density;
    double mean = 0, variance = 0;
    double probability_above(double x) const { return density.integral_above(x); }
  };
  struct Outcome {
    Law terminal;
    double reward = 0, path_kl = 0, objective = 0;  // E r, sum_k E d_k^2/(2 s_k^2), J
  };
  const Outcome& base() const { return base_; }
  const Outcome& tuned() const { return tuned_; }

  // The tilt p e^{r/a}/Z of the chain's own base law p, and a bound: J <= a log Z.
  const Law& tilt() const { return tilt_; }
  double log_z() const { return log_z_; }

 private:
  void solve(const sde::Chain& chain, const std::function<double(double)>& reward);
  GridFunction optimal_step(int k, double s, const std::vector<double>& mean, const GridFunction& next,
                            std::vector<double>& value);
  Outcome propagate(const sde::Chain& chain, bool tuned) const;
  Law law(GridFunction density) const;

  GridControlOptions options_;
  std::vector<std::vector<double>> mean_;  // m_k at the points
  std::vector<GridFunction> value_, shift_;
  double max_kappa_ = 0, log_z_ = 0;
  Outcome base_, tuned_;
  Law tilt_;
};

}  // namespace costate::finetune
