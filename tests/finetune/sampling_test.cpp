// Methods of sampling time on problems whose answer is known: sequential Monte Carlo, best of n, noise optimisation.
#include <costate/finetune/evaluate/estimate.h>
#include <costate/finetune/evaluate/importance.h>
#include <costate/finetune/evaluate/modes.h>
#include <costate/finetune/problem/analytic_field.h>
#include <costate/finetune/problem/mixture_tilt.h>
#include <costate/finetune/sampling/best_of_n.h>
#include <costate/finetune/sampling/noise_optimisation.h>
#include <costate/finetune/sampling/twisted_smc.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

namespace costate::finetune {
namespace {

using Values = std::vector<double>;

// Two modes in one dimension, tilted so that the smaller one becomes the larger.
struct Tilted : testing::Test {
  std::shared_ptr<const GaussianMixture> mixture =
      std::make_shared<const GaussianMixture>(GaussianMixture::isotropic(1, {0.7, 0.3}, {-1.5, 1.5}, 0.5));
  const double c = 0.8;
  MixtureTilt problem{*mixture, QuadraticReward{{c}, {}, {}}};
  sde::Schedule schedule{};
  sde::Chain chain = sde::exact_memoryless(schedule, sde::uniform_grid(60));
  sde::Field base = velocity_field(mixture, schedule);
  sde::Field best = velocity_field(std::make_shared<const GaussianMixture>(problem.target()), schedule);
  Reward reward = linear_reward({1.0});

