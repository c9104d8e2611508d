// Roessler's SRA1 for noise that does not depend on the state (SIAM J. Numer. Anal. 48, 2010): with
// I = I_(1,0)/h = H + w/2,
//   p  = x + (3/4) h b(x, t0) + (3/2) sigma(t1) I,
//   x1 = x + h (b(x, t0) + 2 b(p, t0 + 3h/4))/3 + sigma(t1) (w - I) + sigma(t0) I.
#include <costate/sde/solver/parts.h>

namespace costate::sde {

SolverState sra1_step(const Sde& sde, const SolverState& state, StepInterval i, const Increment& noise,
                      const Tensor& labels) {
  const Var& x = state[0];
  const double h = i.h();
  const Sigma s0 = sigma(sde, x, i.t0, labels), s1 = sigma(sde, x, i.t1, labels);
  Var mean, rest;  // I and w - I
  if (s0.kind != Diffusion::Kind::none) {
    require(noise.area.defined(), "sra1: the increment comes without its area, which this solver reads");
    mean = axpby(0.5, Var(noise.w), 1, Var(noise.area));
    rest = axpby(0.5, Var(noise.w), -1, Var(noise.area));
  }
  const Var b0 = drift(sde, x, i.t0, labels);
  const Var p = stage(1, x, 0.75 * h, b0, 1.5, s1, mean);
  const Var b1 = drift(sde, p, i.t0 + 0.75 * h, labels);
  const Var moved = stage(1, axpby(1, x, h / 3, b0), 2 * h / 3, b1, 1, s1, rest);
  return {diffuse(moved, 1, s0, mean)};
}

}  // namespace costate::sde
