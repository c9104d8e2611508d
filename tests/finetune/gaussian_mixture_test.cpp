#include <costate/finetune/problem/gaussian_mixture.h>
#include <costate/finetune/problem/mixture_tilt.h>
#include <costate/sde/parametrisation.h>
#include <costate/tensor/error.h>
#include <costate/tensor/parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace costate::finetune {
namespace {

using sde::PathFamily;
using sde::Schedule;
using Values = std::vector<double>;

const std::vector<Schedule> kSchedules = {
    {PathFamily::linear}, {PathFamily::vp_linear}, {PathFamily::vp_cosine}};

// Two full covariances and a diagonal one in three dimensions.
GaussianMixture three_dimensional() {
  return GaussianMixture(3, {2, 1, 3}, {1, 0, -1, -2, 0.5, 0.3, 0.2, 1.5, 1},
                         {0.5, 0.2,  0.1, 0.2,  0.7, -0.1, 0.1, -0.1, 0.3,  //
                          0.3, 0,    0,   0,    0.9, 0,    0,   0,    0.2,  //
                          0.8, -0.3, 0,   -0.3, 0.6, 0.15, 0,   0.15, 0.5});
}

QuadraticReward three_dimensional_reward() {
  return {{0.4, -0.2, 0.3}, {0.1, 0.2, -0.3}, {0.6, 0.2, 0, 0.2, -0.3, 0.1, 0, 0.1, 0.5}};  // Q is indefinite
}

Values points() { return {0.3, -0.4, 0.9, -1.5, 0.2, 0.4, 0.1, 1.1, 0.6, 2.5, -1, -2, 0, 0, 0}; }
constexpr int kRows = 5;

GaussianMixture one_dimensional() { return GaussianMixture::isotropic(1, {0.5, 0.5}, {-1.5, 1.5}, 0.4); }

double log_density_at(const GaussianMixture& g, const Schedule& s, const Values& x, double t) {
  double out;
  g.log_density(s, 1, x.data(), t, &out);
  return out;
}

TEST(GaussianMixture, DensityIntegratesToOneAndMatchesTheFormula) {
  const GaussianMixture g = one_dimensional();
  double mass = 0, first = 0;
  const double h = 1e-3;
  for (double x = -6; x < 6; x += h) {
    const double p = std::exp(log_density_at(g, {}, {x}, 1));
    mass += p * h, first += p * x * x * h;
  }
  EXPECT_NEAR(mass, 1,
              1e-10);  // the trapezoidal rule is spectrally accurate on a density that vanishes at the ends
  EXPECT_NEAR(first, g.covariance()[0], 1e-10);
  EXPECT_NEAR(g.covariance()[0], 0.16 + 2.25, 1e-14);
  const double expected = std::log(0.5 * std::exp(-0.5 * std::pow(2.2 / 0.4, 2)) +
                                   0.5 * std::exp(-0.5 * std::pow(0.8 / 0.4, 2))) -
                          std::log(0.4 * std::sqrt(2 * std::acos(-1.0)));
  EXPECT_NEAR(log_density_at(g, {}, {0.7}, 1), expected, 1e-13);
}

TEST(GaussianMixture, MarginalAtATimeIsTheMixtureAtThatTime) {
  const GaussianMixture g = three_dimensional();
  for (const Schedule& s : kSchedules)
    for (double t : {0.0, 0.35, 1.0}) {
      Values a(kRows), b(kRows);
      g.log_density(s, kRows, points().data(), t, a.data());
      g.at(s, t).log_density(kRows, points().data(), b.data());
      for (int i = 0; i < kRows; ++i) EXPECT_NEAR(a[i], b[i], 1e-11 * (1 + std::abs(a[i])));
    }
}

TEST(GaussianMixture, ScoreIsTheGradientOfTheLogDensity) {
  const GaussianMixture g = three_dimensional();
  for (const Schedule& s : kSchedules)
    for (double t : {0.0, 0.2, 0.7, 1.0}) {
      const Values x = points();
      Values score(x.size());
      g.score(s, kRows, x.data(), t, score.data());
      for (int b = 0; b < kRows; ++b)
        for (int j = 0; j < 3; ++j) {
          Values up(x.begin() + 3 * b, x.begin() + 3 * b + 3), down = up;
          const double h = 1e-5;
          up[j] += h, down[j] -= h;
          const double numeric = (log_density_at(g, s, up, t) - log_density_at(g, s, down, t)) / (2 * h);
          EXPECT_NEAR(score[3 * b + j], numeric, 1e-7 * (1 + std::abs(numeric)))
              << s.description() << " t " << t;
        }
    }
}

// v, E[x_1|x] and the score are three forms of one number: conversion() must take each to the other.
TEST(GaussianMixture, VelocityDenoisedAndScoreAgree) {
  const GaussianMixture g = three_dimensional();
  const Values x = points();
  Values v(x.size()), x1(x.size()), score(x.size());
  for (const Schedule& s : kSchedules)
    for (double t : {0.01, 0.3, 0.8, 0.99}) {
      g.velocity(s, kRows, x.data(), t, v.data());
      g.denoised(s, kRows, x.data(), t, x1.data());
      g.score(s, kRows, x.data(), t, score.data());
      const sde::Affine from_v =
          sde::conversion(sde::Parametrisation::velocity, sde::Parametrisation::x1, s, t);
      const sde::Affine from_score =
          sde::conversion(sde::Parametrisation::score, sde::Parametrisation::velocity, s, t);
      for (std::size_t i = 0; i < x.size(); ++i) {
        // Relative to the terms that cancel: kappa x and eta s are up to 100 times v at t = 0.01.
        EXPECT_NEAR(x1[i], from_v.x * x[i] + from_v.prediction * v[i],
                    1e-12 * (1 + std::abs(from_v.x * x[i])));
        EXPECT_NEAR(v[i], from_score.x * x[i] + from_score.prediction * score[i],
                    1e-12 * (1 + std::abs(from_score.x * x[i])));
      }
    }
}

// The velocity moves the marginals: d p_t/dt + div(p_t v) = 0, in log form
// d log p_t/dt + v . score + div v = 0, with the divergence from the vjp.
TEST(GaussianMixture, VelocitySolvesTheContinuityEquation) {
  const GaussianMixture g = three_dimensional();
  const Values x = points();
  for (const Schedule& s : kSchedules)
    for (double t : {0.1, 0.5, 0.9}) {
      Values v(x.size()), score(x.size()), up(kRows), down(kRows), divergence(kRows, 0.0), a(x.size()),
          row(x.size());
      g.velocity(s, kRows, x.data(), t, v.data());
      g.score(s, kRows, x.data(), t, score.data());
      for (int j = 0; j < 3; ++j) {
        for (int b = 0; b < kRows; ++b)
          for (int k = 0; k < 3; ++k) a[3 * b + k] = k == j;
        g.velocity_vjp(s, kRows, x.data(), t, a.data(), row.data());
        for (int b = 0; b < kRows; ++b) divergence[b] += row[3 * b + j];
      }
      const double h = 1e-5;
      g.log_density(s, kRows, x.data(), t + h, up.data());
      g.log_density(s, kRows, x.data(), t - h, down.data());
      for (int b = 0; b < kRows; ++b) {
        double advection = 0;
        for (int j = 0; j < 3; ++j) advection += v[3 * b + j] * score[3 * b + j];
        const double scale = 1 + std::abs(advection) + std::abs(divergence[b]);
        EXPECT_NEAR((up[b] - down[b]) / (2 * h) + advection + divergence[b], 0, 1e-6 * scale)
            << s.description() << " t " << t << " row " << b;
      }
    }
}

TEST(GaussianMixture, VjpIsTheTransposedJacobian) {
  const GaussianMixture g = three_dimensional();
  const Values x = points(), a = {0.3, -1, 0.5, 1, 2, -0.7, -0.2, 0.4, 1.1, 1, 0, 0, 0.6, -0.6, 2};
  for (const Schedule& s : kSchedules)
    for (double t : {0.0, 0.25, 0.6, 0.95}) {
      Values vjp(x.size());
      g.velocity_vjp(s, kRows, x.data(), t, a.data(), vjp.data());
      const double h = 1e-5;
      for (int j = 0; j < 3; ++j) {
        Values up = x, down = x, vu(x.size()), vd(x.size());
        for (int b = 0; b < kRows; ++b) up[3 * b + j] += h, down[3 * b + j] -= h;
        g.velocity(s, kRows, up.data(), t, vu.data());
        g.velocity(s, kRows, down.data(), t, vd.data());
        for (int b = 0; b < kRows; ++b) {
          double numeric = 0;
          for (int k = 0; k < 3; ++k) numeric += a[3 * b + k] * (vu[3 * b + k] - vd[3 * b + k]) / (2 * h);
          EXPECT_NEAR(vjp[3 * b + j], numeric, 1e-6 * (1 + std::abs(numeric)))
              << s.description() << " t " << t;
        }
      }
    }
}

// At t = 1 every path ends in the data: v is finite and, on the linear path, E[x_1 - x_0 | x_1 = x] = x.
TEST(GaussianMixture, EndpointsAreRegular) {
  const GaussianMixture g = three_dimensional();
  const Values x = points(), mean = g.mean();
  Values v(x.size()), vjp(x.size());
  g.velocity(Schedule{}, kRows, x.data(), 1.0, v.data());
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(v[i], x[i], 1e-13);
  g.velocity(Schedule{}, kRows, x.data(), 0.0, v.data());  // E[x_1] - x
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(v[i], mean[i % 3] - x[i], 1e-13);
  for (const Schedule& s : kSchedules)
    for (double t : {0.0, 1.0}) {
      g.velocity(s, kRows, x.data(), t, v.data());
      g.velocity_vjp(s, kRows, x.data(), t, x.data(), vjp.data());
      for (std::size_t i = 0; i < x.size(); ++i) EXPECT_TRUE(std::isfinite(v[i]) && std::isfinite(vjp[i]));
    }
}

TEST(GaussianMixture, OneTimeARowAndFloatAgreeWithOneTimeForAll) {
  const GaussianMixture g = three_dimensional();
  const Values x = points(), t = {0.1, 0.1, 0.5, 0.9, 0};
  Values all(x.size()), one(3), vjp_all(x.size());
  g.velocity(Schedule{}, kRows, x.data(), std::span<const double>(t), all.data());
  g.velocity_vjp(Schedule{}, kRows, x.data(), std::span<const double>(t), x.data(), vjp_all.data());
  for (int b = 0; b < kRows; ++b) {
    g.velocity(Schedule{}, 1, x.data() + 3 * b, t[b], one.data());
    for (int j = 0; j < 3; ++j) EXPECT_EQ(one[j], all[3 * b + j]);
    g.velocity_vjp(Schedule{}, 1, x.data() + 3 * b, t[b], x.data() + 3 * b, one.data());
    for (int j = 0; j < 3; ++j) EXPECT_EQ(one[j], vjp_all[3 * b + j]);
  }
  const std::vector<float> xf(x.begin(), x.end());
  std::vector<float> vf(x.size());
  g.velocity(Schedule{}, kRows, xf.data(), 0.5, vf.data());
  g.velocity(Schedule{}, kRows, x.data(), 0.5, all.data());
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(vf[i], all[i], 1e-5);
  EXPECT_THROW(g.velocity(Schedule{}, kRows, x.data(), std::span<const double>(t).first(2), all.data()),
               Error);
}

TEST(GaussianMixture, SamplesHaveTheMomentsAndDependOnTheirNumberOnly) {
  const GaussianMixture g = three_dimensional();
  const int n = 200000;
  Values x(3 * n), tail(3 * 10);
  std::vector<int> component(n);
  g.sample(7, 0, n, x.data(), component.data());
  g.sample(7, n - 10, 10, tail.data());
  for (int i = 0; i < 30; ++i) EXPECT_EQ(tail[i], x[3 * (n - 10) + i]);
  const Values mean = g.mean(), covariance = g.covariance();
  Values share(3, 0.0), m(3, 0.0), s(9, 0.0);
  for (int i = 0; i < n; ++i) {
    share[component[i]] += 1.0 / n;
    for (int j = 0; j < 3; ++j) {
      m[j] += x[3 * i + j] / n;
      for (int k = 0; k < 3; ++k) s[3 * j + k] += (x[3 * i + j] - mean[j]) * (x[3 * i + k] - mean[k]) / n;
    }
  }
  // Five standard errors each.
  for (int j = 0; j < 3; ++j) {
    EXPECT_NEAR(share[j], g.weights()[j], 5 * std::sqrt(0.25 / n));
    EXPECT_NEAR(m[j], mean[j], 5 * std::sqrt(covariance[4 * j] / n));
    for (int k = 0; k < 3; ++k)
      EXPECT_NEAR(s[3 * j + k], covariance[3 * j + k],
                  5 * std::sqrt(3 * covariance[4 * j] * covariance[4 * k] / n));
  }
  Values two(x.size());
  set_threads(2);
  g.sample(7, 0, n, two.data());
  set_threads(1);
  EXPECT_EQ(x, two);
}

TEST(GaussianMixture, QuantileInvertsTheDistributionFunction) {
  const GaussianMixture g = one_dimensional();
  for (double p : {1e-6, 0.1, 0.5, 0.77, 1 - 1e-6}) EXPECT_NEAR(g.cdf(g.quantile(p)), p, 1e-14);
  EXPECT_NEAR(g.cdf(0), 0.5, 1e-15);
  EXPECT_THROW(three_dimensional().cdf(0), Error);
  EXPECT_THROW(g.quantile(1), Error);
}

TEST(GaussianMixture, Refusals) {
  EXPECT_THROW(GaussianMixture(2, {1}, {0, 0}, {1, 0, 0, -1}), Error);
  EXPECT_THROW(GaussianMixture(2, {1}, {0, 0}, {1, 0.5, 0.4, 1}), Error);
  EXPECT_THROW(GaussianMixture(2, {1, -1}, {0, 0, 0, 0}, {1, 0, 0, 1, 1, 0, 0, 1}), Error);
  EXPECT_THROW(GaussianMixture(2, {1}, {0}, {1, 0, 0, 1}), Error);
  EXPECT_THROW(GaussianMixture(1, {}, {}, {}), Error);
  EXPECT_THROW(GaussianMixture(1, {1}, {std::nan("")}, {1}), Error);
}

// The reference problem of the project: .5 N(-1.5, .4^2) + .5 N(1.5, .4^2), r = 0.6 x.
TEST(MixtureTilt, ReferenceNumbers) {
  const MixtureTilt tilt(one_dimensional(), {{0.6}, {}, {}});
  EXPECT_NEAR(tilt.target().mean()[0], 1.1704, 5e-5);
  EXPECT_NEAR(tilt.target().weights()[0], 0.1419, 5e-5);
  EXPECT_NEAR(tilt.target().weights()[1], 0.8581, 5e-5);
  EXPECT_NEAR(tilt.target().mean(0)[0], -1.404, 1e-12);
  EXPECT_NEAR(tilt.target().mean(1)[0], 1.596, 1e-12);
  EXPECT_NEAR(tilt.kl(), 0.3136, 5e-5);
}

TEST(MixtureTilt, TargetIsTheTiltedDensity) {
  const MixtureTilt tilt(three_dimensional(), three_dimensional_reward());
  const Values x = points();
  Values p(kRows), q(kRows);
  tilt.base().log_density(kRows, x.data(), p.data());
  tilt.target().log_density(kRows, x.data(), q.data());
  for (int b = 0; b < kRows; ++b)
    EXPECT_NEAR(q[b], p[b] + tilt.reward().value(x.data() + 3 * b, 3) - tilt.log_z(),
                1e-11 * (1 + std::abs(q[b])));
}

// log Z, E_{p*}[r] and KL by quadrature in one dimension, with a quadratic reward.
TEST(MixtureTilt, NormaliserAndDivergenceByQuadrature) {
  const MixtureTilt tilt(one_dimensional(), {{0.3}, {0.5}, {-0.8}});
  double z = 0, mean_r = 0, kl = 0;
  const double h = 1e-3;
  for (double x = -9; x < 9; x += h) {
    double p, q;
    tilt.base().log_density(1, &x, &p);
    tilt.target().log_density(1, &x, &q);
    const double r = tilt.reward().value(&x, 1);
    z += std::exp(p + r) * h, mean_r += std::exp(q) * r * h, kl += std::exp(q) * (q - p) * h;
  }
  EXPECT_NEAR(tilt.log_z(), std::log(z), 1e-9);
  EXPECT_NEAR(tilt.expected_reward(), mean_r, 1e-9);
  EXPECT_NEAR(tilt.kl(), kl, 1e-9);
}

TEST(MixtureTilt, ValueIsMinusLogZAtNoiseAndMinusRewardAtData) {
  const MixtureTilt tilt(three_dimensional(), three_dimensional_reward());
  const Values x = points();
  for (const Schedule& s : kSchedules) {
    Values v(kRows);
    tilt.value(s, kRows, x.data(), 1.0, v.data());
    for (int b = 0; b < kRows; ++b) EXPECT_NEAR(v[b], -tilt.reward().value(x.data() + 3 * b, 3), 1e-12);
    if (s.alpha(0) > 0) continue;
    tilt.value(s, kRows, x.data(), 0.0, v.data());
    for (int b = 0; b < kRows; ++b) EXPECT_NEAR(v[b], -tilt.log_z(), 1e-12);
  }
}

// Two derivations of V: Gaussian posteriors against the log ratio of the marginals (which fixes the gradient
// too).
TEST(MixtureTilt, ValueIsTheLogRatioOfMarginals) {
  const MixtureTilt tilt(three_dimensional(), three_dimensional_reward());
  const Values x = points();
  for (const Schedule& s : kSchedules)
    for (double t : {0.1, 0.5, 0.9}) {
      Values v(kRows), p(kRows), q(kRows);
      tilt.value(s, kRows, x.data(), t, v.data());
      tilt.base().log_density(s, kRows, x.data(), t, p.data());
      tilt.target().log_density(s, kRows, x.data(), t, q.data());
      for (int b = 0; b < kRows; ++b) EXPECT_NEAR(v[b], p[b] - q[b] - tilt.log_z(), 1e-10) << s.description();
    }
}

TEST(MixtureTilt, GradientVelocityAndControlAreConsistent) {
  const MixtureTilt tilt(three_dimensional(), three_dimensional_reward());
  const Values x = points();
  for (const Schedule& s : kSchedules)
    for (double t : {0.05, 0.4, 0.9}) {
      Values g(x.size()), v(x.size()), best(x.size()), u(x.size());
      tilt.value_gradient(s, kRows, x.data(), t, g.data());
      tilt.base().velocity(s, kRows, x.data(), t, v.data());
      tilt.optimal_velocity(s, kRows, x.data(), t, best.data());
      tilt.optimal_control(s, kRows, x.data(), t, u.data());
      const sde::PathPoint p = s.at(t);
      const double h = 1e-5;
      for (int j = 0; j < 3; ++j) {
        Values up = x, down = x, vu(kRows), vd(kRows);
        for (int b = 0; b < kRows; ++b) up[3 * b + j] += h, down[3 * b + j] -= h;
        tilt.value(s, kRows, up.data(), t, vu.data());
        tilt.value(s, kRows, down.data(), t, vd.data());
        for (int b = 0; b < kRows; ++b)
          EXPECT_NEAR(g[3 * b + j], (vu[b] - vd[b]) / (2 * h), 1e-7 * (1 + std::abs(g[3 * b + j])));
      }
      for (std::size_t i = 0; i < x.size(); ++i) {
        EXPECT_NEAR(best[i], v[i] - p.eta * g[i], 1e-11 * (1 + p.eta)) << s.description() << " t " << t;
        EXPECT_NEAR(u[i], 2 / p.memoryless_sigma * (best[i] - v[i]), 1e-10);
      }
    }
}

// The optimal value solves the Hamilton-Jacobi-Bellman equation of the memoryless control problem in one
// dimension: V_t + b V_x + (sigma^2/2) V_xx - (sigma^2/2) V_x^2 = 0 with b = 2 v - kappa x.
TEST(MixtureTilt, ValueSolvesTheHamiltonJacobiBellmanEquation) {
  const MixtureTilt tilt(one_dimensional(), {{0.6}, {}, {}});
  const auto value = [&](const Schedule& s, double x, double t) {
    double v;
    tilt.value(s, 1, &x, t, &v);
    return v;
  };
  for (const Schedule& s : kSchedules)
    for (double t : {0.2, 0.5, 0.8})
      for (double x : {-1.0, 0.2, 1.3}) {
        const double h =
            1e-3;  // differences of second order: error h^2 times fourth derivatives of order 1e2
        const double here = value(s, x, t), right = value(s, x + h, t), left = value(s, x - h, t);
        const double vt = (value(s, x, t + h) - value(s, x, t - h)) / (2 * h);
        const double vx = (right - left) / (2 * h), vxx = (right - 2 * here + left) / (h * h);
        const sde::PathPoint p = s.at(t);
        double velocity;
        tilt.base().velocity(s, 1, &x, t, &velocity);
        const double b = 2 * velocity - p.kappa * x;
        EXPECT_NEAR(vt + b * vx + p.eta * vxx - p.eta * vx * vx, 0,
                    3e-3 * (1 + std::abs(b * vx) + p.eta * std::abs(vxx)))
            << s.description() << " t " << t << " x " << x;
      }
}

TEST(MixtureTilt, Refusals) {
  EXPECT_THROW(MixtureTilt(one_dimensional(), {{}, {}, {-7}}), Error);  // 1/0.16 - 7 < 0
  EXPECT_NO_THROW(MixtureTilt(one_dimensional(), {{}, {}, {-6}}));
  EXPECT_THROW(MixtureTilt(one_dimensional(), {{1, 2}, {}, {}}), Error);
  EXPECT_THROW(MixtureTilt(three_dimensional(), {{}, {}, {1, 2, 0, 0, 1, 0, 0, 0, 1}}), Error);
}

TEST(QuadraticReward, GradientAndScaling) {
  const QuadraticReward r = three_dimensional_reward();
  const Values x = {0.3, -0.4, 0.9};
  Values g(3);
  r.gradient(x.data(), 3, g.data());
  const double h = 1e-4;
  for (int j = 0; j < 3; ++j) {
    Values up = x, down = x;
    up[j] += h, down[j] -= h;
    // A quadratic's central difference is exact up to rounding.
    EXPECT_NEAR(g[j], (r.value(up.data(), 3) - r.value(down.data(), 3)) / (2 * h), 1e-11);
  }
  EXPECT_NEAR(r.times(2.5).value(x.data(), 3), 2.5 * r.value(x.data(), 3), 1e-14);
}

}  // namespace
}  // namespace costate::finetune
