#include <costate/finetune/problem/linear_gaussian.h>
#include <costate/finetune/problem/mixture_tilt.h>
#include <costate/sde/diffusion.h>
#include <costate/tensor/error.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace costate::finetune {
namespace {

using sde::PathFamily;
using sde::Schedule;
const Schedule kLinear{PathFamily::linear};

TEST(LinearGaussian, MatrixExponentialOfANonSymmetricMatrix) {
  // e^{[[0, 1], [0, 0]]} = [[1, 1], [0, 1]]; a rotation generator; and e^A e^{-A} = I.
  const std::vector<double> nilpotent = matrix_exponential(2, std::vector<double>{0, 1, 0, 0});
  EXPECT_NEAR(nilpotent[1], 1, 1e-15);
  EXPECT_NEAR(nilpotent[2], 0, 1e-15);
  const std::vector<double> rotation = matrix_exponential(2, std::vector<double>{0, -0.7, 0.7, 0});
  EXPECT_NEAR(rotation[0], std::cos(0.7), 1e-14);
  EXPECT_NEAR(rotation[2], std::sin(0.7), 1e-14);
}

// a' = -A^T a backwards in time, by many small Euler steps: the transpose matters because A is not symmetric.
TEST(LinearGaussian, LeanAdjointSolvesItsEquation) {
  const std::vector<double> A = {-1, 0.5, 0.2, 0.1, -0.8, 0.9, -0.6, 0, -1.2}, g = {1, -2, 0.5};
  const std::vector<double> exact = linear_lean_adjoint(3, A, 1, g);
  double error[2];
  for (int i = 0; i < 2; ++i) {
    const int K = 1000 << i;
    std::vector<double> a = g;
    for (int k = 0; k < K; ++k) {
      std::vector<double> next = a;
      for (int j = 0; j < 3; ++j)
        for (int l = 0; l < 3; ++l) next[j] += A[3 * l + j] * a[l] / K;
      a = next;
    }
    error[i] = 0;
    for (int j = 0; j < 3; ++j) error[i] += std::abs(a[j] - exact[j]);
  }
  EXPECT_LT(error[0], 2e-3);
  EXPECT_NEAR(error[0] / error[1], 2, 0.02);
}

TEST(GaussianLinear, AgreesWithTheMixtureOfOneComponent) {
  const GaussianLinear problem{0.4, 0.7, 1.3};
  const MixtureTilt tilt(GaussianMixture(1, {1}, {0.4}, {0.7}), {{1.3}, {}, {}});
  EXPECT_NEAR(problem.optimal_cost(), tilt.kl(), 1e-14);
  for (const Schedule& s : {kLinear, Schedule{PathFamily::vp_linear}, Schedule{PathFamily::vp_cosine}})
    for (double t : {0.1, 0.6, 1.0})
      for (double x : {-1.0, 0.8}) {
        double value, gradient, velocity, best;
        tilt.value(s, 1, &x, t, &value);
        tilt.value_gradient(s, 1, &x, t, &gradient);
        tilt.base().velocity(s, 1, &x, t, &velocity);
        tilt.optimal_velocity(s, 1, &x, t, &best);
        EXPECT_NEAR(problem.value(s, x, t), value, 1e-12);
        EXPECT_NEAR(problem.lean_adjoint(s, t), gradient, 1e-12);
        EXPECT_NEAR(problem.velocity(s, x, t), velocity, 1e-12);
        EXPECT_NEAR(problem.optimal_velocity(s, x, t), best, 1e-12);
        EXPECT_NEAR(best, velocity - s.eta(t) * gradient, 1e-12 * (1 + s.eta(t)));
      }
}

// The optimal cost int sigma^2 a^2/2 dt = c^2 variance/2 by Simpson's rule on (0, 1): sigma^2 a^2 is regular
// at both ends.
TEST(GaussianLinear, ControlCostByQuadrature) {
  const GaussianLinear problem{0.2, 0.6, 0.9};
  const int n = 20000;
  for (const Schedule& s : {kLinear, Schedule{PathFamily::vp_cosine}}) {
    double cost = 0;
    for (int i = 0; i < n; ++i) {
      const double t = (i + 0.5) / n, a = problem.lean_adjoint(s, t);
      cost += s.eta(t) * a * a / n;
    }
    EXPECT_NEAR(cost, problem.optimal_cost(), 1e-6) << s.description();
  }
}

// On a grid the Euler-Maruyama recursion approaches the closed form at order h. The exact step has no error
// at all: its mean is E[X_{k+1}|X_k], so that the product of slopes is the slope of E[X_1|X_k].
TEST(GaussianLinear, ChainLeanAdjointConvergesAtFirstOrder) {
  const GaussianLinear problem{0.5, 0.8, 1};
  for (const Schedule& s : {kLinear, Schedule{PathFamily::vp_cosine}, Schedule{PathFamily::vp_linear}}) {
    double error[2];
    for (int i = 0; i < 2; ++i) {
      const int K = 400 << i;
      const auto t = sde::uniform_grid(K);
      const auto exact = chain_lean_adjoint(sde::exact_memoryless(s, t), problem);
      const auto euler = chain_lean_adjoint(sde::euler_maruyama(s, t), problem);
      error[i] = 0;
      for (int k = 0; k <= K; ++k)
        EXPECT_NEAR(exact[k], problem.lean_adjoint(s, t[k]), 1e-11) << s.description();
      for (int k = K / 10; k <= K; ++k)
        error[i] = std::max(error[i], std::abs(euler[k] - problem.lean_adjoint(s, t[k])));
    }
    EXPECT_LT(error[0], 0.02) << s.description();
    EXPECT_NEAR(error[0] / error[1], 2, 0.1) << s.description();
  }
}

// With deterministic adjoints the fixed point is the tilt of the chain's own law given X_0, to rounding: the
// mean moves by c Var(X_K | X_0) = c Var(X_K) (1 - rho^2) and costs half of c times that.
TEST(GaussianLinear, FixedPointTiltsTheChainsOwnLaw) {
  const GaussianLinear problem{0.5, 0.8, 1.2};
  const auto t = sde::uniform_grid(25);
  for (const sde::Chain& chain :
       {sde::exact_memoryless(kLinear, t), sde::euler_maruyama(kLinear, t),
        sde::euler_maruyama_constant(kLinear, t, 0.8), sde::euler_ode(kLinear, t)}) {
    const LinearFixedPoint point = linear_fixed_point(chain, problem);
    const sde::GaussianLaw law = sde::gaussian_law(chain, problem.mean, problem.variance);
    const double shift = problem.c * law.variance * (1 - law.correlation * law.correlation);
    EXPECT_NEAR(point.sde_mean, law.mean + shift, 1e-12) << chain.description;
    EXPECT_NEAR(point.cost, problem.c * shift / 2, 1e-12) << chain.description;
  }
}

// Size of the initial-value bias for N(0, 1), r = x (true shift 1): constant sigma shifts the mean by 1 -
// rho^2 on the chain and by something else after conversion to the ODE; scaled memoryless shifts it by 2/(1 +
// c) on the ODE. The memoryless law gets both right. Limits of the fixed point at K -> infinity by Richardson
// extrapolation.
TEST(GaussianLinear, BiasOfOtherNoiseLaws) {
  const GaussianLinear problem{0, 1, 1};
  const auto limit = [&](auto build) {
    const LinearFixedPoint a = linear_fixed_point(build(sde::uniform_grid(2000)), problem);
    const LinearFixedPoint b = linear_fixed_point(build(sde::uniform_grid(4000)), problem);
    return LinearFixedPoint{2 * b.sde_mean - a.sde_mean, 1, 2 * b.ode_mean - a.ode_mean, 2 * b.cost - a.cost};
  };
  const struct {
    double sigma, sde, ode;
  } cases[] = {{0.5, 0.325, 0.290}, {1, 0.792, 0.617}, {2, 0.998, 0.372}};
  for (const auto& c : cases) {
    const auto p = limit([&](const auto& t) { return sde::euler_maruyama_constant(kLinear, t, c.sigma); });
    EXPECT_NEAR(p.sde_mean, c.sde, 6e-4) << c.sigma;  // half a unit of the last printed digit
    EXPECT_NEAR(p.ode_mean, c.ode, 6e-4) << c.sigma;
    EXPECT_NEAR(p.sde_mean, 1 - std::pow(sde::constant_sigma_correlation(c.sigma), 2), 1e-4);
  }
  for (double c : {0.5, 1.0, 2.0}) {
    const auto p = limit([&](const auto& t) {
      return sde::euler_maruyama(kLinear, t, sde::Offset::denominator, sde::Parametrisation::velocity, c);
    });
    // c = 0.5 forgets the noise and resolves the first steps as K^{-c} only, which the extrapolation does not
    // remove.
    const double tolerance = c < 1 ? 1e-2 : 2e-3;
    EXPECT_NEAR(p.sde_mean, 1, tolerance) << c;
    EXPECT_NEAR(p.ode_mean, 2 / (1 + c), tolerance) << c;
  }
  // The same law under other names: DDIM is c = eta^2, the flow SDE c = a^2/2.
  const auto ddim = limit([&](const auto& t) { return sde::ddim(kLinear, t, std::sqrt(0.5)); });
  const auto flow = limit([&](const auto& t) { return sde::flow_sde(kLinear, t, 2); });
  EXPECT_NEAR(ddim.ode_mean, 1.333, 1e-2);
  EXPECT_NEAR(flow.ode_mean, 0.667, 2e-3);
  const auto exact = limit([&](const auto& t) { return sde::exact_memoryless(kLinear, t); });
  EXPECT_NEAR(exact.sde_mean, 1, 1e-4);
  EXPECT_NEAR(exact.ode_mean, 1, 1e-4);
  EXPECT_NEAR(exact.cost, problem.optimal_cost(), 1e-4);
}

// Pairing the state with a_k instead of a_{k+1} under-tilts by order h.
TEST(GaussianLinear, PairingWithTheSameIndexUnderTilts) {
  const GaussianLinear problem{0, 1, 1};
  for (int K : {40, 80}) {
    const sde::Chain chain = sde::exact_memoryless(kLinear, sde::uniform_grid(K));
    const LinearFixedPoint next = linear_fixed_point(chain, problem),
                           same = linear_fixed_point(chain, problem, false);
    EXPECT_NEAR(next.ode_mean, 1, 4.0 / K);
    EXPECT_LT(same.sde_mean, next.sde_mean - 1.0 / K);
    EXPECT_LT(same.ode_mean, next.ode_mean - 1.0 / K);
  }
  EXPECT_THROW(linear_fixed_point(
                   sde::exact_memoryless(kLinear, sde::uniform_grid(4), sde::Parametrisation::x1), problem),
               Error);
}

}  // namespace
}  // namespace costate::finetune
