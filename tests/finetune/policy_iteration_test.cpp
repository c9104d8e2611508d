// Policy iteration against the Riccati recursion and grids, and the identities that costates rest on.
#include <costate/autograd/ops.h>
#include <costate/finetune/evaluate/estimate.h>
#include <costate/finetune/problem/analytic_field.h>
#include <costate/finetune/regression/costates.h>
#include <costate/finetune/regression/policy_iteration.h>
#include <costate/sde/diffusion.h>
#include <costate/sde/sampler.h>
#include <gtest/gtest.h>

#include <cmath>

namespace costate::finetune {
namespace {

// DDPM of 1000 timesteps with linear betas, every (1000/K)-th of them.
sde::Chain diffusion(int steps, sde::DdpmVariance variance = sde::DdpmVariance::fixed_small) {
  return sde::ddpm(sde::diffusion_schedule(sde::BetaLaw::linear, 1000), sde::uniform_grid(steps), variance);
}
Quadratic bowl(double kap, double centre) { return {{-kap}, {kap * centre}, -kap * centre * centre / 2}; }

// The recursion of the optimum, by completing the square: with kappa = s^2 Q_{k+1}/b,
//   Q_k = J^2 Q/(1 - kappa),  b_k = J (Q h + b)/(1 - kappa).
struct Riccati {
  std::vector<double> Q, b;
};
Riccati riccati(const AffineChain& chain, const Quadratic& terminal) {
  const std::size_t steps = chain.mean.size();
  Riccati r{std::vector<double>(steps + 1), std::vector<double>(steps + 1)};
  r.Q[steps] = terminal.Q[0], r.b[steps] = terminal.b[0];
  for (std::size_t k = steps; k-- > 0;) {
    const double J = chain.mean[k].M[0], h = chain.mean[k].m[0], kappa = chain.std[k] * chain.std[k] * r.Q[k + 1];
    r.Q[k] = J * J * r.Q[k + 1] / (1 - kappa);
    r.b[k] = J * (r.Q[k + 1] * h + r.b[k + 1]) / (1 - kappa);
  }
  return r;
}

TEST(PolicyIteration, AffineControlsReachTheRiccatiRecursion) {
  // Data N(0.5, 0.8), r = -(x - 2)^2/2, fifty steps. The mean is that of the tilt, the variance O(h) above it: the family
  // of fixed variances cannot do better. Five digits, by the recursion in double precision.
  const double mean[] = {0.5}, variance[] = {0.8};
  const AffineChain chain = affine_chain(diffusion(50), mean, variance);
  const AffinePolicy policy = iterate_policy(chain, bowl(1, 2));
  const Riccati exact = riccati(chain, bowl(1, 2));
  for (std::size_t k = 0; k <= 50; ++k) {
    EXPECT_NEAR(policy.value[k].Q[0], exact.Q[k], 1e-10) << k;
    EXPECT_NEAR(policy.value[k].b[0], exact.b[k], 1e-10) << k;
  }
  const PolicyLaw law = law_of(chain, policy.shift);
  EXPECT_NEAR(law.mean[0], 1.10676, 1e-5);
  EXPECT_NEAR(law.covariance[0], 0.41424, 1e-5);
  EXPECT_NEAR(law.kl, 0.32609, 1e-5);
}

TEST(PolicyIteration, TheContractionIsKappa) {
  // Undamped, concave and convex values: the ratio of successive changes of the policy is |kappa|.
  const double mean[] = {0.5}, variance[] = {0.8};
  const AffineChain chain = affine_chain(diffusion(50), mean, variance);
  for (const double kap : {1.0, -0.5}) {
    PolicyIterationOptions options;
    options.damping = false;
    const AffinePolicy policy = iterate_policy(chain, bowl(kap, 2), options);
    for (std::size_t k = 0; k < 50; ++k) {
      if (chain.std[k] == 0) continue;
      const double kappa = chain.std[k] * chain.std[k] * policy.value[k + 1].Q[0];
      EXPECT_NEAR(policy.contraction[k], std::abs(kappa), 1e-3) << kap << ", step " << k;
      EXPECT_NEAR(kap > 0 ? policy.kappa[k].lowest : policy.kappa[k].highest, kappa, 1e-12);
    }
  }
}

TEST(PolicyIteration, ConcaveValuesNeedDampingAndConvexOnesMayHaveNoOptimum) {
  // A steep bowl, five steps, s^2 = 1 - alpha: |kappa| exceeds 1, from where the undamped iteration runs away; damped it finds
  // the recursion.
  const double mean[] = {0.5}, variance[] = {0.8};
  const AffineChain chain = affine_chain(diffusion(5, sde::DdpmVariance::fixed_large), mean, variance);
  const Riccati exact = riccati(chain, bowl(4, 2));
  const AffinePolicy damped = iterate_policy(chain, bowl(4, 2));
  double worst = 0;
  for (std::size_t k = 0; k < 5; ++k) {
    EXPECT_NEAR(damped.value[k].Q[0], exact.Q[k], 1e-10);
    EXPECT_NEAR(damped.value[k].b[0], exact.b[k], 1e-10);
    EXPECT_NEAR(damped.kappa[k].lowest, chain.std[k] * chain.std[k] * exact.Q[k + 1], 1e-10);
    worst = std::min(worst, damped.kappa[k].lowest);
  }
  EXPECT_NEAR(worst, -1.5755, 1e-3);
  PolicyIterationOptions plain;
  plain.damping = false;
  std::vector<double> changes;
  int diverging = -1;
  for (int k = 0; k < 5; ++k)
    if (damped.kappa[static_cast<std::size_t>(k)].lowest < -1) diverging = k;
  plain.iterations = 60;
  plain.visit = [&](int k, int, double change) {
    if (k == diverging) changes.push_back(change);
  };
  try {
    iterate_policy(chain, bowl(4, 2), plain);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::numerical);
    EXPECT_NE(std::string(e.what()).find("step " + std::to_string(diverging)), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("damping"), std::string::npos) << e.what();
  }
  ASSERT_GE(changes.size(), 50u);
  EXPECT_NEAR(changes[40] / changes[39], -damped.kappa[static_cast<std::size_t>(diverging)].lowest, 1e-3);
  // A convex reward that outgrows the Gaussian: no optimum at some step, and the step is named.
  try {
    iterate_policy(chain, bowl(-4, 0));
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::numerical);
    EXPECT_NE(std::string(e.what()).find("no optimum"), std::string::npos) << e.what();
  }
}

