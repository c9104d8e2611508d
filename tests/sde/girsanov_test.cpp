// Log ratios of paths: exact for Gaussian steps, so that identities hold within the sampling error alone (3 standard errors).
#include <costate/autograd/ops.h>
#include <costate/sde/girsanov.h>
#include <costate/tensor/parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace costate::sde {
namespace {

using Values = std::vector<double>;

struct Moments {
  double mean = 0, error = 0;
};
template <class F>
Moments moments(const Values& v, const F& f) {
  Moments m;
  const double n = static_cast<double>(v.size());
  for (double x : v) m.mean += f(x) / n;
  for (double x : v) m.error += (f(x) - m.mean) * (f(x) - m.mean);
  m.error = std::sqrt(m.error / (n - 1) / n);
  return m;
}
double same(double x) { return x; }

// The exact velocity for independent coordinates N(mean, variance) on the linear path.
Field gaussian(double mean, double variance) {
  return [mean, variance](const Var& x, const Var& t, const Tensor&) {
    const double time = t.value().to_doubles()[0];
    const AffineModel m = gaussian_prediction(Parametrisation::velocity, Schedule{}.at(time), mean, variance);
    return affine(x, m.slope, m.intercept);
  };
}
// x -> slope x + shift.
Field linear(double slope, double shift) {
  return [slope, shift](const Var& x, const Var&, const Tensor&) { return affine(x, slope, shift); };
}

PathOptions options(PathOptions::Law law, DType dtype = DType::f64) {
  PathOptions o;
  o.sampled = law, o.dtype = dtype;
  return o;
}

// Equal variances: the control is a number a step, so that the path KL is known without sampling.
TEST(Girsanov, PathKlOfAMeanShiftInClosedForm) {
  const Chain chain = euler_maruyama({}, uniform_grid(12));
  const double base_mean = 0.2, tuned_mean = 0.5, variance = 0.6;
  double kl = 0;
  for (int k = 0; k < 12; ++k) {
    const PathPoint p = chain.schedule.at(chain.t[k]);
    const double shift = gaussian_prediction(Parametrisation::velocity, p, tuned_mean, variance).intercept -
                         gaussian_prediction(Parametrisation::velocity, p, base_mean, variance).intercept;
    kl += 2 * std::pow(chain.C[k] * shift / chain.std[k], 2) / 2;  // two dimensions
  }
  const Field tuned = gaussian(tuned_mean, variance), base = gaussian(base_mean, variance);
  const Paths up = sample_paths(tuned, base, chain, {2}, 20000, {}, {1, 0}, options(PathOptions::Law::tuned));
  for (double c : up.cost) ASSERT_NEAR(c, kl, 1e-12);
  const Moments ratio = moments(up.log_ratio, same);
  EXPECT_NEAR(ratio.mean, kl, 3 * ratio.error);
  EXPECT_NEAR(ratio.error, std::sqrt(2 * kl / 20000), 0.03 * ratio.error);  // the ratio is N(kl, 2 kl)
  // Along base paths it is N(-kl, 2 kl).
  const Paths down = sample_paths(tuned, base, chain, {2}, 20000, {}, {1, 0}, options(PathOptions::Law::base));
  const Moments reverse = moments(down.log_ratio, same);
  EXPECT_NEAR(reverse.mean, -kl, 3 * reverse.error);
}

// Controls that depend on the state: E_P[dP_u/dP] = 1, E_{P_u}[dP/dP_u] = 1, a change of measure carries E_{P_u} f(x_K) to
// P, and both estimators of the path KL agree.
TEST(Girsanov, RatiosAreDensities) {
  const Field tuned = gaussian(0.4, 0.5), base = gaussian(0.2, 0.6);
  for (const Chain& chain : {euler_maruyama({}, uniform_grid(10)), exact_memoryless({}, uniform_grid(10)),
                             euler_maruyama_constant({}, {0, 0.2, 0.4, 0.6, 0.8}, 0.7)}) {
    const Paths up = sample_paths(tuned, base, chain, {1}, 40000, {}, {2, 0}, options(PathOptions::Law::tuned));
    const Paths down = sample_paths(tuned, base, chain, {1}, 40000, {}, {3, 0}, options(PathOptions::Law::base));
    const Moments one = moments(down.log_ratio, [](double l) { return std::exp(l); });
    EXPECT_NEAR(one.mean, 1, 3 * one.error) << chain.description;
    EXPECT_LT(one.error, 0.02);
    const Moments inverse = moments(up.log_ratio, [](double l) { return std::exp(-l); });
    EXPECT_NEAR(inverse.mean, 1, 3 * inverse.error) << chain.description;
    const Moments kl = moments(up.log_ratio, same), cost = moments(up.cost, same);
    EXPECT_NEAR(kl.mean, cost.mean, 3 * std::hypot(kl.error, cost.error)) << chain.description;
    EXPECT_LT(cost.error, kl.error);
    if (chain.std.back() == 0) continue;  // the step without noise moves the two laws apart, outside the ratio
    Values weighted = down.terminal.to_doubles();
    for (std::size_t i = 0; i < weighted.size(); ++i) weighted[i] *= std::exp(down.log_ratio[i]);
    const Moments a = moments(weighted, same), b = moments(up.terminal.to_doubles(), same);
    EXPECT_NEAR(a.mean, b.mean, 3 * std::hypot(a.error, b.error)) << chain.description;
  }
}

// dX = c dt + sigma dB against dX = sigma dB on [1, 3]: KL = |c|^2 T/(2 sigma^2), on any grid, and log dP_u/dP is a function
// of the end, c (x_T - x_0)/sigma^2 - c^2 T/(2 sigma^2), for either law.
TEST(Girsanov, ConstantDriftHasTheClosedForm) {
  const double c = 0.4, sigma = 0.8, T = 2;
  const Values t = {1, 1.3, 1.4, 2.5, 3};
  const Tensor x0 = initial_noise({3}, 500, {9, 0}, DType::f64);
  for (const auto law : {PathOptions::Law::tuned, PathOptions::Law::base}) {
    const Paths p = sample_paths(linear(0, c), linear(0, 0), [&](double) { return sigma; }, t, x0, {}, {4, 0}, options(law));
    const Values from = x0.to_doubles(), to = p.terminal.to_doubles();
    for (std::size_t i = 0; i < 500; ++i) {
      double moved = 0;
      for (std::size_t j = 3 * i; j < 3 * i + 3; ++j) moved += to[j] - from[j];
      EXPECT_NEAR(p.log_ratio[i], c * moved / (sigma * sigma) - 3 * c * c * T / (2 * sigma * sigma), 1e-12);
      EXPECT_NEAR(p.cost[i], 3 * c * c * T / (2 * sigma * sigma), 1e-12);
    }
  }
}

// Two Ornstein-Uhlenbeck rates: E_P[dP_u/dP] = 1 for a drift and a sigma(t) of one's own.
TEST(Girsanov, GeneralDrifts) {
  const auto sigma = [](double t) { return 0.5 + 0.2 * t; };
  Values t;
  for (int k = 0; k <= 20; ++k) t.push_back(0.1 * k);
  const Tensor x0 = Tensor::full({40000, 1}, 0.5, DType::f64);
  const Paths down = sample_paths(linear(-1, 0.2), linear(-0.7, 0), sigma, t, x0, {}, {5, 0}, options(PathOptions::Law::base));
  const Moments one = moments(down.log_ratio, [](double l) { return std::exp(l); });
  EXPECT_NEAR(one.mean, 1, 3 * one.error);
  EXPECT_LT(one.error, 0.01);
}

TEST(Girsanov, SinglePrecisionAndThreads) {
  const Chain chain = exact_memoryless({}, uniform_grid(6));
  const Field tuned = gaussian(0.4, 0.5), base = gaussian(0.2, 0.6);
  const Paths wide = sample_paths(tuned, base, chain, {2}, 150, {}, {2, 0}, options(PathOptions::Law::tuned));
  const Paths narrow =
      sample_paths(tuned, base, chain, {2}, 150, {}, {2, 0}, options(PathOptions::Law::tuned, DType::f32));
  for (std::size_t i = 0; i < 150; ++i) EXPECT_NEAR(wide.log_ratio[i], narrow.log_ratio[i], 1e-5);
  set_threads(2);
  const Paths two = sample_paths(tuned, base, chain, {2}, 150, {}, {2, 0}, options(PathOptions::Law::tuned));
  set_threads(1);
  EXPECT_EQ(wide.log_ratio, two.log_ratio);
  // The paths of the sampler itself.
  EXPECT_EQ(wide.terminal.to_doubles(), sample(tuned, chain, {2}, 150, {}, {2, 0}, DType::f64).to_doubles());
}

TEST(Girsanov, PathsFromGivenStarts) {
  const Field tuned = gaussian(0.4, 0.5), base = gaussian(0, 1);
  const Chain chain = exact_memoryless({}, uniform_grid(5));
  PathOptions o = options(PathOptions::Law::tuned);
  const Paths noise = sample_paths(tuned, base, chain, {2}, 70, {}, {2, 0}, o);
  o.start = initial_noise({2}, 70, {2, 0}, o.dtype);
  const Paths given = sample_paths(tuned, base, chain, {2}, 70, {}, {2, 0}, o);
  EXPECT_EQ(given.terminal.to_doubles(), noise.terminal.to_doubles());
  EXPECT_EQ(given.log_ratio, noise.log_ratio);
  o.start = Tensor::full({70, 2}, 3.0, o.dtype);
  EXPECT_NE(sample_paths(tuned, base, chain, {2}, 70, {}, {2, 0}, o).log_ratio, noise.log_ratio);
  o.start = Tensor::zeros({69, 2}, o.dtype);
  EXPECT_THROW(sample_paths(tuned, base, chain, {2}, 70, {}, {2, 0}, o), Error);
  o.start = Tensor::zeros({2, 1}, o.dtype);
  EXPECT_THROW(sample_paths(
                   linear(0, 1), linear(0, 0), [](double) { return 1.0; }, {0, 1}, Tensor::zeros({2, 1}, o.dtype), {}, {}, o),
               Error);
}

TEST(Girsanov, StepsWithoutNoiseAreLeftOut) {
  for (double l : sample_paths(gaussian(0.4, 0.5), gaussian(0, 1), euler_ode({}, uniform_grid(4)), {1}, 3, {}, {}).log_ratio)
    EXPECT_EQ(l, 0);
}

TEST(Girsanov, Refusals) {
  const Field f = gaussian(0, 1);
  EXPECT_THROW(PathRatio(0), Error);
  EXPECT_THROW(sample_paths(f, f, exact_memoryless({}, uniform_grid(4)), {1}, 0, {}, {}), Error);
  EXPECT_THROW(sample_paths(f, f, exact_memoryless({}, uniform_grid(4)), {1}, 3, Tensor::zeros({2}, DType::i32), {}), Error);
  const Tensor x0 = Tensor::zeros({2, 1});
  const auto one = [](double) { return 1.0; };
  EXPECT_THROW(sample_paths(f, f, one, {0}, x0, {}, {}), Error);
  EXPECT_THROW(sample_paths(f, f, one, {0, 0.5, 0.5}, x0, {}, {}), Error);
  EXPECT_THROW(sample_paths(f, f, [](double) { return -1.0; }, {0, 1}, x0, {}, {}), Error);
  EXPECT_THROW(sample_paths(f, f, [](double) { return 0.0; }, {0, 1}, x0, {}, {}), Error);
  EXPECT_THROW(sample_paths(f, f, one, {0, 1}, Tensor(), {}, {}), Error);
}

}  // namespace
}  // namespace costate::sde