  SmcOptions options(SmcProposal proposal, std::int64_t particles) const {
    SmcOptions o;
    o.particles = particles, o.reward_multiplier = c, o.proposal = proposal;
    if (proposal == SmcProposal::tuned) o.tuned = best;
    return o;
  }
  SmcResult run(const SmcOptions& o, std::uint64_t seed) const {
    return twisted_smc(base, chain, {1}, reward, {}, {seed, 0}, o, DType::f64);
  }
  // psi = -V, the value function of the tilt, which is the logarithm of E[e^{c r} | x_t = x].
  std::function<Tensor(int, const Tensor&)> value_function() const {
    return [this](int k, const Tensor& x) {
      Tensor out = Tensor::empty({x.extent(0)}, DType::f64);
      problem.value(schedule, x.extent(0), x.values<double>().data(), chain.t[k], out.mutate<double>().data());
      for (double& v : out.mutate<double>()) v = -v;
      return out;
    };
  }
};

// E over many small populations of the estimate of Z: for every proposal, potential and rule of resampling, it is Z of the
// sampler's own base law, which importance sampling from its samples estimates as well.
TEST_F(Tilted, EstimatesOfZAreUnbiased) {
  const int n = 40000;
  Values log_w;
  for (const double r : reward(sde::sample(base, chain, {1}, n, {}, {99, 0}, DType::f64)).to_doubles()) log_w.push_back(c * r);
  const Estimate direct = log_z_estimate(log_w);
  const auto mean_z = [&](const SmcOptions& o) {
    Values z;
    for (int run_number = 0; run_number < 150; ++run_number)
      z.push_back(std::exp(run(o, 1000 + static_cast<std::uint64_t>(run_number)).log_z - direct.value));
    return mean_estimate(z);
  };
  for (const SmcProposal proposal : {SmcProposal::base, SmcProposal::guided, SmcProposal::tuned})
    for (const double below : {0.0, 0.5, 1.0}) {
      SmcOptions o = options(proposal, 12);
      o.resample_below = below;
      const Estimate z = mean_z(o);
      EXPECT_NEAR(z.value, 1, 4 * std::hypot(z.standard_error, direct.standard_error))
          << static_cast<int>(proposal) << " " << below;
      EXPECT_LT(z.standard_error, 0.15);
    }
  SmcOptions o = options(SmcProposal::tuned, 12);
  o.potential = value_function();
  const Estimate z = mean_z(o);
  EXPECT_NEAR(z.value, 1, 4 * std::hypot(z.standard_error, direct.standard_error));
}

// One large population has the tilted weights of the modes, the mean, and log Z. The error of the mode's weight is that of a
// share of ESS samples; 60 steps leave the tilt of the sampler's law within 0.01 of that of the data.
TEST_F(Tilted, LargePopulationsHaveTheTiltedLaw) {
  for (const SmcProposal proposal : {SmcProposal::base, SmcProposal::guided, SmcProposal::tuned}) {
    const SmcOptions o = options(proposal, 6000);
    const SmcResult r = run(o, 3);
    Values weights;
    for (const double w : r.log_weights) weights.push_back(std::exp(w));
    const Values modes = mode_weights(problem.target(), r.x.to_doubles(), ModeAssignment::responsibility, weights);
    // Resampled particles share ancestors: a quarter of the nominal number is what four standard errors are taken of.
    const double error = 4 * 0.5 / std::sqrt(0.25 * r.ess * 6000) + 0.01;
    EXPECT_NEAR(modes[1], problem.target().weights()[1], error) << static_cast<int>(proposal);
    EXPECT_NEAR(r.log_z, problem.log_z(), 0.06) << static_cast<int>(proposal);
    double mean = 0, total = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) mean += weights[i] * r.reward[i], total += weights[i];
    EXPECT_NEAR(total, 1, 1e-12);
    EXPECT_NEAR(mean, problem.expected_reward() / c, 4 * 1.5 / std::sqrt(0.25 * r.ess * 6000) + 0.02);
  }
}

// With the optimal control and the value function as potential, weights are constant up to the error of the steps, which
// falls with them; with the optimal control alone the final weights are, whatever the potentials on the way (none here), as
// long as nothing is resampled by weights that have not seen the reward.
TEST_F(Tilted, OptimalControlLeavesConstantWeights) {
  const auto loss = [&](int steps) {
    chain = sde::exact_memoryless(schedule, sde::uniform_grid(steps));
    SmcOptions o = options(SmcProposal::tuned, 1000);
    o.potential = value_function();
    const SmcResult r = run(o, 5);
    EXPECT_EQ(r.resampled, 0);
    return 1 - r.least_ess;
  };
  const double coarse = loss(25), fine = loss(100);
  EXPECT_LT(coarse, 0.2);
  EXPECT_LT(fine, 0.5 * coarse);
  SmcOptions o = options(SmcProposal::tuned, 1000);
  o.tempering.assign(100, 0.0), o.resample_below = 0;
  EXPECT_GT(run(o, 5).ess, 1 - 2 * fine);
  EXPECT_LT(run(options(SmcProposal::base, 1000), 5).least_ess, 0.9);  // what there was to lose
}

// Without potentials and resampling it is importance sampling: the base's own samples with weights e^{lambda r}.
TEST_F(Tilted, NoPotentialIsImportanceSampling) {
  SmcOptions o = options(SmcProposal::base, 100);
  o.tempering.assign(60, 0.0), o.resample_below = 0;
  const SmcResult r = run(o, 7);
  const Tensor x = sde::sample(base, chain, {1}, 100, {}, {7, 0}, DType::f64);
  // The same steps, with products added in another order.
  for (int i = 0; i < 100; ++i) EXPECT_NEAR(r.x.to_doubles()[i], x.to_doubles()[i], 1e-9);
  Values log_w;
  for (const double v : r.reward) log_w.push_back(c * v);
  EXPECT_NEAR(r.log_z, log_z_estimate(log_w).value, 1e-12);
  EXPECT_NEAR(r.ess * 100, effective_sample_size(log_w), 1e-9);
}

TEST_F(Tilted, SmcHasTheSameBitsForAnyThreads) {
  SmcOptions o = options(SmcProposal::guided, 200);
  o.resample_below = 0.98;
  const SmcResult one = run(o, 2);
  set_threads(2);
  const SmcResult two = run(o, 2);
  set_threads(1);
  EXPECT_GT(one.resampled, 0);
  EXPECT_EQ(one.x.to_doubles(), two.x.to_doubles());
  EXPECT_EQ(one.log_weights, two.log_weights);
  EXPECT_EQ(one.log_z, two.log_z);
}

TEST_F(Tilted, SmcRefusesWhatMakesNoSense) {
  SmcOptions o = options(SmcProposal::base, 10);
  o.tempering = {1};
  EXPECT_THROW(run(o, 1), Error);
  o = options(SmcProposal::guided, 10);
  o.potential = value_function();
  EXPECT_THROW(run(o, 1), Error);
  o = options(SmcProposal::base, 10);
  o.tuned = best;
  EXPECT_THROW(run(o, 1), Error);
  o = options(SmcProposal::base, 10);
  o.resample_below = 1.5;
  EXPECT_THROW(run(o, 1), Error);
  o = options(SmcProposal::base, 0);
  EXPECT_THROW(run(o, 1), Error);
  chain = sde::Chain{};
  o = options(SmcProposal::base, 10);
  o.reward_multiplier = std::nan("");
  EXPECT_THROW(run(o, 1), Error);
}

TEST(SystematicResampling, CountsAreExpectedOnesRounded) {
  const Values w{0.05, 0.4, 0, 0.3, 0.25};
  for (const double u : {0.01, 0.37, 0.5, 0.99}) {
    Values counts(5, 0.0);
    for (const std::int64_t i : systematic_resampling(w, 10, u)) counts[static_cast<std::size_t>(i)] += 1;
    for (int i = 0; i < 5; ++i) EXPECT_LT(std::abs(counts[i] - 10 * w[i]), 1) << u << " " << i;
    EXPECT_EQ(counts[2], 0);
  }
  // Sums that rounding leaves below 1 do not run over the end, nor onto a weight of 0.
  EXPECT_EQ(systematic_resampling(Values{0.1, 0.9 - 1e-12, 0}, 2, 1 - 1e-15).back(), 1);
  EXPECT_THROW(systematic_resampling(w, 3, 0), Error);
}

// Uniform rewards: E max = n/(n + 1). Gaussian: 1/sqrt(pi) and 3/(2 sqrt(pi)) for n = 2, 3.
TEST(BestOfN, OrderStatistics) {
  const auto draw = [](std::int64_t count, bool normal) {
    return [=](std::int64_t round) {
      const Tensor x = Tensor::empty({count, 1}, DType::f64);
      (normal ? random_normal : random_uniform)(x, 3, Stream::user, static_cast<std::uint64_t>(round * count), 0);
      return x;
    };
  };
  const Reward reward = linear_reward({1});
  const int count = 20000;
  for (const int n : {1, 2, 5}) {
    const Estimate e = mean_estimate(best_of_n(n, reward, draw(count, false)).reward);
    EXPECT_NEAR(e.value, n / (n + 1.0), 4 * e.standard_error) << n;
  }
  const double root = std::sqrt(std::acos(-1.0));
  EXPECT_NEAR(mean_estimate(best_of_n(2, reward, draw(count, true)).reward).value, 1 / root, 4 * 0.83 / std::sqrt(count));
  EXPECT_NEAR(mean_estimate(best_of_n(3, reward, draw(count, true)).reward).value, 1.5 / root, 4 * 0.75 / std::sqrt(count));
  // The rows that are kept are those whose rewards they have.
  const BestOfN best = best_of_n(4, reward, draw(50, true));
  EXPECT_EQ(reward(best.x).to_doubles(), best.reward);
  for (std::int64_t round = 0; round < 4; ++round) {
    const Values other = draw(50, true)(round).to_doubles();
    for (std::size_t i = 0; i < 50; ++i) EXPECT_GE(best.reward[i], other[i]);
  }
  EXPECT_THROW(best_of_n(0, reward, draw(5, true)), Error);
}

TEST(BestOfN, DivergenceAndExpectationInClosedForm) {
  // KL of the law of the largest of n uniforms, n u^{n-1} on (0, 1): int n u^{n-1} log(n u^{n-1}) du.
  for (const int n : {1, 2, 4, 16}) {
    double kl = 0;
    const int cells = 200000;
    for (int i = 0; i < cells; ++i) {
      const double u = (i + 0.5) / cells, density = n * std::pow(u, n - 1);
      kl += density * std::log(density) / cells;
    }
    EXPECT_NEAR(best_of_n_kl(n), kl, 1e-5) << n;
  }
  // All subsets by hand.
  EXPECT_NEAR(expected_best_of_n(Values{3, 1, 2}, 1), 2, 1e-15);
  EXPECT_NEAR(expected_best_of_n(Values{3, 1, 2}, 2), (3 + 3 + 2) / 3.0, 1e-15);
  EXPECT_NEAR(expected_best_of_n(Values{3, 1, 2}, 3), 3, 1e-15);
  EXPECT_THROW(expected_best_of_n(Values{3, 1, 2}, 4), Error);
}

TEST(Improbability, IsSmallForNoiseAndHasItsGradient) {
  Values z(80);
  const Philox noise{11, Stream::user};
  for (std::size_t i = 0; i < z.size(); ++i) z[i] = noise.normal(i, 0, 0);
  EXPECT_LT(improbability(z, 4, 50, 1).value, 1);
  Values shifted = z, doubled = z;
  for (double& v : shifted) v += 1;
  for (double& v : doubled) v *= 2;
  // Of the shifted mean alone: m (|1|^2 k)/(2 k) - log 2 = 10 - log 2 and more from the covariance.
  EXPECT_GT(improbability(shifted, 4, 50, 1).value, 5);
  EXPECT_GT(improbability(doubled, 4, 50, 1).value, 1);
  for (const Values& at : {shifted, doubled}) {
    const Improbability i = improbability(at, 4, 20, 1);
    for (const std::size_t j : {0u, 17u, 79u}) {
      Values up = at, down = at;
      const double h = 1e-6;
      up[j] += h, down[j] -= h;
      const double difference = (improbability(up, 4, 20, 1).value - improbability(down, 4, 20, 1).value) / (2 * h);
      EXPECT_NEAR(i.gradient[j], difference, 1e-6);  // away from the kinks, where central differences err by h^2
    }
  }
  // By hand, in vectors of 1: any permutation has mean 2 and M = |4 - 1| = 3, m = 4, k = 1: p_1 from 4 * 4/2 = 8, p_2 from
  // 4 (2 - 1 - 1/2)^2/2 = 1/2, whose bound is above 1.
  EXPECT_NEAR(improbability(Values{2, 2, 2, 2}, 1, 3, 1).value, 8 - std::log(2), 1e-12);
  EXPECT_THROW(improbability(z, 81, 1, 1), Error);
  EXPECT_THROW(improbability(z, 0, 1, 1), Error);
}

// The gradient that moves the noises, against what it must do in closed form: for data N(0, 1) every step is affine, the
// sample is a linear function of z, and one step of gradient ascent with AdamW moves every number by lr in its sign.
TEST(NoiseOptimisation, FirstStepMovesEveryNoiseTowardsTheReward) {
  const auto mixture = std::make_shared<const GaussianMixture>(GaussianMixture::isotropic(1, {1}, {0}, 1));
  const sde::Chain chain = sde::exact_memoryless({}, sde::uniform_grid(8));
  const sde::Field field = velocity_field(mixture, {});
  NoiseOptimisationOptions o;
  o.iterations = 1, o.adamw.lr = 0.01, o.adamw.eps = 1e-300;
  const auto slope = [&](int k) {  // d x_K/d x_k of the noiseless steps
    double s = 1;
    for (int j = k; j < chain.steps(); ++j) {
      const auto model = sde::gaussian_prediction(sde::Parametrisation::velocity, chain.schedule.at(chain.t[j]), 0, 1);
      s *= chain.A[j] + chain.C[j] * model.slope;
    }
    return s;
  };
  double expected = 0.01 * std::abs(slope(0)) * (slope(0) != 0);
  for (int k = 0; k < chain.steps(); ++k) expected += 0.01 * chain.std[k] * std::abs(slope(k + 1));
  const NoiseOptimisation r = optimise_noise(field, chain, {1}, 5, linear_reward({2}), {}, {4, 0}, o, DType::f64);
  const Values before = sde::sample(field, chain, {1}, 5, {}, {4, 0}, DType::f64).to_doubles(), after = r.x.to_doubles();
  // x_0 has no influence on a memoryless chain's first step (A_0 x + C_0 v = 0 there): whether its number moves is rounding.
  for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(after[i] - before[i], expected, 1e-9) << slope(0);
  EXPECT_NEAR(r.history[0], 2 * mean_estimate(before).value, 1e-12);
}

struct Search : Tilted {
  NoiseOptimisation run(int iterations, double gamma, int count = 12) const {
    NoiseOptimisationOptions o;
    o.iterations = iterations, o.gamma = gamma, o.adamw.lr = 0.05, o.permutations = 20;
    const Reward hill = quadratic_reward({4}, {1});
    return optimise_noise(base, chain, {1}, count, hill, {}, {6, 0}, o, DType::f64);
  }
};

TEST_F(Search, RaisesTheRewardAndTheRegulariserHoldsTheNoiseBack) {
  chain = sde::exact_memoryless(schedule, sde::uniform_grid(20));
  const NoiseOptimisation free = run(60, 0), held = run(60, 5);
  EXPECT_EQ(free.history.size(), 60u);
  const double start = free.history[0], end = mean_estimate(free.reward).value, bound = mean_estimate(held.reward).value;
  EXPECT_GT(end, start + 3);
  EXPECT_GT(bound, start + 1);
  EXPECT_LT(bound, end);
  // Samples do not depend on who else is in the batch, nor on threads.
  const NoiseOptimisation fewer = run(5, 1, 3), more = run(5, 1, 12);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(fewer.reward[i], more.reward[i]);
  set_threads(2);
  const NoiseOptimisation two = run(5, 1, 12);
  set_threads(1);
  EXPECT_EQ(two.x.to_doubles(), more.x.to_doubles());
  EXPECT_EQ(two.improbability, more.improbability);
  EXPECT_THROW(run(-1, 0), Error);
  EXPECT_THROW(run(1, -1), Error);
}

}  // namespace
}  // namespace costate::finetune
