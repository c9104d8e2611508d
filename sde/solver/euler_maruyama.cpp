// Euler and Maruyama's method, x + h b(x, t0) + sigma(x, t0) w: Ito; without noise Euler's.
#include <costate/sde/solver/parts.h>

namespace costate::sde {

SolverState euler_maruyama_step(const Sde& sde, const SolverState& state, StepInterval i, const Increment& noise,
                                const Tensor& labels) {
  const Var& x = state[0];
  return {stage(1, x, i.h(), drift(sde, x, i.t0, labels), 1, sigma(sde, x, i.t0, labels), noise.w)};
}

}  // namespace costate::sde
