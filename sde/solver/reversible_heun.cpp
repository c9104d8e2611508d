// The reversible Heun method (Kidger, Foster, Li, Lyons, arXiv 2105.13493, Algorithms 1 and 2). Its state is
// (x, z, b(z), sigma(z)); the last is there for diagonal noise only, other noise does not depend on z. With ' for t1,
//   z' = 2 x - z + h b + sigma w,   x' = x + h (b + b')/2 + (sigma + sigma') w/2,   b' = b(z', t1), sigma' = sigma(z', t1);
// backwards z = 2 x' - z' - h b' - sigma' w, and x from the same averages. Stratonovich.
#include <costate/sde/solver/parts.h>

namespace costate::sde {

namespace {

bool diagonal(const Sde& sde) { return sde.diffusion.kind == Diffusion::Kind::diagonal; }

// The state's own sigma, or that of a time.
Sigma sigma_of(const Sde& sde, const SolverState& state, double t, const Tensor& labels) {
  if (!diagonal(sde)) return sigma(sde, state[1], t, labels);
  require(state.size() == 4, "reversible_heun: the state has ", state.size(), " parts; expected x, z, b(z) and sigma(z)");
  return {Diffusion::Kind::diagonal, 0, state[3]};
}

// Both directions: from time t with sign 1 over h, or with sign -1 back.
SolverState reversible_heun(const Sde& sde, const SolverState& state, double t, double next, double sign,
                            const Increment& noise, const Tensor& labels) {
  require(state.size() >= 3, "reversible_heun: the state has ", state.size(), " parts; expected x, z and b(z)");
  const Var &x = state[0], &z = state[1], &b0 = state[2], w(noise.w);
  const double h = next - t;
  const Sigma s0 = sigma_of(sde, state, t, labels);
  const Var z1 = stage(1, axpby(2, x, -1, z), h, b0, sign, s0, w);
  SolverState result = {Var(), z1, drift(sde, z1, next, labels)};
  const Sigma s1 = sigma(sde, z1, next, labels);
  result[0] = stage(1, axpby(1, x, h / 2, b0), h / 2, result[2], sign, combine(0.5, s0, 0.5, s1), w);
  if (diagonal(sde)) result.push_back(s1.value);
  return result;
}

}  // namespace

SolverState reversible_heun_start(const Sde& sde, const Var& x0, double t0, const Tensor& labels) {
  SolverState state = {x0, x0, drift(sde, x0, t0, labels)};
  if (diagonal(sde)) state.push_back(sigma(sde, x0, t0, labels).value);
  return state;
}

SolverState reversible_heun_step(const Sde& sde, const SolverState& state, StepInterval i, const Increment& noise,
                                 const Tensor& labels) {
  return reversible_heun(sde, state, i.t0, i.t1, 1, noise, labels);
}

SolverState reversible_heun_unstep(const Sde& sde, const SolverState& next, StepInterval i, const Increment& noise,
                                   const Tensor& labels) {
  return reversible_heun(sde, next, i.t1, i.t0, -1, noise, labels);
}

}  // namespace costate::sde