TEST(PolicyIteration, WeightsOfTheDivergenceActAsTemperatures) {
  // b = 2 throughout is lambda = 1/2: the value doubles, the policy is the same.
  const double mean[] = {0.5, -1}, variance[] = {0.8, 0.3};
  const AffineChain chain = affine_chain(diffusion(20), mean, variance);
  const Quadratic reward{{-1, 0.4, 0.4, -2}, {1, -0.5}, 0}, half{{-0.5, 0.2, 0.2, -1}, {0.5, -0.25}, 0};
  PolicyIterationOptions two;
  two.kl_weights = {2};
  const AffinePolicy a = iterate_policy(chain, reward, two), b = iterate_policy(chain, half);
  for (std::size_t k = 0; k < 20; ++k) {
    for (int i = 0; i < 4; ++i) EXPECT_NEAR(a.shift[k].M[i], b.shift[k].M[i], 1e-11);
    for (int i = 0; i < 2; ++i) EXPECT_NEAR(a.shift[k].m[i], b.shift[k].m[i], 1e-11);
    EXPECT_NEAR(a.value[k].c, 2 * b.value[k].c, 1e-10);
  }
}

// Two modes, .5 N(-2, .25) + .5 N(2, .25), r = x/2.
std::shared_ptr<const GaussianMixture> two_modes() {
  return std::make_shared<GaussianMixture>(GaussianMixture::isotropic(1, {0.5, 0.5}, {-2, 2}, 0.5));
}
const GridPolicy& two_mode_policy(const ControlProblem& problem) {
  static const GridPolicy policy = iterate_policy(problem);
  return policy;
}
ControlProblem two_mode_problem() {
  const sde::Chain chain = diffusion(50);
  return {chain, velocity_field(two_modes(), chain.schedule), {1}, linear_reward({0.5})};
}

// The base moved by the policy's shifts.
sde::Field policy_field(const ControlProblem& problem, const GridPolicy& policy) {
  return [&problem, &policy](const Var& x, const Var& t, const Tensor& labels) {
    const sde::Chain& chain = problem.chain;
    std::vector<double> shift;
    const auto at = x.value().to_doubles(), times = t.value().to_doubles();
    for (std::size_t i = 0; i < at.size(); ++i) {
      const int k = static_cast<int>(std::lround(times[i] * chain.steps()));
      shift.push_back(chain.std[k] > 0 ? policy.shift_at(k, at[i]) / chain.C[k] : 0.0);
    }
    return add(problem.base(x, t, labels), Var(Tensor::from(shift, x.shape())));
  };
}

TEST(PolicyIteration, TheGridFindsTheOptimumOfTwoModes) {
  // What the policy collects on 16384 simulated paths is V_0 in the mean, within 3 standard errors, and less than the log Z =
  // .4650 of the data's tilt, which fixed variances cannot reach. J = .4333 whatever the grid.
  const ControlProblem problem = two_mode_problem();
  const GridPolicy& policy = two_mode_policy(problem);
  double J = 0, mass = 0;
  for (std::size_t i = 0; i < policy.x.size(); ++i) {
    const double density = std::exp(-policy.x[i] * policy.x[i] / 2);
    J += density * policy.value[0][i], mass += density;
  }
  J /= mass;
  EXPECT_NEAR(J, 0.4333, 1e-4);
  constexpr std::int64_t rows = 16384;
  std::vector<double> collected(static_cast<std::size_t>(rows));
  const Tensor x0 = sde::initial_noise({1}, rows, {6, 0}, DType::f64);
  const Tensor end = sde::rollout(policy_field(problem, policy), problem.chain, x0, {}, {6, 0},
                                  [&](int k, const Tensor& x, const Tensor&) {
                                    if (problem.chain.std[k] == 0) return;
                                    const auto at = x.to_doubles();
                                    for (std::size_t i = 0; i < at.size(); ++i)
                                      collected[i] -= std::pow(policy.shift_at(k, at[i]) / problem.chain.std[k], 2) / 2;
                                  });
  const auto reward = problem.reward(end).to_doubles();
  for (std::size_t i = 0; i < reward.size(); ++i) collected[i] += reward[i];
  const Estimate e = mean_estimate(collected);
  EXPECT_NEAR(e.value, J, 3 * e.standard_error);
  EXPECT_LT(e.standard_error, 0.01);
}

