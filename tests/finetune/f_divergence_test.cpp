// f-divergences: the table of functions against each other, the multiplier against numbers by quadrature, and the reward that
// turns the problem into one with the Kullback-Leibler divergence.
#include <costate/finetune/reward/analytic.h>
#include <costate/finetune/reward/callback.h>
#include <costate/finetune/reward/f_divergence.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <random>

namespace costate::finetune {
namespace {

using Values = std::vector<double>;

std::vector<FDivergence> all() {
  std::vector<FDivergence> out;
  for (const char* name : {"reverse_kl", "forward_kl", "jensen_shannon", "pearson", "neyman", "squared_hellinger"})
    out.push_back(f_divergence(name));
  for (const double alpha : {-1.0, 0.0, 0.3, 0.5, 1.0, 1.5, 2.0, 4.0}) out.push_back(f_divergence("alpha", alpha));
  return out;
}

double difference(const auto& f, double x, double h = 1e-6) { return (f(x + h) - f(x - h)) / (2 * h); }

// f(1) = 0, f' is the slope of f, w* its inverse, (log w*)' the slope of log w*, f^* = s w* - f(w*) with the slope w*: all of
// the table, with differences of step 1e-6: their rounding is about 1e-10, and their error 1e-13 times the third derivative,
// which is at most some 1e7 next to the end of a domain.
TEST(FDivergence, TheFunctionsOfTheTableBelongTogether) {
  for (const FDivergence& d : all()) {
    SCOPED_TRACE(static_cast<int>(d.kind) * 100 + d.alpha);
    EXPECT_NEAR(d.f(1), 0, 1e-15);
    for (const double t : {0.2, 0.9, 1.0, 1.7, 3.0}) {
      EXPECT_NEAR(difference([&](double u) { return d.f(u); }, t), d.slope(t), 1e-6);
      const double s = d.slope(t);
      ASSERT_LT(s, d.supremum());
      EXPECT_NEAR(d.density(s), t, 1e-12 * std::max(1.0, t));
      EXPECT_NEAR(d.log_density(s), std::log(t), 1e-12);
      EXPECT_NEAR(d.conjugate(s), s * t - d.f(t), 1e-11);
      EXPECT_NEAR(difference([&](double u) { return d.log_density(u); }, s), d.log_density_slope(s),
                  1e-6 * d.log_density_slope(s));
      EXPECT_NEAR(difference([&](double u) { return d.conjugate(u); }, s), t, 1e-6 * std::max(1.0, t));
    }
    if (std::isfinite(d.supremum())) {
      EXPECT_TRUE(std::isinf(d.density(d.supremum())) && std::isinf(d.conjugate(d.supremum() + 1)));
      EXPECT_EQ(d.log_density_slope(d.supremum()), 0);
    }
  }
  // Zero density, where there is any.
  for (const FDivergence& d : {f_divergence("pearson"), f_divergence("alpha", 2.0), f_divergence("alpha", 4.0)}) {
    EXPECT_EQ(d.density(-3), 0);
    EXPECT_EQ(d.log_density_slope(-3), 0);
    EXPECT_NEAR(d.conjugate(-3), -d.f(0), 1e-15);
  }
}

TEST(FDivergence, TheAlphaFamilyHoldsTheOthers) {
  struct Case {
    double alpha, factor;
    const char* name;
  };
  for (const Case& c : {Case{2, 0.5, "pearson"}, Case{-1, 0.5, "neyman"}, Case{0.5, 2, "squared_hellinger"}})
    for (const double t : {0.05, 0.6, 1.3, 7.0})
      EXPECT_NEAR(f_divergence("alpha", c.alpha).f(t), c.factor * f_divergence(c.name).f(t), 1e-13 * std::max(1.0, 1 / t))
          << c.name;
  // Reverse and forward KL at 1 and 0, and no jump next to them.
  for (const double t : {0.05, 0.6, 1.3, 7.0})
    for (const double e : {0.0, 1e-9, -1e-9}) {
      EXPECT_NEAR(f_divergence("alpha", 1 + e).f(t), t * std::log(t) - t + 1, 1e-7);
      EXPECT_NEAR(f_divergence("alpha", e).f(t), -std::log(t) + t - 1, 1e-7);
      EXPECT_NEAR(f_divergence("alpha", 1 + e).density(0.3), std::exp(0.3), 1e-8);
      EXPECT_NEAR(f_divergence("alpha", e).density(0.3), 1 / 0.7, 1e-8);
    }
}

// Base N(0, 1), r = -(x - 2)^2/2, a = 1, by quadrature on a fine grid.
struct Quadrature {
  Values x, weight, reward;
  explicit Quadrature(double step = 1e-3) {
    for (double at = -10; at <= 10; at += step) {
      x.push_back(at), weight.push_back(std::exp(-at * at / 2)), reward.push_back(-(at - 2) * (at - 2) / 2);
    }
  }
};

// Numbers of an independent quadrature; those of reverse KL also in closed form: the tilted law is N(1, 1/2) and
// lambda = log Z - 1 with log Z = -1 - log(2)/2.
TEST(FDivergence, MultipliersOfAGaussianBase) {
  struct Row {
    const char* name;
    double lambda, reward, mean, variance, divergence;
  };
  const Quadrature q;
  for (const Row& row : {Row{"reverse_kl", -2.34657, -0.75000, 1.00000, 0.50000, 0.59657},
                         Row{"forward_kl", 0.13634, -0.86366, 1.04218, 0.80991, 0.58083},
                         Row{"jensen_shannon", -0.62637, -0.29987, 1.51101, 0.36063, 0.61482},
                         Row{"pearson", -2.15203, -1.14051, 0.67579, 0.52749, 0.50576}}) {
    const DivergenceTilt t = divergence_tilt(f_divergence(row.name), q.reward, {.floor = 1e-30, .ceiling = 1e30}, q.weight);
    EXPECT_NEAR(t.lambda, row.lambda, 1e-4) << row.name;
    EXPECT_NEAR(t.mean_reward, row.reward, 1e-4) << row.name;
    EXPECT_NEAR(t.divergence_value, row.divergence, 1e-4) << row.name;
    double z = 0, m1 = 0, m2 = 0;
    for (std::size_t i = 0; i < q.x.size(); ++i) {
      const double w = q.weight[i] * std::exp(t.log_density(q.reward[i]));
      z += w, m1 += w * q.x[i], m2 += w * q.x[i] * q.x[i];
    }
    EXPECT_NEAR(m1 / z, row.mean, 1e-4) << row.name;
    EXPECT_NEAR(m2 / z - m1 / z * m1 / z, row.variance, 1e-4) << row.name;
    // Strong duality, with conjugates in closed form: to the rounding of 2e4 terms.
    EXPECT_NEAR(t.value, t.dual_value, 1e-10) << row.name;
  }
  const DivergenceTilt kl = divergence_tilt(f_divergence("reverse_kl"), q.reward, {}, q.weight);
  EXPECT_NEAR(kl.lambda, -1 - std::log(2.0) / 2 - 1, 1e-9);
  EXPECT_NEAR(divergence_tilt(f_divergence("alpha", 1), q.reward, {}, q.weight).lambda, kl.lambda + 1, 1e-9);
}

// Forward KL has w = a/(lambda - r). Of the rewards 1, 1, 0, 0 with a = .1 the two largest share the mass that the others leave:
//   (1/2) a/d + (1/2) a/(1 + d) = 1  with  lambda = 1 + d,  so that  d^2 + (1 - a) d - a/2 = 0.
// A single largest reward would have to take it alone, on one sample of a continuous law.
TEST(FDivergence, EqualLargestRewardsShareTheRest) {
  const double a = .1, d = (-(1 - a) + std::sqrt((1 - a) * (1 - a) + 2 * a)) / 2;
  for (const Values& rewards : {Values{1, 1, 0, 0}, Values{0, 1, 0, 1}}) {
    const DivergenceTilt t = divergence_tilt(f_divergence("forward_kl"), rewards, {.temperature = a});
    EXPECT_NEAR(t.lambda, 1 + d, 1e-12);  // of a bisection to the last bit
    EXPECT_NEAR(t.largest_share, a / d / 4, 1e-12);
    EXPECT_NEAR(t.mean_reward, a / d / 2, 1e-12);
  }
  EXPECT_THROW(divergence_tilt(f_divergence("forward_kl"), Values{1, 0, 0, 0}, {.temperature = a}), Error);
}

// The optimum is one: laws nearby, moved along two directions that keep the mass, do worse.
TEST(FDivergence, NoOtherLawDoesBetter) {
  const Quadrature q(0.05);
  double total = 0;
  for (const double w : q.weight) total += w;
  for (const char* name : {"reverse_kl", "forward_kl", "jensen_shannon", "neyman", "squared_hellinger"}) {
    const FDivergence d = f_divergence(name);
    const DivergenceTilt t = divergence_tilt(d, q.reward, {.temperature = 1.5, .floor = 1e-30, .ceiling = 1e30}, q.weight);
    const auto value = [&](double e, double frequency) {
      Values w;
      double z = 0, v = 0;
      for (std::size_t i = 0; i < q.x.size(); ++i) {
        w.push_back(std::exp(t.log_density(q.reward[i])) * (1 + e * std::sin(frequency * q.x[i])));
        z += q.weight[i] / total * w[i];
      }
      for (std::size_t i = 0; i < q.x.size(); ++i) v += q.weight[i] / total * (w[i] / z * q.reward[i] - 1.5 * d.f(w[i] / z));
      return v;
    };
    EXPECT_NEAR(value(0, 1), t.value, 1e-9) << name;
    for (const double e : {0.05, -0.05, 0.3})
      for (const double frequency : {1.0, 3.0}) EXPECT_LT(value(e, frequency), t.value - 1e-6) << name;
  }
}

// The error that is reported is that of many repetitions: 200 of them know a deviation to 1/sqrt(400) = 5 %; four of those.
TEST(FDivergence, ErrorOfTheMultiplier) {
  std::mt19937_64 engine(7);
  std::normal_distribution<double> normal;
  for (const char* name : {"reverse_kl", "pearson", "neyman"}) {
    double sum = 0, squares = 0, reported = 0;
    constexpr int repetitions = 200;
    for (int k = 0; k < repetitions; ++k) {
      Values r;
      for (int i = 0; i < 800; ++i) {
        const double x = normal(engine) - 1;
        r.push_back(-x * x / 2);
      }
      const DivergenceTilt t = divergence_tilt(f_divergence(name), r, {.temperature = 2});
      sum += t.lambda, squares += t.lambda * t.lambda, reported += t.standard_error;
    }
    const double mean = sum / repetitions,
                 deviation = std::sqrt((squares / repetitions - mean * mean) * repetitions / (repetitions - 1));
    EXPECT_NEAR(reported / repetitions, deviation, 0.2 * deviation) << name;
  }
}

// Tilting samples of the base by exp(r~ / a') gives the histogram of w*: 20000 samples against the exact mass of each bin, in
// units of the deviation of a bin's weighted count (Bernoulli's with the effective number of samples, which is at most the
// number drawn); the multiplier comes from the same samples, which adds an error of the same order: five deviations.
TEST(FDivergence, TheTransformedRewardTiltsTheBaseToTheOptimum) {
  const Quadrature q;
  std::mt19937_64 engine(11);
  std::normal_distribution<double> normal;
  constexpr int n = 20000;
  std::vector<double> x(n);
  for (double& v : x) v = normal(engine);
  const Reward r = quadratic_reward({2}, {1});
  const Tensor samples = Tensor::from(x, {n, 1});
  const Values rewards = r(samples).to_doubles();
  for (const FDivergence& d : all()) {
    SCOPED_TRACE(static_cast<int>(d.kind) * 100 + d.alpha);
    const DivergenceTilt exact = divergence_tilt(d, q.reward, {.floor = 1e-30, .ceiling = 1e30}, q.weight);
    const DivergenceTilt drawn = divergence_tilt(d, rewards);
    EXPECT_NEAR(drawn.lambda, exact.lambda, 6 * drawn.standard_error + 1e-12);
    constexpr double temperature = 0.7;
    const Reward transformed = f_divergence_reward(r, drawn, temperature);
    const Values t = transformed(samples).to_doubles();
    Values weight, bins(8), expected(8);
    double total = 0, squares = 0, mass = 0;
    const auto bin = [](double v) { return static_cast<std::size_t>(std::clamp(v + 3.0, 0.0, 7.0)); };
    for (int i = 0; i < n; ++i)
      weight.push_back(std::exp(t[i] / temperature)), total += weight[i], squares += weight[i] * weight[i];
    for (int i = 0; i < n; ++i) bins[bin(x[i])] += weight[i] / total;
    for (std::size_t i = 0; i < q.x.size(); ++i) {
      const double w = q.weight[i] * std::exp(exact.log_density(q.reward[i]));
      expected[bin(q.x[i])] += w, mass += w;
    }
    const double effective = total * total / squares;
    EXPECT_NEAR(drawn.effective_samples, effective, 1e-6 * effective);
    for (std::size_t b = 0; b < bins.size(); ++b) {
      const double p = expected[b] / mass;
      EXPECT_NEAR(bins[b], p, 5 * std::sqrt(p * (1 - p) / effective) + 1e-4) << "bin " << b;
    }
  }
}

TEST(FDivergence, FloorsAndCeilingsHaveNoGradient) {
  const Values r{-10, -1, 0, 1};
  const DivergenceTilt t = divergence_tilt(f_divergence("pearson"), r, {.temperature = 1});
  EXPECT_DOUBLE_EQ(t.floor_share, 0.25);  // 1 + (-10 - lambda)/2 is below zero
  EXPECT_DOUBLE_EQ(t.log_density(-10), std::log(1e-6));
  EXPECT_EQ(t.log_density_slope(-10), 0);
  const DivergenceTilt low = divergence_tilt(f_divergence("reverse_kl"), r, {.temperature = 1, .ceiling = 2});
  EXPECT_DOUBLE_EQ(low.log_density(1), std::log(2.0));
  EXPECT_EQ(low.log_density_slope(1), 0);
  EXPECT_GT(low.ceiling_share, 0);
  // Beyond every reward of the base a density is infinite, and taken to be the ceiling.
  const DivergenceTilt bounded = divergence_tilt(f_divergence("neyman"), r, {.temperature = 20});
  EXPECT_DOUBLE_EQ(bounded.log_density(1e3), std::log(1e6));
  EXPECT_EQ(bounded.log_density_slope(1e3), 0);
  EXPECT_TRUE(std::isnan(bounded.log_density(NAN)));
}

TEST(FDivergence, BlackBoxesAndPoliciesCarryOver) {
  Reward r = black_box_reward("box", [](auto x, auto n, auto value) { std::copy_n(x.begin(), n, value.begin()); });
  r.on_failure = Reward::Policy::clip, r.clip_low = -1, r.clip_high = 3;
  const DivergenceTilt t = divergence_tilt(f_divergence("pearson"), Values{0, 1, 2}, {.temperature = 4});
  const Reward out = f_divergence_reward(r, t, 2);
  EXPECT_FALSE(out.differentiable());
  EXPECT_EQ(out.name, "box under pearson");
  const Values v = out.scores(Tensor::from(std::vector<float>{0.5, NAN, 50}, {3, 1}), false).value.to_doubles();
  EXPECT_NEAR(v[0], 2 * t.log_density(0.5), 1e-6);
  EXPECT_NEAR(v[1], 2 * t.log_density(-1), 1e-6);
  EXPECT_NEAR(v[2], 2 * t.log_density(3), 1e-6);
}

TEST(FDivergence, WhatHasNoSolutionIsSaid) {
  const auto words = [](const auto& f, Fault fault) -> std::string {
    try {
      f();
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), fault) << e.what();
      return e.what();
    }
    ADD_FAILURE() << "no error";
    return {};
  };
  const auto has = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  has(words([] { f_divergence("total_variation"); }, Fault::argument), "an atom of all other mass");
  has(words([] { f_divergence("kl"); }, Fault::argument), "expected one of reverse_kl");
  // In ten dimensions the base has so little mass near the peak of -|x|^2/2 ... that E_q[a/(sup r - r)] < 1 for a small a:
  // E[1/(|x|^2/2)] = 2/(10 - 2).
  std::mt19937_64 engine(3);
  std::normal_distribution<double> normal;
  Values r;
  for (int i = 0; i < 4000; ++i) {
    double squares = 0;
    for (int j = 0; j < 10; ++j) squares += std::pow(normal(engine), 2);
    r.push_back(-squares / 2);
  }
  has(words([&] { divergence_tilt(f_divergence("forward_kl"), r, {.temperature = 0.5}); }, Fault::numerical),
      "the rest of 1 would sit on one sample");
  EXPECT_NO_THROW(divergence_tilt(f_divergence("forward_kl"), r, {.temperature = 8}));
  EXPECT_NO_THROW(divergence_tilt(f_divergence("reverse_kl"), r, {.temperature = 0.5}));
  has(words([&] { divergence_tilt(f_divergence("pearson"), Values{1}); }, Fault::argument), "found 1 rewards");
  has(words([&] { divergence_tilt(f_divergence("pearson"), Values{1, NAN}); }, Fault::numerical), "not finite");
  has(words([&] { divergence_tilt(f_divergence("pearson"), Values{1, 2}, {}, Values{1}); }, Fault::argument), "1 weights");
  has(words([&] { divergence_tilt(f_divergence("pearson"), Values{1, 2}, {}, Values{1, -1}); }, Fault::argument), "weight");
  has(words(
          [&] {
            divergence_tilt(f_divergence("pearson"), Values{1, 2}, {.temperature = 0});
          },
          Fault::argument),
      "temperature");
  // All rewards equal: the base itself.
  for (const FDivergence& d : all()) {
    const DivergenceTilt t = divergence_tilt(d, Values{2, 2, 2});
    EXPECT_NEAR(t.log_density(2), 0, 1e-12);
    EXPECT_NEAR(t.divergence_value, 0, 1e-12);
  }
}

}  // namespace
}  // namespace costate::finetune
