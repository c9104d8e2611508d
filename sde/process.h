// What adjoints know: K steps of a state, each of which can be taken, differentiated, and perhaps undone. Chains and
// stochastic differential equations become processes; every adjoint method is a loop over one.
#pragma once
#include <costate/sde/field.h>

#include <string>

namespace costate::sde {

// The state of a process before step k: x_k first, and whatever else its steps carry along.
using State = std::vector<Tensor>;

// The sum over results of <costate, d result/d operand>.
struct StepPullback {
  State costate;                   // of the state before the step
  std::vector<Tensor> parameters;  // in the order in which they were watched; empty without parameters
  double cost = 0;                 // the running cost of the step, summed over rows
};

// What one call costs: evaluations of the field, and reverse sweeps through one.
struct CallWork {
  int evaluations = 0, pullbacks = 0;
};

// The increment of a noiseless or Stratonovich equation over a step's interval with its coefficients at one of the ends,
//   F(x) = b(x, t) (t_{k+1} - t_k) + sigma(x, t) (B(t_{k+1}) - B(t_k)),  and  (dF/dx)^T a,  (dF/dtheta)^T a.
struct IncrementPullback {
  Tensor increment, costate;
  std::vector<Tensor> parameters;
};

// Steps are pure: they may be taken again, in any order, and have the same bits. The rows of one call stay on the calling
// thread.
struct Process {
  std::string description;
  int steps = 0;

  std::function<State(const Tensor& x0)> start;
  std::function<State(int k, const State& state)> step;
  // The pullback of the state after step k, whose undefined entries are zeros, with the gradient of the step's running cost
  // added.
  std::function<StepPullback(int k, const State& state, const State& costate)> pullback;
  std::function<StepPullback(const Tensor& x0, const State& costate)> pull_start;  // null where the state starts as {x0}
  std::function<State(int k, const State& next)> unstep;                          // null where a step cannot be undone
  // Null where the process discretises no equation in Stratonovich's sense. `at_end`: the coefficients at t_{k+1}.
  std::function<IncrementPullback(int k, bool at_end, const Tensor& x, const Tensor& costate)> increment;
  // The tangent of x_{k+1} for each tangent of x_k together with one of the numbers of the parameters (its index; -1 for
  // none). Null where the state is more than x.
  std::function<std::vector<Tensor>(int k, const Tensor& x, const std::vector<Tensor>& tangents,
                                    const std::vector<std::int64_t>& numbers)>
      push;
  std::vector<Shape> parameter_shapes;  // in the order in which they are watched

  bool noisy = false;  // some step adds noise
  bool has_running_cost = false;
  std::int64_t parameter_numbers() const {
    std::int64_t n = 0;
    for (const Shape& s : parameter_shapes) n += s.numel();
    return n;
  }
  CallWork start_work, step_work, pullback_work, pull_start_work, unstep_work, increment_work;
};

}  // namespace costate::sde
