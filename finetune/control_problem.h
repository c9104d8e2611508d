// What every objective optimises: a base chain, a reward at its end, and the law of its paths.
//
//   x_{k+1} = mean_k(x_k) + d_k(x_k) + std_k e_k,   d_k = C_k (tuned - base)(x_k, t_k),   u_k = d_k/std_k,
//   maximise  E[lambda r(x_K) - sum_k f_k(x_k)] - KL(P_u || P),   KL = E sum_k |u_k|^2/2   (Girsanov, exact),
// whose optimum is the path law P exp(lambda r - sum f)/Z conditional on x_0: on memoryless chains the terminal law is
// p_base exp(lambda r)/Z. lambda = 1/a where papers write a temperature a for the weight of the divergence.
#pragma once
#include <costate/finetune/reward.h>
#include <costate/sde/step.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace costate::finetune {

// x_0 for `rows` samples; null stands for N(0, I). Rows depend on (key, row) alone.
using InitialLaw = std::function<Tensor(std::int64_t rows, const sde::NoiseKey& key)>;

struct ControlProblem {
  sde::Chain chain;    // of single steps
  sde::Field base;     // the frozen prediction that tuned ones are perturbations of
  Shape sample_shape;  // without the axis of rows
  Reward reward;
  double reward_multiplier = 1.0;  // lambda

  // f_k(x): (rows, ...) -> (rows,), the cost of step k (times its length), from ops; null: none. It is a cost: lambda does
  // not multiply it.
  std::function<Var(int k, const Var& x)> state_cost{};
  // Problems that stop: from the first k with running(x_k) = 0 a row stays where it is, at no cost and with no control.
  // (rows, ...) -> (rows,), 1 or 0; null: nothing stops.
  std::function<Tensor(const Tensor& x)> running{};
  // Whether the derivative of a path's cost along the path is that of its expectation: not where a path stops at a cost that
  // jumps. Objectives that differentiate paths refuse what is not (require_pathwise).
  bool pathwise = true;
  InitialLaw initial{};
  std::vector<std::int32_t> labels{};  // the labels of trajectories are drawn uniformly from these; none: unconditional
  Device device = Device::cpu;

  // Steps with noise, in order: a control is a mean shift in units of the noise, there is none without.
  std::vector<int> controlled_steps() const;
  // Throws Error(argument), on behalf of `what`, unless chain, base and reward are there, the chain is one of single steps
  // and some step has noise.
  void check(const char* what) const;
  // Throws Error(argument) on behalf of an objective that differentiates paths.
  void require_pathwise(const char* what) const;
  // Throws Error(argument) on behalf of an objective that takes every path to step K.
  void require_endless(const char* what) const;

  Tensor initial_states(std::int64_t rows, const sde::NoiseKey& key) const;  // (rows, sample shape)
  // (rows,) of i32, or undefined without labels: a function of (key, row).
  Tensor draw_labels(std::int64_t rows, const sde::NoiseKey& key) const;
};

}  // namespace costate::finetune
