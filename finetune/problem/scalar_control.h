// Control of one coordinate in a potential, solved on a grid: with the drift b = -Psi',
//   dX = (b(X) + u) dt + dB,   min E[int (u^2/2 + f(X)) dt + g(X_T)],
// V = -log psi turns the Hamilton-Jacobi-Bellman equation into the linear one of psi = E[e^{-int f - g}],
//   d_t psi + psi''/2 + b psi' - f psi = 0,   psi(x, T) = e^{-g(x)},   u* = d_x log psi.
// The generator is discretised by finite volumes in its self-adjoint form psi''/2 + b psi' = e^{2 Psi} (e^{-2 Psi} psi')'/2,
// which keeps psi positive and the constants exact, and stepped by implicit Euler. V is then extrapolated: from steps of h,
// h/2, h/4 in time and of 1, 1/2 cells in space, so that errors are O(h^3 + width^4) where the solution is smooth.
// Reference: arXiv 2312.02027, Section 5 (double well, molecular dynamics).
#pragma once
#include <costate/finetune/problem/grid_function.h>

#include <functional>

namespace costate::finetune {

struct ScalarControlProblem {
  std::function<double(double x)> potential;  // Psi
  std::function<double(double x)> running;    // f
  std::function<double(double x)> terminal;   // g
  UniformGrid grid{-2.75, 2.75, 1000};        // the ends reflect; put them where X does not get
  // The process stops, at no further cost, when it reaches grid.high.
  bool stops_at_high = false;
  double horizon = 1;  // T
};

// Psi = kappa (x^2 - 1)^2, f = 0, g = nu (x^2 - 1)^2.
ScalarControlProblem double_well(double kappa, double nu);
// The time to leave the left well of Psi = kappa (x^2 - 1)^2, at most T: f = 1 until x reaches 0, g = 0.
ScalarControlProblem well_exit(double kappa = 1);

// The least cost from x0 of the chain x_{k+1} = x_k + h (b(x_k) + u_k) + sqrt(h) e_k, h = T/steps, with the running costs
// h (u_k^2/2 + f(x_k)), over all controls u_k(x); where the problem stops, from the first k with x_k >= grid.high on. By
// dynamic programming on the problem's grid, which must be finer than sqrt(h): expectations are sums over its points, with end
// corrections (Gregory's) at the jump of the value where the process stops; the error is O(width^4). Throws Error(argument)
// when the drift's steps leap off the grid, Error(numerical) when a step has no best control.
double chain_optimal_cost(const ScalarControlProblem& problem, double x0, int steps);

class ScalarControl {
 public:
  // V is kept at `levels` + 1 equidistant times, each interval of `steps` implicit Euler steps at the coarsest. Throws
  // Error(argument) for a grid or a number that is out of range, Error(numerical) where psi underflows.
  explicit ScalarControl(ScalarControlProblem problem, int levels = 200, int steps = 4);

  // At the kept times to the accuracy of the method, between them by cubic interpolation in t. 0 where the process has
  // stopped; beyond a reflecting end the value at the end.
  double value(double x, double t) const { return interpolate(x, t, false); }
  double control(double x, double t) const { return interpolate(x, t, true); }  // u* = -dV/dx

  const ScalarControlProblem& problem() const { return problem_; }

 private:
  std::vector<std::vector<double>> solve(int refine_space, int steps) const;
  double interpolate(double x, double t, bool control) const;

  ScalarControlProblem problem_;
  int levels_;
  std::vector<GridFunction> value_;  // (levels + 1)
};

}  // namespace costate::finetune
