#include <costate/finetune/problem/grid_control.h>
#include <costate/finetune/problem/scalar_control.h>
#include <costate/tensor/error.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace costate::finetune {
namespace {

TEST(GridFunction, ReproducesCubicsAndTheirIntegrals) {
  const UniformGrid grid{-1, 2, 30};
  std::vector<double> values;
  const auto f = [](double x) { return 1 + x * (2 + x * (-3 + x)); };
  for (std::size_t i = 0; i < grid.points(); ++i) values.push_back(f(grid.point(i)));
  const GridFunction g(grid, values);
  for (double x : {-1.0, -0.77, 0.512, 1.999, 2.0}) {
    EXPECT_NEAR(g(x), f(x), 1e-13);
    EXPECT_NEAR(g.at(x).slope, 2 - 6 * x + 3 * x * x, 1e-11);
    EXPECT_NEAR(g.at(x).curvature, -6 + 6 * x, 1e-9);
  }
  const auto primitive = [](double x) { return x + x * x - x * x * x + x * x * x * x / 4; };
  EXPECT_NEAR(g.integral_above(0.33), primitive(2) - primitive(0.33), 1e-13);
  // The parabola beyond the end: value, slope and curvature go on.
  EXPECT_NEAR(g(2.5), f(2) + 0.5 * 2 + 0.125 * 6, 1e-9);
  EXPECT_THROW((UniformGrid{1, 1, 10}.check("test")), Error);
  EXPECT_THROW(GridFunction(grid, {1, 2}), Error);
}

// Without a potential psi = E e^{-g} is a Gaussian integral: g = x^2 has psi = e^{-x^2/(1 + 2 s)}/sqrt(1 + 2 s), s = T - t.
TEST(ScalarControl, FreeParticleInClosedForm) {
  const ScalarControlProblem problem{
      [](double) { return 0.0; }, [](double) { return 0.25; }, [](double x) { return x * x; }, {-8, 8, 800}};
  const ScalarControl control(problem, 50, 4);
  for (double t : {0.0, 0.5, 0.9, 0.913})
    for (double x : {-1.3, 0.0, 0.37, 2.0}) {
      const double s = 1 - t, exact = x * x / (1 + 2 * s) + std::log(1 + 2 * s) / 2 + 0.25 * s;
      EXPECT_NEAR(control.value(x, t), exact, 5e-6) << t << " " << x;  // measured: up to 2.3e-6
      EXPECT_NEAR(control.control(x, t), -2 * x / (1 + 2 * s), 5e-6) << t << " " << x;
    }
}

// phi = e^{-Psi} psi obeys the Schroedinger equation d_s phi = phi''/2 - (b^2 + b')/2 phi in imaginary time. Strang's
// splitting with the heat kernel as a sum over the grid (whose error vanishes exponentially) and Richardson's extrapolation
// (error O(h^4)) solve it with neither the finite volumes nor implicit Euler.
class Kernel {
 public:
  Kernel(double kappa, double nu, double remaining, int steps) {
    const double h = remaining / steps;
    std::vector<double> phi, half, next;
    for (int i = -n; i <= n; ++i) {
      const double x = width * i, b = -4 * kappa * x * (x * x - 1), db = -4 * kappa * (3 * x * x - 1);
      phi.push_back(std::exp(-(kappa + nu) * (x * x - 1) * (x * x - 1)));
      half.push_back(std::exp(-h / 4 * (b * b + db)));
    }
    const int band = static_cast<int>(9 * std::sqrt(h) / width) + 1;
    std::vector<double> kernel;
    for (int j = 0; j <= band; ++j)
      kernel.push_back(width * std::exp(-j * j * width * width / (2 * h)) / std::sqrt(2 * std::numbers::pi * h));
    for (int s = 0; s < steps; ++s) {
      for (std::size_t i = 0; i < phi.size(); ++i) phi[i] *= half[i];
      next.assign(phi.size(), 0.0);
      for (int i = 0; i <= 2 * n; ++i)
        for (int j = std::max(-band, -i); j <= std::min(band, 2 * n - i); ++j)
          next[static_cast<std::size_t>(i)] +=
              kernel[static_cast<std::size_t>(std::abs(j))] * phi[static_cast<std::size_t>(i + j)];
      for (std::size_t i = 0; i < phi.size(); ++i) phi[i] = next[i] * half[i];
    }
    for (int i = -n; i <= n; ++i) {
      const double x = width * i;
      value.push_back(-std::log(phi[static_cast<std::size_t>(i + n)]) - kappa * (x * x - 1) * (x * x - 1));
    }
  }
  static constexpr int n = 250;
  static constexpr double width = 0.01;
  std::vector<double> value;
};

TEST(ScalarControl, DoubleWellAgainstAnIndependentSolver) {
  for (const auto& [kappa, nu] : {std::pair{5.0, 3.0}, std::pair{1.0, 1.0}}) {
    const ScalarControl control(double_well(kappa, nu));
    for (double remaining : {0.1, 1.0}) {
      const double t = 1 - remaining;
      const int steps = static_cast<int>(std::lround(1000 * remaining));
      const Kernel coarse(kappa, nu, remaining, steps), fine(kappa, nu, remaining, 2 * steps);
      const auto exact = [&](int i) {
        const auto k = static_cast<std::size_t>(i + Kernel::n);
        return (4 * fine.value[k] - coarse.value[k]) / 3;
      };
      for (int i : {-130, -100, -60, -10, 0, 25, 90, 120}) {
        const double x = Kernel::width * i;
        EXPECT_NEAR(control.value(x, t), exact(i), 1e-5) << kappa << " at " << x << ", " << t;
        const double slope = (exact(i - 2) - 8 * exact(i - 1) + 8 * exact(i + 1) - exact(i + 2)) / (12 * Kernel::width);
        EXPECT_NEAR(control.control(x, t), -slope, 1e-4) << kappa << " at " << x << ", " << t;
      }
    }
    EXPECT_NEAR(control.control(0, 0.5), 0, 1e-10);  // symmetry
    EXPECT_NEAR(control.control(0.8, 0.5), -control.control(-0.8, 0.5), 1e-9);
  }
}

// Refining time alone, then space alone: the errors fall by 2^3 and by 2^4.
TEST(ScalarControl, OrdersOfConvergence) {
  const auto value = [](int cells, int steps) {
    ScalarControlProblem p = double_well(1, 1);
    p.grid.cells = cells;
    return ScalarControl(p, 10, steps).value(0.55, 0.5);
  };
  const double times[] = {value(200, 1), value(200, 2), value(200, 4), value(200, 8)};
  EXPECT_NEAR((times[0] - times[1]) / (times[1] - times[2]), 8, 3);
  EXPECT_NEAR((times[1] - times[2]) / (times[2] - times[3]), 8, 1.5);
  const double spaces[] = {value(50, 2), value(100, 2), value(200, 2), value(400, 2)};
  EXPECT_NEAR((spaces[1] - spaces[2]) / (spaces[2] - spaces[3]), 16, 3);
}

// A free particle that stops at 0: with Phi the normal distribution function and a = |x|, s = T - t, r = 1,
//   psi = E e^{-min(tau, s)} = e^{-a c} Phi((c s - a)/sqrt s) + e^{a c} Phi((-c s - a)/sqrt s) + e^{-s} (1 - 2 Phi(-a/sqrt s)),
// c = sqrt 2, by the law of the first passage time.
TEST(ScalarControl, StoppedFreeParticleInClosedForm) {
  const ScalarControlProblem problem{
      [](double) { return 0.0; }, [](double) { return 1.0; }, [](double) { return 0.0; }, {-6, 0, 1200}, true};
  const ScalarControl control(problem, 100, 4);
  const auto normal = [](double z) { return std::erfc(-z / std::numbers::sqrt2) / 2; };
  for (double t : {0.0, 0.5, 0.9})
    for (double a : {0.05, 0.3, 1.0, 2.0}) {
      const double s = 1 - t, r = std::sqrt(s), c = std::numbers::sqrt2;
      const double psi = std::exp(-a * c) * normal((c * s - a) / r) + std::exp(a * c) * normal((-c * s - a) / r) +
                         std::exp(-s) * (1 - 2 * normal(-a / r));
      EXPECT_NEAR(control.value(-a, t), -std::log(psi), 2e-5) << t << " " << a;
    }
  EXPECT_EQ(control.value(0, 0.3), 0);
  EXPECT_EQ(control.control(0.4, 0.3), 0);
  EXPECT_GT(control.control(-0.5, 0.3), 0);  // towards the exit
}

// The exit from a well by simulation of the uncontrolled process: psi = E e^{-min(tau, 1)}, where a step of Brownian motion
// between two points left of 0 has crossed it with probability exp(-2 x x'/h).
TEST(ScalarControl, WellExitAgainstSimulation) {
  const ScalarControl control(well_exit());
  const int paths = 20000, steps = 200;
  const double h = 1.0 / steps;
  const Philox noise{5, Stream::user};
  double sum = 0, squares = 0;
  for (std::uint64_t p = 0; p < paths; ++p) {
    double x = -1, running = 0, alive = 1;  // E[e^{-tau}] in parts: the chance to be alive times what the next step stops
    for (std::uint32_t k = 0; k < steps && alive > 0; ++k) {
      const double y = x - h * 4 * x * (x * x - 1) + std::sqrt(h) * noise.normal(p, k, 0);
      const double crossed = y >= 0 ? 1 : std::exp(-2 * x * y / h);
      running += alive * crossed * std::exp(-(k + 0.5) * h);
      alive *= 1 - crossed;
      x = y;
    }
    const double psi = running + alive * std::exp(-1.0);
    sum += psi, squares += psi * psi;
  }
  const double mean = sum / paths, error = std::sqrt((squares / paths - mean * mean) / paths);
  // Four standard errors, and the weak error of Euler's method, below h of a psi that changes by 1.
  EXPECT_NEAR(std::exp(-control.value(-1, 0)), mean, 4 * error + h);
  EXPECT_LT(error, 2e-3);
}

// Chains of Euler-Maruyama steps have optima of their own: of a double well against the dynamic programme for fine-tuning,
// whose reward is -g.
TEST(ScalarControl, OptimalCostOfTheChain) {
  const int steps = 200;
  sde::Chain chain;
  chain.t = sde::uniform_grid(steps);
  chain.A.assign(steps, 1), chain.C.assign(steps, 1.0 / steps), chain.std.assign(steps, std::sqrt(1.0 / steps));
  for (const auto& [kappa, nu] : {std::pair{5.0, 3.0}, std::pair{1.0, 1.0}}) {
    const double slope = -4 * kappa, height = nu;
    GridControlOptions options;
    options.grid = {-2.75, 2.75, 700};
    options.initial = {0, 0.01};
    const GridControl g(
        chain,
        [slope](double, std::span<const double> x, std::span<double> out) {
          for (std::size_t i = 0; i < x.size(); ++i) out[i] = slope * x[i] * (x[i] * x[i] - 1);
        },
        [height](double x) { return -height * (x * x - 1) * (x * x - 1); }, options);
    EXPECT_NEAR(chain_optimal_cost(double_well(kappa, nu), 0, steps), -g.value(0, 0), 1e-7) << kappa;
    EXPECT_NEAR(chain_optimal_cost(double_well(kappa, nu), 0.4, steps), -g.value(0, 0.4), 1e-7) << kappa;
  }
}

// With stopping at the times of the grid: the result does not depend on the grid, and tends to the continuous problem's with
// its boundary moved by 0.5826 sqrt(h) (Broadie, Glasserman and Kou 1997), faster than to that of the boundary itself.
TEST(ScalarControl, OptimalCostOfAStoppedChain) {
  double last = 1;
  for (int steps : {100, 400}) {
    const double cost = chain_optimal_cost(well_exit(), -1, steps);
    ScalarControlProblem fine = well_exit(), shifted = well_exit();
    fine.grid.cells = 1000;
    EXPECT_NEAR(chain_optimal_cost(fine, -1, steps), cost, 1e-6) << steps;
    shifted.grid.high = 0.5826 * std::sqrt(1.0 / steps);
    const double gap = cost - ScalarControl(shifted).value(-1, 0);
    EXPECT_LT(std::abs(gap), (cost - ScalarControl(well_exit()).value(-1, 0)) / 4) << steps;
    EXPECT_LT(std::abs(gap), last / 2.5) << steps;  // O(h): a quarter, of a constant that is below 1 in the first place
    last = std::abs(gap);
  }
}

TEST(ScalarControl, Refusals) {
  EXPECT_THROW(ScalarControl({}), Error);
  EXPECT_THROW(ScalarControl(double_well(1, 1), 2), Error);
  EXPECT_THROW(ScalarControl(double_well(1, 1), 4, 1).value(0, 1.1), Error);
  EXPECT_THROW(chain_optimal_cost(double_well(5, 3), 0, 30), Error);  // leaps off the grid
  EXPECT_THROW(chain_optimal_cost(double_well(1, 1), 3, 100), Error);
  ScalarControlProblem steep = double_well(1, 1);
  steep.terminal = [](double x) { return 1e4 * x * x; };
  EXPECT_THROW(ScalarControl(steep, 4, 1), Error);
}

}  // namespace
}  // namespace costate::finetune
