// Runge's midpoint method for equations without noise: x + h b(x + (h/2) b(x, t0), t0 + h/2).
#include <costate/sde/solver/parts.h>

namespace costate::sde {

SolverState midpoint_step(const Sde& sde, const SolverState& state, StepInterval i, const Increment&, const Tensor& labels) {
  const Var& x = state[0];
  const double h = i.h();
  const Var half = axpby(1, x, h / 2, drift(sde, x, i.t0, labels));
  return {axpby(1, x, h, drift(sde, half, i.t0 + h / 2, labels))};
}

}  // namespace costate::sde
