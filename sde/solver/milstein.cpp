// Milstein's method for diagonal noise in the Ito sense, without derivatives of sigma (Kloeden and Platen 1992, 11.1):
//   x1 = x + h b + sigma w + (sigma(x + h b + sqrt(h) sigma) - sigma) (w^2 - h)/(2 sqrt(h)),
// so that one reverse sweep differentiates it. Where sigma does not depend on x it is Euler and Maruyama's.
#include <costate/sde/solver/parts.h>

#include <cmath>

namespace costate::sde {

SolverState milstein_step(const Sde& sde, const SolverState& state, StepInterval i, const Increment& noise,
                          const Tensor& labels) {
  if (sde.diffusion.kind != Diffusion::Kind::diagonal) return euler_maruyama_step(sde, state, i, noise, labels);
  const Var& x = state[0];
  const double h = i.h(), root = std::sqrt(h);
  const Var w(noise.w);
  const Sigma s = sigma(sde, x, i.t0, labels);
  const Var moved = axpby(1, x, h, drift(sde, x, i.t0, labels));
  const Sigma support = sigma(sde, axpby(1, moved, root, s.value), i.t0, labels);
  const Var excess = affine(square(w), 1 / (2 * root), -root / 2);
  return {multiply_add(sub(support.value, s.value), excess, diffuse(moved, 1, s, w))};
}

}  // namespace costate::sde
