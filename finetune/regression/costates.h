// Costates along stored states: what the control of a step is regressed on,
//   |u_k + std_k a_{k+1}/b_k|^2,   a_K = -lambda grad r,
// one file a law of a_k. They differ in what they differentiate, and all have the optimal control as the fixed point of the
// regression; b_k weighs the divergence of step k (1: the control problem of control_problem.h).
#pragma once
#include <costate/finetune/control_problem.h>

#include <functional>
#include <span>

namespace costate::finetune {

// The states of some rows and what is asked along them.
struct CostateInputs {
  const ControlProblem& problem;
  sde::Field tuned;                         // the policy that made the states; read where the law says so
  std::span<const double> kl_weights;       // b_k, (K)
  std::function<Tensor(int k)> state;       // x_k, (rows, ...), k = 0..K
  Tensor labels;                            // (rows,) or undefined
  int first = 0;                            // the lowest step of which a_next is asked for
  bool at_first = false;                    // whether a_k of that step is asked for, too: one more pullback
  std::function<bool(int k)> predict{};     // whether the base prediction is asked for at x_k
  std::function<Tensor(int k)> noise{};     // e_k of the step from x_k, (rows, ...); see full_costates
};

// Called for k = K-1, ..., first with the base prediction at x_k (undefined where it was not computed), a_{k+1} and a_k
// (undefined at `first` unless at_first), then for the steps below `first` whose prediction is asked for, without costates.
using CostateVisitor = std::function<void(int k, const Tensor& prediction, const Tensor& a_next, const Tensor& a)>;

// The lean adjoint (arXiv 2409.08861, eqs. 38-39, in its discrete form),
//   a_k = (d mean_k/dx)^T a_{k+1} + grad f_k,
// with the frozen base. One vjp of the base by state a step above `first`; one evaluation at `first`, or where predict asks
// below it.
void lean_costates(const CostateInputs& in, Tensor terminal, const CostateVisitor& visit);

// The discrete adjoint of the whole control problem: the gradient of what the path costs from step k on,
//   a_k = (d tuned mean_k/dx)^T a_{k+1} + grad [f_k + b_k |u_k|^2/2].
// Regression on it has, with on-policy paths, the gradient of backpropagation through the sampler ("basic" adjoint matching,
// arXiv 2409.08861, eq. 34), of all steps with noise: those without have no control, though the sampler tunes them. One vjp
// of tuned and base each a step above `first`.
// With `noise` the gradient is that of the cost plus sum_j b_j u_j . e_j, j >= k: the mean of the sum is zero whatever u is,
// given x_k, and at the optimum of continuous time the whole is V(x_k), the same on every path. So the costate loses its
// variance as the control becomes optimal, but for O(h) ("sticking the landing", Roeder, Wu and Duvenaud 2017, arXiv
// 1703.09194, for paths).
void full_costates(const CostateInputs& in, Tensor terminal, const CostateVisitor& visit);

// The continuous adjoint equation (arXiv 2409.08861, eqs. 29-31),
//   da/dt = -[(d(b + sigma u)/dx)^T a + grad (f + |u|^2/2)],
// solved backwards along the stored states by Euler's method with the coefficients of the later end, as who differentiates
// an equation before its solver would do: O(h) away from the discrete adjoint. Rates are the tables' increments over the
// step; the last noiseless steps, which discretise no equation with control, are pulled back as they are. One vjp of tuned
// and base each a state above x_{first + 1}.
void continuous_costates(const CostateInputs& in, Tensor terminal, const CostateVisitor& visit);

// grad f_k at x (rows, ...), or undefined without a state cost.
Tensor state_cost_gradient(const ControlProblem& problem, int k, const Tensor& x);
// a + b where b may be undefined.
Tensor plus(Tensor a, const Tensor& b);
// The base prediction at x_k.
Tensor base_prediction(const CostateInputs& in, int k, const Tensor& x);
// Visits the steps below `first` whose prediction is asked for.
void predict_below(const CostateInputs& in, const CostateVisitor& visit);

}  // namespace costate::finetune
