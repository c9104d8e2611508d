#include <costate/sde/solver/parts.h>
#include <costate/sde/words.h>

#include <array>

namespace costate::sde {

namespace {

using Kind = Diffusion::Kind;
constexpr Calculus ito = Calculus::ito, stratonovich = Calculus::stratonovich;

// A method without noise has no calculus, and says Ito's. For reversible_heun arXiv 2105.13493 proves strong order 1/2 with any
// noise and 1 with additive; with diagonal noise tests/sde/order_test.cpp measures 1. Its weak orders are measured too.
constexpr Solver kSolvers[] = {
    {.name = "euler_maruyama", .calculus = ito,
     .strong_order_additive = 1, .strong_order_diagonal = 0.5, .weak_order_additive = 1, .weak_order = 1, .ode_order = 1,
     .matrix_noise = true, .drift_evaluations = 1, .diffusion_evaluations = 1, .area = false, .adds_noise_last = true, .reversible = false,
     .start = nullptr, .step = euler_maruyama_step, .unstep = nullptr},
    {.name = "milstein", .calculus = ito,
     .strong_order_additive = 1, .strong_order_diagonal = 1, .weak_order_additive = 1, .weak_order = 1, .ode_order = 1,
     .matrix_noise = true, .drift_evaluations = 1, .diffusion_evaluations = 2, .area = false, .adds_noise_last = true, .reversible = false,
     .start = nullptr, .step = milstein_step, .unstep = nullptr},
    {.name = "heun", .calculus = stratonovich,
     .strong_order_additive = 1, .strong_order_diagonal = 1, .weak_order_additive = 2, .weak_order = 1, .ode_order = 2,
     .matrix_noise = true, .drift_evaluations = 2, .diffusion_evaluations = 2, .area = false, .adds_noise_last = false, .reversible = false,
     .start = nullptr, .step = heun_step, .unstep = nullptr},
    {.name = "sra1", .calculus = ito,
     .strong_order_additive = 1.5, .strong_order_diagonal = 0, .weak_order_additive = 2, .weak_order = 0, .ode_order = 2,
     .matrix_noise = true, .drift_evaluations = 2, .diffusion_evaluations = 2, .area = true, .adds_noise_last = false, .reversible = false,
     .start = nullptr, .step = sra1_step, .unstep = nullptr},
    {.name = "reversible_heun", .calculus = stratonovich,
     .strong_order_additive = 1, .strong_order_diagonal = 1, .weak_order_additive = 2, .weak_order = 1, .ode_order = 2,
     .matrix_noise = true, .drift_evaluations = 1, .diffusion_evaluations = 1, .area = false, .adds_noise_last = false, .reversible = true,
     .start = reversible_heun_start, .step = reversible_heun_step, .unstep = reversible_heun_unstep},
    {.name = "midpoint", .calculus = ito,
     .strong_order_additive = 0, .strong_order_diagonal = 0, .weak_order_additive = 0, .weak_order = 0, .ode_order = 2,
     .matrix_noise = false, .drift_evaluations = 2, .diffusion_evaluations = 0, .area = false, .adds_noise_last = false, .reversible = false,
     .start = nullptr, .step = midpoint_step, .unstep = nullptr},
    {.name = "rk4", .calculus = ito,
     .strong_order_additive = 0, .strong_order_diagonal = 0, .weak_order_additive = 0, .weak_order = 0, .ode_order = 4,
     .matrix_noise = false, .drift_evaluations = 4, .diffusion_evaluations = 0, .area = false, .adds_noise_last = false, .reversible = false,
     .start = nullptr, .step = rk4_step, .unstep = nullptr},
};

std::string_view noise_of(const Sde& sde) { return name(sde.diffusion.kind); }

}  // namespace

std::span<const Solver> solvers() { return kSolvers; }

const Solver& solver(std::string_view word) {
  std::vector<std::string_view> names;
  for (const Solver& s : kSolvers) names.push_back(s.name);
  return kSolvers[word_index(word, names, "a solver")];
}

std::string refusal(const Solver& s, const Sde& sde) {
  const Kind kind = sde.diffusion.kind;
  if (kind == Kind::none) return {};
  const std::string_view diagonal = sde.calculus == ito ? "milstein or euler_maruyama" : "heun or reversible_heun";
  const std::string_view instead = kind == Kind::diagonal ? diagonal : "sra1 or heun";
  if (s.strong_order_additive == 0)
    return sentence({s.name, " solves equations without noise, but this one has ", noise_of(sde), " noise: take ", instead});
  if (kind == Kind::matrix && !s.matrix_noise)
    return sentence({s.name, " does not accept matrix noise: take ", instead});
  if (kind != Kind::diagonal) return {};
  if (s.strong_order_diagonal == 0)
    return sentence({s.name, " needs noise that does not depend on the state, but this equation has diagonal noise: take ",
                     instead});
  if (s.calculus != sde.calculus)
    return sentence({s.name, " converges to the ", name(s.calculus), " solution, but this equation with diagonal noise is meant in the ",
                     name(sde.calculus), " sense: take ", instead, ", or convert the drift (b_Ito = b_Stratonovich + ",
                     "sigma sigma'/2)"});
  return {};
}

SolverState start(const Solver& solver, const Sde& sde, const Var& x0, double t0, const Tensor& labels) {
  return solver.start ? solver.start(sde, x0, t0, labels) : SolverState{x0};
}

Increment step_increment(const Solver& solver, const Sde& sde, const BrownianPath& path, StepInterval interval,
                         const Tensor& x) {
  if (sde.diffusion.kind == Kind::none) return {};
  return path.increment(interval.t0, interval.t1, noise_shape(sde, x.shape()), x.dtype(), x.device(), solver.area);
}

}  // namespace costate::sde