TEST(PolicyIteration, TheEnvelopeIdentity) {
  // grad V_k = (d mean_k/dx)^T E[grad V_{k+1}(x_{k+1})] with the base's Jacobian alone, at the optimum. The Jacobian by the
  // pullback of the field, V by splines, at points of the grid.
  const ControlProblem problem = two_mode_problem();
  const GridPolicy& policy = two_mode_policy(problem);
  const Tensor x = Tensor::from(std::vector<double>{-2.4, -0.9, -0.3, 0.15, 0.75, 2.25}, {6, 1});
  for (const int k : {0, 10, 25, 40, 47}) {
    std::vector<double> expected;
    for (const double at : x.to_doubles()) {
      const Var point(Tensor::full({1, 1}, at, DType::f64)), time(Tensor::full({1}, problem.chain.t[k], DType::f64));
      const double mean = problem.chain.A[k] * at + problem.chain.C[k] * problem.base(point, time, {}).value().item();
      double sum = 0, total = 0;
      for (double e = -7; e <= 7; e += 0.1) {
        const double p = std::exp(-e * e / 2);
        sum += p * policy.slope_at(k + 1, mean + policy.shift_at(k, at) + problem.chain.std[k] * e), total += p;
      }
      expected.push_back(sum / total);
    }
    const Tensor pulled = sde::pullback_step(problem.base, problem.chain, k, x, {}, Tensor::from(expected, {6, 1})).costate;
    for (int i = 0; i < 6; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const double slope = policy.slope_at(k, x.to_doubles()[at]);
      EXPECT_NEAR(pulled.to_doubles()[at], slope, 1e-3 * std::max(0.1, std::abs(slope))) << k << ", " << i;
    }
  }
}

TEST(PolicyIteration, TheLeanAdjointIsTheValuesGradientInTheMean) {
  // On paths of the optimal policy E[(a_k + grad V_k(x_k)) phi(x_k)] = 0 for every phi: 1, x and x^2, at three steps, within
  // 3 standard errors of 8192 paths. Along paths of the base it is off by many.
  const ControlProblem problem = two_mode_problem();
  const GridPolicy& policy = two_mode_policy(problem);
  const sde::Chain& chain = problem.chain;
  const auto worst = [&](bool optimal) {
    const sde::Field tuned = optimal ? policy_field(problem, policy) : problem.base;
    constexpr std::int64_t rows = 8192;
    std::vector<Tensor> states;
    const Tensor x0 = sde::initial_noise({1}, rows, {5, 0}, DType::f64);
    states.push_back(sde::rollout(tuned, chain, x0, {}, {5, 0},
                                  [&](int, const Tensor& x, const Tensor&) { states.push_back(x); }));
    double largest = 0;
    const CostateInputs in{problem, {}, {}, [&](int k) { return states[static_cast<std::size_t>(k)]; }, {}, 0, true, {}};
    lean_costates(in, Tensor::full({rows, 1}, -0.5, DType::f64), [&](int k, const Tensor&, const Tensor&, const Tensor& a) {
      if (k != 10 && k != 25 && k != 40) return;
      const auto x = states[static_cast<std::size_t>(k)].to_doubles(), costate = a.to_doubles();
      for (int power = 0; power < 3; ++power) {
        std::vector<double> terms;
        for (std::size_t i = 0; i < x.size(); ++i)
          terms.push_back((costate[i] + policy.slope_at(k, x[i])) * std::pow(x[i], power));
        const Estimate e = mean_estimate(terms);
        largest = std::max(largest, std::abs(e.value) / e.standard_error);
      }
    });
    return largest;
  };
  EXPECT_LT(worst(true), 3);
  EXPECT_GT(worst(false), 5);
}

TEST(PolicyIteration, BadInputIsRefusedInWords) {
  const double one[] = {1.0};
  const AffineChain chain = affine_chain(diffusion(10), one, one);
  PolicyIterationOptions options;
  options.kl_weights = {1, 2};
  EXPECT_THROW(iterate_policy(chain, bowl(1, 0), options), Error);
  EXPECT_THROW(iterate_policy(chain, {{1, 2}, {1}}), Error);
  ControlProblem plane = two_mode_problem();
  plane.sample_shape = {2};
  EXPECT_THROW(iterate_policy(plane), Error);
}

}  // namespace
}  // namespace costate::finetune
