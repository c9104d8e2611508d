#include <costate/finetune/problem/linear_gaussian.h>
#include <costate/finetune/problem/linear_quadratic_chain.h>
#include <costate/sde/diffusion.h>
#include <costate/tensor/error.h>
#include <gtest/gtest.h>

#include <cmath>

namespace costate::finetune {
namespace {

using Options = LinearQuadraticOptions;

sde::Chain ddpm(int steps, sde::DdpmVariance variance = sde::DdpmVariance::fixed_small) {
  const sde::Schedule schedule = sde::diffusion_schedule(sde::BetaLaw::linear, 1000);
  return sde::ddpm(schedule, sde::uniform_grid(steps), variance, sde::Parametrisation::x1);
}
constexpr GaussianMoments kData{0.5, 0.8};
constexpr ScalarQuadraticReward kReward{1, 2, 0};

// Data N(1/2, 0.8), r = -(x - 2)^2/2, temperature 1, the DDPM sampler of 1000 linear betas in T steps: numbers of an
// independent implementation, compared to the digits it gave. Its variance 1 - alpha has noise in the last step as well.
TEST(LinearQuadraticChain, DdpmReferenceNumbers) {
  sde::Chain large = ddpm(50, sde::DdpmVariance::fixed_large);
  large.std.back() = large.schedule.beta(large.t[49]);
  struct Case {
    sde::Chain chain;
    double mean, variance, kl;
  };
  for (const Case& c : {Case{ddpm(50), 1.10676, 0.41424, 0.32609}, Case{ddpm(200), 1.14975, 0.43601, 0.34298},
                        Case{large, 1.17002, 0.45896, 0.34841}}) {
    const LinearQuadraticChain lq(c.chain, kData, kReward);
    EXPECT_NEAR(lq.tuned().terminal.mean, c.mean, 1e-5) << c.chain.description;
    EXPECT_NEAR(lq.tuned().terminal.variance, c.variance, 1e-5) << c.chain.description;
    EXPECT_NEAR(lq.tuned().path_kl, c.kl, 1e-5) << c.chain.description;
  }
  // The tilt of the sampler's base law: the mean is that of the optimum, the variance differs by O(1/T).
  const LinearQuadraticChain lq(ddpm(50), kData, kReward);
  EXPECT_NEAR(lq.tilt().mean, 1.10677, 1e-5);
  EXPECT_NEAR(lq.tilt().variance, 0.40452, 1e-5);
  EXPECT_NEAR(lq.tilt_kl(), 0.32793, 1e-5);
}

// Two independent computations of J: V_0 backwards, averaged over N(0, 1), and the moments forwards. J <= a log Z, and the gap,
// the price of fixed widths, is O(1/T).
TEST(LinearQuadraticChain, ValueIsTheObjectiveAndBelowLogZ) {
  double gap[2];
  for (int i = 0; i < 2; ++i)
    for (double temperature : {1.0, 0.6}) {
      const LinearQuadraticChain lq(ddpm(50 << (2 * i)), kData, {0.8, 1.5, -0.3}, {temperature});
      const auto& v = lq.values()[0];
      EXPECT_NEAR(lq.tuned().objective, v.Q / 2 + v.c, 1e-12);
      gap[i] = temperature * lq.log_z() - lq.tuned().objective;
      EXPECT_GT(gap[i], 0);
    }
  EXPECT_NEAR(gap[0] / gap[1], 4, 1.2);
}

// The shifts solve Bellman's equation whatever the recursion: no other affine shift of one step is better at any state.
TEST(LinearQuadraticChain, NoOtherShiftOfAStepIsBetter) {
  for (double curvature : {1.0, -0.5}) {
    const LinearQuadraticChain lq(ddpm(20), kData, {curvature, 2, 0}, {0.9});
    for (std::size_t k : {std::size_t{0}, std::size_t{7}, std::size_t{18}}) {
      const auto& step = lq.steps()[k];
      const auto &now = lq.values()[k], &next = lq.values()[k + 1];
      const auto worth = [&](double x, double d) {  // E V_{k+1}(J x + h + d + s e) - a d^2/(2 s^2)
        const double m = step.J * x + step.h + d;
        return next.Q * (m * m + step.s * step.s) / 2 + next.b * m + next.c - 0.9 * d * d / (2 * step.s * step.s);
      };
      for (double x : {-1.5, 0.2, 2.0}) {
        const double d = step.gain * x + step.shift;
        EXPECT_NEAR(worth(x, d), now.Q * x * x / 2 + now.b * x + now.c, 1e-12);
        EXPECT_LT(worth(x, d + 1e-3), worth(x, d));
        EXPECT_LT(worth(x, d - 1e-3), worth(x, d));
      }
    }
  }
}

// A penalty in the loss alone under-shoots concave rewards and over-shoots convex ones.
TEST(LinearQuadraticChain, KlInTheLossHasAnotherFixedPoint) {
  Options in_loss;
  in_loss.penalty = KlPenalty::in_loss;
  const LinearQuadraticChain short_chain(ddpm(50), kData, kReward, in_loss);
  EXPECT_NEAR(short_chain.tuned().terminal.mean, 1.026, 5e-4);
  EXPECT_NEAR(short_chain.tuned().path_kl, 0.252, 5e-4);
  struct Case {
    double curvature, mean, variance, kl, objective, loss_mean, loss_variance, loss_kl, loss_objective;
  };
  for (const Case& c : {Case{1, 1.150, 0.436, 0.343, -0.922, 1.057, 0.466, 0.261, -0.938},
                        Case{-0.5, -0.428, 1.231, 0.631, 1.151, -1.073, 1.430, 1.814, 0.904}}) {
    const LinearQuadraticChain exact(ddpm(200), kData, {c.curvature, 2, 0}),
        loss(ddpm(200), kData, {c.curvature, 2, 0}, in_loss);
    const auto expect = [](const LinearQuadraticChain::Outcome& o, double mean, double variance, double kl, double objective) {
      EXPECT_NEAR(o.terminal.mean, mean, 6e-4);
      EXPECT_NEAR(o.terminal.variance, variance, 6e-4);
      EXPECT_NEAR(o.path_kl, kl, 6e-4);
      EXPECT_NEAR(o.objective, objective, 6e-4);
    };
    expect(exact.tuned(), c.mean, c.variance, c.kl, c.objective);
    expect(loss.tuned(), c.loss_mean, c.loss_variance, c.loss_kl, c.loss_objective);
  }
  // They agree for linear rewards.
  const LinearQuadraticChain a(ddpm(50), kData, {0, 0, 0.7}), b(ddpm(50), kData, {0, 0, 0.7}, in_loss);
  EXPECT_NEAR(a.tuned().terminal.mean, b.tuned().terminal.mean, 1e-14);
}

// Linear rewards: the shift of the mean is (b/a)(1 - rho^2) times the variance, rho the correlation of x_0 and x_K that the
// sampler leaves; and with the law of x_0 tuned as well it is b/a, the tilt itself.
TEST(LinearQuadraticChain, MemoryOfTheInitialNoise) {
  const sde::Schedule schedule = sde::diffusion_schedule(sde::BetaLaw::linear, 1000);
  const double b = 0.7, a = 0.8;
  for (double eta : {0.3, 0.7, 1.0}) {
    const sde::Chain chain = sde::ddim(schedule, sde::uniform_grid(1000), eta, sde::Parametrisation::x1);
    const LinearQuadraticChain kept(chain, {0, 1}, {0, 0, b}, {a});
    const double rho = sde::residual_correlation(chain), variance = kept.base().terminal.variance;
    EXPECT_NEAR(rho, std::pow(schedule.alpha(0), eta * eta), 3e-3);  // its limit of many steps
    EXPECT_NEAR(kept.tuned().terminal.mean, b / a * (1 - rho * rho) * variance, 1e-12);
    Options joint{a};
    joint.initial_law = true;
    const LinearQuadraticChain tuned(chain, {0, 1}, {0, 0, b}, joint);
    EXPECT_NEAR(tuned.tuned().terminal.mean, b / a * variance, 1e-12);
    EXPECT_NEAR(tuned.tuned().objective, a * tuned.log_z(), 1e-12);  // the bound is reached: linear rewards keep the widths
    EXPECT_NEAR(tuned.tuned().initial_kl, b * b * rho * rho * variance / (2 * a * a), 1e-12);
    EXPECT_LT(kept.tuned().objective, a * kept.log_z());
  }
}

// Only steps from i on are tuned: the mean moves by (b/a) Var(x_K | x_i), less for later windows and not at all for none.
TEST(LinearQuadraticChain, WindowsOfSteps) {
  const sde::Chain chain = ddpm(40);
  const double b = 0.9, a = 0.7;
  double last = 1e9;
  for (int first : {0, 10, 25, 35, 40}) {
    const LinearQuadraticChain lq(chain, kData, {0, 0, b}, {a, KlPenalty::in_return, first});
    double conditional = 0;  // Var(x_K | x_first) along the base steps
    for (std::size_t k = static_cast<std::size_t>(first); k < lq.steps().size(); ++k)
      conditional = lq.steps()[k].J * lq.steps()[k].J * conditional + lq.steps()[k].s * lq.steps()[k].s;
    const double shift = lq.tuned().terminal.mean - lq.base().terminal.mean;
    EXPECT_NEAR(shift, b / a * conditional, 1e-12);
    EXPECT_LT(shift, last);
    last = shift;
  }
  EXPECT_NEAR(last, 0, 1e-14);
}

// The same numbers as the fixed point of adjoint matching, whose lean adjoint is deterministic for linear rewards.
TEST(LinearQuadraticChain, IsTheFixedPointOfAdjointMatching) {
  const sde::Chain chain = sde::euler_maruyama(sde::Schedule{}, sde::uniform_grid(40));
  const LinearFixedPoint point = linear_fixed_point(chain, {0.5, 0.8, 1.1});
  const LinearQuadraticChain lq(chain, kData, {0, 0, 1.1});
  EXPECT_NEAR(lq.tuned().terminal.mean, point.sde_mean, 1e-12);
  EXPECT_NEAR(lq.tuned().terminal.variance, point.sde_variance, 1e-12);
  EXPECT_NEAR(lq.tuned().path_kl, point.cost, 1e-12);
}

// An Ornstein-Uhlenbeck process from its own law, as a chain of exact transitions: kept or tuned initial laws.
TEST(LinearQuadraticChain, StationaryOrnsteinUhlenbeck) {
  const StationaryOrnsteinUhlenbeck ou{0.8, 0.7, 1.5};
  const int K = 400;
  const double h = ou.horizon / K, decay = std::exp(-h / 2);
  sde::Chain chain;
  chain.t = sde::uniform_grid(K);
  chain.A.assign(K, decay), chain.C.assign(K, 0), chain.std.assign(K, std::sqrt(1 - decay * decay));
  Options joint{ou.temperature};
  joint.initial_law = true;
  const LinearQuadraticChain kept(chain, {0, 1}, {0, 0, ou.b}, {ou.temperature}), tuned(chain, {0, 1}, {0, 0, ou.b}, joint);
  EXPECT_NEAR(kept.tuned().terminal.mean, ou.terminal(false).mean, 1e-12);
  EXPECT_NEAR(tuned.tuned().terminal.mean, ou.terminal(true).mean, 1e-12);
  EXPECT_NEAR(tuned.tuned().initial.mean, ou.initial().mean, 1e-12);
  EXPECT_NEAR(tuned.tuned().initial_kl, ou.initial_kl(), 1e-12);
  EXPECT_NEAR(tuned.tuned().path_kl, ou.path_kl(), 1e-12);
  EXPECT_NEAR(ou.initial_kl() + ou.path_kl(), std::pow(ou.b / ou.temperature, 2) / 2, 1e-14);
  const auto& v = kept.values()[0];
  EXPECT_NEAR(v.b * 0.3 + v.c, ou.initial_value(0.3), 1e-12);
  // A step's shift is what the control adds to its mean, int_t^{t+h} e^{-(t + h - s)/2} u*_s ds.
  EXPECT_NEAR(kept.steps()[100].shift, ou.control(101 * h) * (1 - std::exp(-h)), 1e-14);
}

TEST(LinearQuadraticChain, Refusals) {
  const auto message = [](const sde::Chain& chain, GaussianMoments data, ScalarQuadraticReward reward, Options options) {
    try {
      const LinearQuadraticChain lq(chain, data, reward, options);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  // Convex, with so little temperature that a step's best shift is infinite: the sentence names step and kappa.
  const std::string infinite = message(ddpm(50), kData, {-3, 0, 0}, {0.1});
  EXPECT_NE(infinite.find("at step "), std::string::npos) << infinite;
  EXPECT_NE(infinite.find("kappa"), std::string::npos) << infinite;
  EXPECT_NE(message(ddpm(5), kData, kReward, {0.0}), "");
  EXPECT_NE(message(ddpm(5), {0, -1}, kReward, {}), "");
  EXPECT_NE(message(ddpm(5), kData, kReward, {1, KlPenalty::in_return, 6}), "");
  EXPECT_NE(message(ddpm(5), kData, kReward, {1, KlPenalty::in_loss, 0, true}), "");
  EXPECT_NE(message(ddpm(5), kData, {NAN, 0, 0}, {}), "");
  EXPECT_EQ(message(ddpm(5), kData, kReward, {}), "");
  // kappa is the factor by which policy iteration contracts, beyond 1 for concave rewards too, where damping helps.
  sde::Chain large = ddpm(5, sde::DdpmVariance::fixed_large);
  large.std.back() = large.schedule.beta(large.t[4]);
  const LinearQuadraticChain concave(large, kData, {4, 2, 0});
  EXPECT_LT(concave.steps()[0].kappa, 0);
}

}  // namespace
}  // namespace costate::finetune
