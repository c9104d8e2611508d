// A Gaussian mixture tilted by the exponential of a quadratic: the fine-tuning problem whose answer is known.
// With r(x) = c^T x - (x - nu)^T Q (x - nu)/2 the tilted law p* = p e^r/Z is again a mixture,
//   S_i' = (S_i^{-1} + Q)^{-1},  m_i' = S_i' (S_i^{-1} m_i + Q nu + c),  w_i' ~ w_i E_{N(m_i, S_i)}[e^r],
// and under the memoryless noise law sigma^2 = 2 eta the control problem min E[int |u|^2/2 - r(X_1)] has
//   value     V(x, t) = -log E[e^{r(x_1)} | x_t = x],  constant and equal to -log Z where alpha(t) = 0
//   velocity  v* = v - eta grad V = the velocity of p*
//   control   u* = -sigma grad V = (2/sigma)(v* - v),   cost E int |u*|^2/2 = KL(p* || p) = E_{p*}[r] - log
//   Z.
// Reference: arXiv 2409.08861, eqs. 16-18, 26-27, Theorem 1.
#pragma once
#include <costate/finetune/problem/gaussian_mixture.h>
#include <costate/sde/schedule.h>

#include <cstdint>
#include <vector>

namespace costate::finetune {

// r(x) = c^T x - (x - nu)^T Q (x - nu)/2. An empty c or nu is zero, an empty Q makes r linear. Q is symmetric
// and may be indefinite.
struct QuadraticReward {
  std::vector<double> c;   // (dim) or empty
  std::vector<double> nu;  // (dim) or empty
  std::vector<double> Q;   // (dim, dim) or empty

  double value(const double* x, int dim) const;
  void gradient(const double* x, int dim, double* out) const;  // out (dim)
  QuadraticReward times(double factor) const;                  // factor * r
  // Throws Error(argument) unless every part is empty or has the size for `dim`, is finite, and Q is
  // symmetric.
  void check(int dim) const;
};

class MixtureTilt {
 public:
  // Throws Error(argument) where e^r is not integrable: some S_i^{-1} + Q is not positive definite.
  MixtureTilt(GaussianMixture base, QuadraticReward reward);

  const GaussianMixture& base() const { return base_; }
  const GaussianMixture& target() const { return target_; }  // p*
  const QuadraticReward& reward() const { return reward_; }
  double log_z() const { return log_z_; }                      // log E_p[e^r]
  double expected_reward() const { return expected_reward_; }  // E_{p*}[r]
  double kl() const { return expected_reward_ - log_z_; }      // KL(p* || p), and the optimal control cost

  // Batched functions as in GaussianMixture: x and out (rows, dim), one time or one a row, T float or double.
  // V(x, t), computed from the Gaussian posteriors of x_1 given x_t, not from p*. out (rows).
  template <class T>
  void value(const sde::Schedule&, std::int64_t rows, const T* x, Times t, T* out) const;
  // grad V = score of p_t - score of p*_t: the tilt leaves the noising kernel alone, so that V is a log
  // ratio.
  template <class T>
  void value_gradient(const sde::Schedule&, std::int64_t rows, const T* x, Times t, T* out) const;
  // v* = velocity of p*.
  template <class T>
  void optimal_velocity(const sde::Schedule& schedule, std::int64_t rows, const T* x, Times t, T* out) const {
    target_.velocity(schedule, rows, x, t, out);
  }
  // u* = -sigma grad V with the memoryless sigma; 0, its limit, where alpha(t) = 0.
  template <class T>
  void optimal_control(const sde::Schedule&, std::int64_t rows, const T* x, Times t, T* out) const;

 private:
  std::vector<double> gradient(const sde::Schedule&, std::int64_t rows, std::vector<double> x, Times t) const;

  GaussianMixture base_;
  QuadraticReward reward_;
  double log_z_ = 0, expected_reward_ = 0;
  GaussianMixture target_;
};

}  // namespace costate::finetune
