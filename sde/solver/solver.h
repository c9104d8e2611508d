// Solvers of stochastic differential equations: one row a method, one file a method. A step maps a state and a Brownian
// increment to the next state, in ops, so that it can be recorded and pulled back; it knows no grid, no adjoint and no path.
//
//   euler_maruyama   x + h b + sigma w                                     (Kloeden and Platen 1992, 10.2)
//   milstein         its derivative-free correction for diagonal noise     (Kloeden and Platen 1992, 11.1)
//   heun             Stratonovich: average of b and sigma at both ends     (Kloeden and Platen 1992, 14.1 and 15.1)
//   sra1             strong order 1.5 for additive noise, with I_(1,0)     (Roessler, SIAM J. Numer. Anal. 48, 2010)
//   reversible_heun  one evaluation a step, algebraically reversible       (Kidger et al., arXiv 2105.13493, Algorithms 1-2)
//   midpoint, rk4    for equations without noise                           (Runge 1895, Kutta 1901)
//
// Reversibility has its price: on dX = a X dt a step of reversible_heun multiplies its two modes by q + sqrt(q^2 + 1) and
// q - sqrt(q^2 + 1), q = a h, whose product is -1. A contracting drift damps one and amplifies the other, z - x, like e^{|a| t}
// whatever h is. It wants drifts of bounded slope and short times, and diverges in a cubic well.
#pragma once
#include <costate/sde/brownian.h>
#include <costate/sde/sde.h>
#include <span>
#include <string>
#include <string_view>

namespace costate::sde {

// [0] is x; further entries are the method's own.
using SolverState = std::vector<Var>;

struct StepInterval {
  double t0, t1;
  double h() const { return t1 - t0; }
};

struct Solver {
  std::string_view name;
  // Of the equation that it converges to when the noise depends on the state. Without such noise both are the same.
  Calculus calculus;
  // Root mean square error at a fixed time = O(h^order), for noise that does not depend on the state, and for diagonal
  // noise; 0: such noise is refused.
  double strong_order_additive, strong_order_diagonal;
  // Error of the mean of a smooth function = O(h^order), with noise that does not depend on the state, and with any noise.
  double weak_order_additive, weak_order;
  // Error without noise.
  double ode_order;
  bool matrix_noise;           // accepts matrix noise, with the orders of additive noise
  int drift_evaluations;       // a step
  int diffusion_evaluations;   // of diagonal noise, a step
  bool area;                   // reads Increment::area
  bool adds_noise_last;        // additive noise enters the result alone, so that no derivative of a step depends on it
  bool reversible;             // has `unstep`
  // The state at t0. Null: {x0}, for nothing; reversible_heun evaluates drift and diffusion once.
  SolverState (*start)(const Sde&, const Var& x0, double t0, const Tensor& labels);
  // The state at t1 from that at t0 and the increment over the interval (w undefined where there is no noise;
  // a solver that adds noise last leaves additive noise out when w is undefined).
  SolverState (*step)(const Sde&, const SolverState&, StepInterval, const Increment&, const Tensor& labels);
  // The state at t0 from that at t1, by algebra and up to rounding; null unless reversible.
  SolverState (*unstep)(const Sde&, const SolverState& next, StepInterval, const Increment&, const Tensor& labels);
};

std::span<const Solver> solvers();
// The solver of this name; any other word is an Error(argument) with a suggestion.
const Solver& solver(std::string_view name);

// A sentence why this equation cannot be solved with this solver, naming one that can; empty if it can.
std::string refusal(const Solver& solver, const Sde& sde);

// solver.start, or {x0} where it is null.
SolverState start(const Solver& solver, const Sde& sde, const Var& x0, double t0, const Tensor& labels);
// What a step of this solver reads of the path, for states like x: nothing where there is no noise, and the area only where
// the solver reads it.
Increment step_increment(const Solver& solver, const Sde& sde, const BrownianPath& path, StepInterval interval,
                         const Tensor& x);

}  // namespace costate::sde
