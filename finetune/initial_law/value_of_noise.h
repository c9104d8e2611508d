// The value of the noise that a path starts from, which the optimal initial law is made of.
//
// Where x_0 and x_K are not independent, the reward tilts the initial law too: of all drifts and initial laws,
//   E[lambda r(x_K) - sum f] - KL(nu || N(0, I)) - KL(P_u || P given x_0)   is largest for
//   nu* = N(0, I) exp(v_0)/Z,   v_0(x_0) = log E_base[ exp(lambda r(x_K) - sum_k f_k(x_k)) | x_0 ],
// together with the optimal control; the terminal law is then p_base exp(lambda r)/Z for any schedule with noise.
// Uehara et al. (ELEGANT), arXiv 2402.15194; Tang and Zhou, arXiv 2403.06279.
#pragma once
#include <costate/finetune/control_problem.h>
#include <costate/finetune/learner.h>
#include <costate/finetune/objective.h>

#include <string_view>

namespace costate::finetune {

// What a network v is fitted to, with y = lambda r - sum f of each of n paths from the same x_0:
enum class NoiseRegression : std::uint8_t {
  gamma,          // min e^{y - v} + v: e^v is the conditional mean of e^y, whatever the scale of y
  least_squares,  // min (e^v - e^y)^2 in units of the mean of e^y: the same minimiser, led by the largest rewards
  log_mean,       // min (v - log mean_n e^y)^2: robust, and low by Var(e^y)/(2 n (E e^y)^2)
};
std::string_view name(NoiseRegression regression);
NoiseRegression noise_regression(std::string_view name);  // throws Error(argument) for another word, with a suggestion

struct ValueOfNoiseOptions {
  std::int64_t hidden = 64;
  int depth = 2;
  std::int64_t iterations = 400, batch = 256;
  int rollouts = 4;  // paths from each x_0
  NoiseRegression regression = NoiseRegression::gamma;
  std::uint64_t seed = 0;
  LearnerOptions learner{};
};

// v(x_0): (rows, ...), labels (rows,) or undefined -> (rows,): an affine function plus a perceptron, with as many outputs as
// there are classes (0: one). t is not looked at. The perceptron's last layer starts at zero.
nn::Network make_value_of_noise(const Shape& sample, std::int64_t classes, const ValueOfNoiseOptions& options, Device device);

// Fits `value` on paths of the base. The first batch sets the offset of v to the logarithm of its mean e^y. After each update
// on_step(n, metrics) is called, n = 1..iterations, with loss, value (the mean of v) and log_z (log mean e^y of the batch).
// An iteration costs `rollouts` K rows of the base and `rollouts` rewards for each of its x_0.
// Throws Error(numerical) when no reward of a batch could be computed; paths with invalid rewards are left out.
nn::Network train_value_of_noise(const ControlProblem& problem, nn::Network value, const ValueOfNoiseOptions& options,
                                 const std::function<void(std::int64_t, const Metrics&)>& on_step = {});

}  // namespace costate::finetune
