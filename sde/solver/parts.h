// What the steps of solvers are made of.
#pragma once
#include <costate/autograd/ops.h>
#include <costate/sde/solver/solver.h>

namespace costate::sde {

// b(x, t), of the shape of x (checked).
Var drift(const Sde& sde, const Var& x, double t, const Tensor& labels);

// sigma(x, t) as a value: a number, a matrix, elements, or nothing.
struct Sigma {
  Diffusion::Kind kind = Diffusion::Kind::none;
  double number = 0;
  Var value;
};
Sigma sigma(const Sde& sde, const Var& x, double t, const Tensor& labels);
// a first + b second
Sigma combine(double a, const Sigma& first, double b, const Sigma& second);

// a x + c b + s sigma w; without noise, or for additive noise whose w is undefined, a x + c b.
Var stage(double a, const Var& x, double c, const Var& b, double s, const Sigma& sigma, const Var& w);
// x + s sigma w; likewise x.
Var diffuse(const Var& x, double s, const Sigma& sigma, const Var& w);

// The steps, one file each; their rows are in solver.cpp. Arguments as of Solver::step.
SolverState euler_maruyama_step(const Sde&, const SolverState&, StepInterval, const Increment&, const Tensor& labels);
SolverState milstein_step(const Sde&, const SolverState&, StepInterval, const Increment&, const Tensor& labels);
SolverState heun_step(const Sde&, const SolverState&, StepInterval, const Increment&, const Tensor& labels);
SolverState sra1_step(const Sde&, const SolverState&, StepInterval, const Increment&, const Tensor& labels);
SolverState reversible_heun_step(const Sde&, const SolverState&, StepInterval, const Increment&, const Tensor& labels);
SolverState reversible_heun_unstep(const Sde&, const SolverState&, StepInterval, const Increment&, const Tensor& labels);
SolverState midpoint_step(const Sde&, const SolverState&, StepInterval, const Increment&, const Tensor& labels);
SolverState rk4_step(const Sde&, const SolverState&, StepInterval, const Increment&, const Tensor& labels);
SolverState reversible_heun_start(const Sde&, const Var& x0, double t0, const Tensor& labels);

}  // namespace costate::sde
