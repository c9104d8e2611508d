// The control problems of arXiv 2312.02027 (Section 5) in a form that fine-tuning objectives run on: from one point x_0,
//   min E[int_0^T (|u|^2/2 + f(X)) dt + g(X_T)],   dX = (b(X) + sigma u) dt + sigma dB,
// in the coordinates y = sigma^{-1} x and by Euler-Maruyama steps of h, that is the Gaussian chain
//   y_{k+1} = y_k + h (b(y_k) + u_k(y_k)) + sqrt(h) e_k,   A = 1, C = h, std = sqrt(h),
// whose "prediction" is the drift: b is the base field, b + u the tuned one, h u the mean shift, sqrt(h) u the discrete
// control. The coordinates change neither controls nor costs.
//
//   quadratic_ou_easy  d = 20  b = 0.2 x, f = 0.2 |x|^2, g = 0.1 |x|^2, x_0 = N(0, 1/4) drawn once     Riccati equation
//   quadratic_ou_hard  d = 20  b = x, f = |x|^2, g = |x|^2/2, x_0 as before                            Riccati equation
//   linear_ou          d = 10  b = (-I + xi) x, sigma = I + xi, g = sum x_i, xi = N(0, 1/100) drawn once   closed form
//   double_well        d = 10  b = -4 kappa_i x_i (x_i^2 - 1), g = sum nu_i (x_i^2 - 1)^2, x_0 = 0;
//                              (kappa, nu) = (5, 3) for three coordinates, (1, 1) for seven            finite volumes
//   molecular_dynamics d = 1   b = -4 x (x^2 - 1), f = 1 until X reaches 0, x_0 = -1                   finite volumes
#pragma once
#include <costate/finetune/problem/quadratic_control.h>
#include <costate/finetune/reward.h>
#include <costate/sde/field.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace costate::finetune {

struct ControlBenchmark {
  std::string name;
  int dim = 1;       // samples have shape {dim}
  sde::Chain chain;  // K steps on [0, T], T = 1
  sde::Field base;   // b, of ops: it can be differentiated twice, by x
  // h f(x_k) of step k, (rows, dim) -> (rows,), of ops; not set where there is no running cost.
  std::function<Var(int k, const Var& x)> state_cost;
  Reward reward;           // -g
  std::vector<double> x0;  // (dim), in y as everything here
  // u*(x, t), (rows, dim) of x's type, without derivatives: that of continuous time.
  std::function<Tensor(double t, const Tensor& x)> optimal_control;
  double optimal_cost = 0;  // V(x_0, 0) in continuous time: steps of h miss it by O(h), with stopping by O(sqrt(h))
  // The least cost of the chain itself over all controls u_k(x), which is what learning on it can reach: by the Riccati
  // recursion or by dynamic programming on a grid. Not known for few steps, which leap across the wells' walls: below 100 of
  // double_well, 30 of molecular_dynamics.
  std::optional<double> chain_optimal_cost{};

  // Problems that stop. The chain's table cannot say that a row has stopped, which depends on its past, so rollouts must: from
  // the first k with running(x_k) = 0 the row stays where it is, at no cost, with no control, and its reward is that of the
  // place. (rows, dim) -> (rows,), 1 or 0; not set where nothing stops.
  std::function<Tensor(const Tensor& x)> running;
  // Whether the derivative of a path's cost along the path is that of its expectation. Not so with stopping: a cost of 1 until
  // the stop has no derivative by the states, only its expectation has, through the chance to stop. Objectives that
  // differentiate paths (adjoint matching, backpropagation) see nothing to learn there; those that weigh log-densities
  // (cross-entropy, log-variance, policy gradients) do.
  bool pathwise = true;

  struct Published {
    int steps, batch, iterations;
  } published{};

  int steps() const { return chain.steps(); }
  double step() const { return chain.C.front(); }  // h
};

struct ControlBenchmarkOptions {
  int steps = 0;           // K; 0: as published
  std::uint64_t seed = 0;  // of what is drawn once: x_0 and xi
};

// In the order above.
std::span<const std::string_view> control_benchmark_names();
// The problem of this name; any other word is an Error(argument) with a suggestion.
ControlBenchmark control_benchmark(std::string_view name, const ControlBenchmarkOptions& options = {});

// Any linear-quadratic problem from x0 (in x) in the same form, with its optimum.
ControlBenchmark quadratic_benchmark(std::string name, const QuadraticControlProblem& problem, std::span<const double> x0,
                                     int steps);

// b + u*, to be sampled with but not differentiated. Rows share their time.
sde::Field optimal_field(const ControlBenchmark& benchmark);

}  // namespace costate::finetune
