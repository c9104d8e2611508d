// Solvers: what a step computes, what is refused, and how a path of noise is shared.
#include <costate/autograd/ops.h>
#include <costate/sde/solve.h>
#include <costate/sde/solver/parts.h>
#include <costate/sde/step.h>
#include <gtest/gtest.h>

#include <cmath>

namespace costate::sde {
namespace {

// dX = -X dt + 0.7 dB
Sde ornstein_uhlenbeck() {
  Sde sde;
  sde.drift = [](const Var& x, const Var&, const Tensor&) { return -1.0 * x; };
  sde.diffusion = Diffusion::of([](double) { return 0.7; });
  return sde;
}

TEST(Solver, EulerMaruyamaSharesTheNoiseOfChains) {
  const std::vector<double> grid = {0, 0.25, 0.4, 1};
  const NoiseKey key{11, 5};
  Tensor x = initial_noise({3}, 4, key, DType::f64);
  const Tensor end = solve(ornstein_uhlenbeck(), solver("euler_maruyama"), grid, x, {}, BrownianPath(grid, key));
  for (int k = 0; k < 3; ++k) {
    const double h = grid[k + 1] - grid[k];
    x = axpby(1 - h, Var(x), 0.7 * std::sqrt(h), Var(step_noise(k, x, key))).value();
  }
  const auto a = end.to_doubles(), b = x.to_doubles();
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-15);
}

}  // namespace
}  // namespace costate::sde
