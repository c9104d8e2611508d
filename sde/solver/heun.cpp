// Heun's method: predictor p = x + h b + sigma w, then the averages of b and of sigma at (x, t0) and (p, t1). Stratonovich's
// solution (Kloeden and Platen 1992, 14.1); for additive noise also their weak method of order 2 (15.1).
#include <costate/sde/solver/parts.h>

namespace costate::sde {

SolverState heun_step(const Sde& sde, const SolverState& state, StepInterval i, const Increment& noise,
                      const Tensor& labels) {
  const Var& x = state[0];
  const double h = i.h();
  const Var w(noise.w);
  const Var b0 = drift(sde, x, i.t0, labels);
  const Sigma s0 = sigma(sde, x, i.t0, labels);
  const Var predicted = stage(1, x, h, b0, 1, s0, w);
  const Var b1 = drift(sde, predicted, i.t1, labels);
  const Sigma s1 = sigma(sde, predicted, i.t1, labels);
  return {stage(1, axpby(1, x, h / 2, b0), h / 2, b1, 1, combine(0.5, s0, 0.5, s1), w)};
}

}  // namespace costate::sde
