// Published phenomena and identities of fine-tuned chains, on problems whose optimum is known to many digits:
// what policy iteration does to steep bowls, the envelope identity, divergences of paths, the price of fixed
// variances, what samplers remember, and other divergences than that of Kullback and Leibler.
#include <costate/autograd/ops.h>
#include <costate/finetune/evaluate/estimate.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/problem/analytic_field.h>
#include <costate/finetune/problem/grid_control.h>
#include <costate/finetune/problem/linear_quadratic_chain.h>
#include <costate/finetune/regression/policy_iteration.h>
#include <costate/finetune/reward/f_divergence.h>
#include <costate/finetune/rollout.h>
#include <costate/sde/diffusion.h>
#include <costate/sde/memoryless.h>
#include <costate/tensor/error.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace costate::finetune {
namespace {

// The DDPM sampler of 1000 linear betas in T steps.
sde::Chain ddpm(int steps, sde::DdpmVariance variance = sde::DdpmVariance::fixed_small) {
  return sde::ddpm(sde::diffusion_schedule(sde::BetaLaw::linear, 1000), sde::uniform_grid(steps), variance);
}
constexpr GaussianMoments kData{0.5, 0.8};

std::shared_ptr<const GaussianMixture> gaussian(GaussianMoments m) {
  return std::make_shared<const GaussianMixture>(1, std::vector<double>{1}, std::vector<double>{m.mean},
                                                 std::vector<double>{m.variance});
}
// The base moved by mean shifts d_k(x), in one dimension, on a grid that is uniform.
template <class Shift>
sde::Field shifted(const ControlProblem& problem, Shift shift) {
  return
      [base = problem.base, chain = problem.chain, shift](const Var& x, const Var& t, const Tensor& labels) {
        const auto at = x.value().to_doubles(), times = t.value().to_doubles();
        std::vector<float> moved(at.size());
        for (std::size_t i = 0; i < at.size(); ++i) {
          const int k = static_cast<int>(std::lround(times[i] * chain.steps()));
          if (chain.std[k] > 0) moved[i] = static_cast<float>(shift(k, at[i]) / chain.C[k]);
        }
        return add(base(x, t, labels), Var(Tensor::from(moved, x.shape())));
      };
}

// r = -4 (x - 2)^2/2, five steps, the variance 1 - alpha in the last one too: there kappa = -4 (1 - alpha) =
// -1.364 whatever the data, and plain policy iteration, whose changes grow by this factor, never settles;
// damped it finds the recursion.
TEST(Acceptance, ASteepBowlDefeatsPlainPolicyIteration) {
  sde::Chain chain = ddpm(5, sde::DdpmVariance::fixed_large);
  chain.std.back() = chain.schedule.beta(chain.t[4]);  // sqrt(1 - alpha) of the first timestep
  const LinearQuadraticChain lq(chain, kData, {4, 2, 0});
  const double kappa = lq.steps().back().kappa;
  EXPECT_NEAR(kappa, -1.364, 1e-3);
  const AffineChain affine = affine_chain(chain, {{kData.mean}}, {{kData.variance}});
  const Quadratic bowl{{-4}, {8}, -8};
  const AffinePolicy damped = iterate_policy(affine, bowl);
  for (std::size_t k = 0; k <= 5; ++k) {
    EXPECT_NEAR(damped.value[k].Q[0], lq.values()[k].Q, 1e-10) << k;
    EXPECT_NEAR(damped.value[k].b[0], lq.values()[k].b, 1e-10) << k;
  }
  PolicyIterationOptions plain;
  plain.damping = false, plain.iterations = 40;
  std::vector<double> change;
  plain.visit = [&](int k, int, double size) {
    EXPECT_EQ(k, 4);  // it gets no further
    change.push_back(size);
  };
  EXPECT_THROW(iterate_policy(affine, bowl, plain), Error);
  ASSERT_GE(change.size(), 30u);
  EXPECT_NEAR(change[29] / change[28], 1.364, 1e-3);
  EXPECT_GT(change[29], 1000 * change[0]);
}

// grad V_k = (d mean_k/dx)^T E[grad V_{k+1}(x_{k+1})] at the optimum, with the Jacobian of the base alone.
// Values are quadratic and means affine, so that the expectation is exact: 1e-8 is far above the rounding of
// the sums in double precision.
TEST(Acceptance, TheEnvelopeIdentityInClosedForm) {
  const sde::Chain chain = ddpm(50);
  const LinearQuadraticChain lq(chain, kData, {1, 2, 0});
  const sde::Field base = velocity_field(gaussian(kData), chain.schedule);
  const Tensor x = Tensor::from(std::vector<double>{-2.5, -0.4, 0.3, 1.1, 3}, {5, 1});
  for (int k = 0; k < 50; ++k) {
    const auto i = static_cast<std::size_t>(k);
    const LinearQuadraticChain::Step& step = lq.steps()[i];
    std::vector<double> next;
    for (const double at : x.to_doubles())
      next.push_back(lq.values()[i + 1].Q * (step.J * at + step.h + step.gain * at + step.shift) +
                     lq.values()[i + 1].b);
    const Tensor pulled = sde::pullback_step(base, chain, k, x, {}, Tensor::from(next, {5, 1})).costate;
    for (std::size_t j = 0; j < 5; ++j) {
      const double slope = lq.values()[i].Q * x.to_doubles()[j] + lq.values()[i].b;
      EXPECT_NEAR(pulled.to_doubles()[j], slope, 1e-8 * std::max(1.0, std::abs(slope))) << k;
    }
  }
}

// Data N(1/2, 0.8), r = -(x - 2)^2/2, fifty steps under the optimal control: the two estimators of the
// divergence of paths have one mean, and it is the closed form, 0.32609, within 3 standard errors.
TEST(Acceptance, BothEstimatorsOfThePathDivergenceMeetTheClosedForm) {
  const sde::Chain chain = ddpm(50);
  const LinearQuadraticChain lq(chain, kData, {1, 2, 0});
  ControlProblem problem{.chain = chain,
                         .base = velocity_field(gaussian(kData), chain.schedule),
                         .sample_shape = {1},
                         .reward = quadratic_reward({2}, {1})};
  const sde::Field tuned = shifted(problem, [&lq](int k, double x) {
    const auto& step = lq.steps()[static_cast<std::size_t>(k)];
    return step.gain * x + step.shift;
  });
  const StepLikelihoods steps = step_likelihoods(problem, simulate(tuned, problem, 40000, {41, 0}));
  std::vector<double> cost = steps.path_cost(), difference = steps.path_log_ratio();
  for (std::size_t i = 0; i < cost.size(); ++i) difference[i] -= cost[i];
  const Estimate k1 = mean_estimate(cost), gap = mean_estimate(difference);
  EXPECT_NEAR(lq.tuned().path_kl, 0.32609, 1e-5);
  EXPECT_NEAR(k1.value, lq.tuned().path_kl, 3 * k1.standard_error);
  EXPECT_LT(k1.standard_error, 2e-3);
  EXPECT_NEAR(gap.value, 0, 3 * gap.standard_error);
  EXPECT_LT(gap.standard_error, 5e-3);
}

// Two modes N(-2, 1/4) and N(2, 1/4), r = x/2. Under the best control of fixed variances the certificate
//   G = r(x_K) - log p_u/p,  E G = J,  E e^G = Z,
// is not the same number on every path: its variance has a floor, 2 (log Z - J) up to third cumulants (a
// tenth of it in twenty steps), which falls with the length of the steps. In fifty steps .863 of the paths
// end in the right mode, not the .878 of the tilt.
TEST(Acceptance, FixedVariancesLeaveAFloorUnderTheVarianceOfTheCertificate) {
  const auto modes =
      std::make_shared<const GaussianMixture>(GaussianMixture::isotropic(1, {0.5, 0.5}, {-2, 2}, 0.5));
  double last = 1e9, last_error = 0;
  for (const int steps : {20, 50, 100}) {
    SCOPED_TRACE(steps);
    const sde::Chain chain = ddpm(steps);
    const GridControl optimum(chain, mixture_prediction(modes, chain), [](double x) { return 0.5 * x; });
    ControlProblem problem{.chain = chain,
                           .base = velocity_field(modes, chain.schedule),
                           .sample_shape = {1},
                           .reward = linear_reward({0.5})};
    const Trajectories paths = simulate(
        shifted(problem, [&](int k, double x) { return optimum.shift(k, x); }), problem, 8000, {43, 0});
    const std::vector<double> x = paths.terminal().to_doubles(),
                              ratio = step_likelihoods(problem, paths).path_log_ratio();
    std::vector<double> G, above, weight;
    for (std::size_t i = 0; i < x.size(); ++i) {
      G.push_back(0.5 * x[i] - ratio[i]);
      above.push_back(x[i] > 0 ? 1 : 0);
      weight.push_back(std::exp(G[i] - optimum.log_z()));
    }
    const Estimate J = mean_estimate(G), right = mean_estimate(above), Z = mean_estimate(weight);
    std::vector<double> square;
    for (const double g : G) square.push_back((g - J.value) * (g - J.value));
    const Estimate variance = mean_estimate(square);
    const double gap = optimum.log_z() - optimum.tuned().objective;
    EXPECT_NEAR(J.value, optimum.tuned().objective, 3 * J.standard_error);
    EXPECT_NEAR(Z.value, 1, 3 * Z.standard_error);
    EXPECT_NEAR(right.value, optimum.tuned().terminal.probability_above(0), 3 * right.standard_error);
    if (steps == 50) {
      EXPECT_NEAR(optimum.tuned().terminal.probability_above(0), 0.863, 1e-3);
      EXPECT_NEAR(right.value, 0.863, 0.01);
      EXPECT_NEAR(optimum.tilt().probability_above(0), 0.878, 1e-3);
    }
    EXPECT_GT(variance.value, 10 * variance.standard_error);
    EXPECT_NEAR(variance.value, 2 * gap, 0.1 * gap * 2 + 3 * variance.standard_error);
    EXPECT_LT(variance.value + 3 * variance.standard_error, last - 3 * last_error);
    last = variance.value, last_error = variance.standard_error;
  }
}

// The correlation of x_0 and x_K that samplers leave, for data N(0, 1): what is remembered of the noise is
// not tilted. Two digits, from an independent implementation (those of DDIM: alpha(0)^(eta^2), the limit of
// many steps, 1 % off at 1000).
TEST(Acceptance, WhatSamplersRememberOfTheNoise) {
  const sde::Schedule vp = sde::diffusion_schedule(sde::BetaLaw::linear, 1000);
  for (const auto& [eta, rho] : {std::pair{1.0, 0.0064}, {0.7, 0.084}, {0.3, 0.63}})
    EXPECT_NEAR(sde::gaussian_law(sde::ddim(vp, sde::uniform_grid(1000), eta), 0, 1).correlation, rho,
                0.011 * rho)
        << eta;
  struct Case {
    double a;
    int steps;
    double rho;
  };
  for (const Case& c : {Case{0.7, 10, 0.29}, Case{0.7, 40, 0.235}, Case{0.7, 1000, 0.11}, Case{0.3, 10, 0.81},
                        Case{0.3, 40, 0.78}, Case{0.3, 1000, 0.68}, Case{1.0, 10, 0.055}}) {
    const sde::GaussianLaw law = sde::gaussian_law(sde::flow_sde({}, sde::uniform_grid(c.steps), c.a), 0, 1);
    EXPECT_NEAR(law.correlation, c.rho, 6e-3) << c.a << ", " << c.steps;
  }
  EXPECT_NEAR(sde::gaussian_law(sde::flow_sde({}, sde::uniform_grid(10), 0.7), 0, 1).variance, 0.93, 6e-3);
}

// Base N(0, 1), r = -(x - 2)^2/2: fine-tuning with the transformed reward a' log w*(r) leads to the law w* q
// of the other divergence, by any objective that solves the problem with the Kullback-Leibler one: here its
// exact solution on a grid. The histogram and the moments differ by what the sampler's own law and the fixed
// variances are off, O(1/T): a quarter of it in four times as many steps, and what is left after
// extrapolation is of second order.
TEST(Acceptance, TransformedRewardsLeadToTheOptimaOfOtherDivergences) {
  struct Row {
    const char* name;
    double mean, variance;
  };
  std::vector<double> at, weight, reward;
  for (double x = -9; x <= 9; x += 1e-3)
    at.push_back(x), weight.push_back(std::exp(-x * x / 2)), reward.push_back(-(x - 2) * (x - 2) / 2);
  const Reward quadratic = quadratic_reward({2}, {1});
  constexpr double temperature = 0.8;
  double total = 0;
  for (const double w : weight) total += w;
  for (const Row& row : {Row{"reverse_kl", 1.0, 0.5}, Row{"forward_kl", 1.04218, 0.80991},
                         Row{"jensen_shannon", 1.51101, 0.36063}}) {
    SCOPED_TRACE(row.name);
    const DivergenceTilt tilt =
        divergence_tilt(f_divergence(row.name), reward, {.floor = 1e-30, .ceiling = 1e30}, weight);
    const Reward transformed = f_divergence_reward(quadratic, tilt, temperature);
    double error[2] = {};
    GaussianMoments moments[2];
    for (int i = 0; i < 2; ++i) {
      const sde::Chain chain = sde::exact_memoryless({}, sde::uniform_grid(20 << (2 * i)));
      const GridControl g(chain, mixture_prediction(gaussian({0, 1}), chain),
                          [&](double x) {
                            return transformed(Tensor::from(std::vector<double>{x}, {1, 1})).item();
                          },
                          {.temperature = temperature, .grid = {-8, 8, 800}});
      const GridControl::Law& law = g.tuned().terminal;
      moments[i] = {law.mean, law.variance};
      for (int bin = -2; bin < 8; ++bin) {  // of width 1/2 from -1 to 4
        const double low = bin * 0.5, high = low + 0.5;
        double expected = 0;
        for (std::size_t j = 0; j < at.size(); ++j)
          if (at[j] >= low && at[j] < high)
            expected += weight[j] / total * std::exp(tilt.log_density(reward[j]));
        error[i] =
            std::max(error[i], std::abs(law.probability_above(low) - law.probability_above(high) - expected));
      }
    }
    EXPECT_LT(error[1], 0.016);
    EXPECT_NEAR(error[0] / error[1], 4, 0.8);
    EXPECT_NEAR((4 * moments[1].mean - moments[0].mean) / 3, row.mean, 0.012);
    EXPECT_NEAR((4 * moments[1].variance - moments[0].variance) / 3, row.variance, 0.006);
  }
}

}  // namespace
}  // namespace costate::finetune
