// Kutta's method of order 4 for equations without noise: x + h (b1 + 2 b2 + 2 b3 + b4)/6.
#include <costate/sde/solver/parts.h>

namespace costate::sde {

SolverState rk4_step(const Sde& sde, const SolverState& state, StepInterval i, const Increment&, const Tensor& labels) {
  const Var& x = state[0];
  const double h = i.h(), middle = i.t0 + h / 2;
  const Var b1 = drift(sde, x, i.t0, labels);
  const Var b2 = drift(sde, axpby(1, x, h / 2, b1), middle, labels);
  const Var b3 = drift(sde, axpby(1, x, h / 2, b2), middle, labels);
  const Var b4 = drift(sde, axpby(1, x, h, b3), i.t1, labels);
  return {chain_step(1, axpby(1, x, h / 6, b1), h / 3, add(b2, b3), h / 6, b4)};
}

}  // namespace costate::sde
