// The log-likelihood of a mixture's own velocity is the log density of the mixture.
#include <costate/finetune/problem/analytic_field.h>
#include <costate/sde/likelihood.h>
#include <costate/sde/step.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

namespace costate::finetune {
namespace {

using Values = std::vector<double>;

std::shared_ptr<const GaussianMixture> mixture() {
  return std::make_shared<GaussianMixture>(2, Values{0.3, 0.5, 0.2}, Values{-1.5, 0, 1.2, 1, 0.3, -1.6},
                                           Values{0.3, 0.1, 0.1, 0.2, 0.25, -0.12, -0.12, 0.3, 0.15, 0, 0, 0.4});
}

template <class T>
double largest_error(const sde::Schedule& schedule, const sde::LikelihoodOptions& o) {
  const auto g = mixture();
  const int n = 200;
  std::vector<T> x(2 * n), truth(n);
  g->sample(5, 0, n, x.data());
  g->log_density(n, x.data(), truth.data());
  const sde::Likelihood l = sde::log_likelihood({velocity_field(g, schedule), schedule}, Tensor::from(x, Shape{n, 2}), {}, o);
  double worst = 0;
  for (int i = 0; i < n; ++i) worst = std::max(worst, std::abs(l.log_likelihood[i] - static_cast<double>(truth[i])));
  return worst;
}

TEST(MixtureLikelihood, ExactTraceGivesTheLogDensity) {
  const sde::LikelihoodOptions o{sde::uniform_grid(100)};
  // The error of RK4, 1e-7 here, falls by 16 with each halving of the step: 2e-6 at K = 50, 5e-5 at K = 25.
  EXPECT_LT(largest_error<double>({sde::PathFamily::linear}, o), 1e-6);
  EXPECT_LT(largest_error<double>({sde::PathFamily::vp_cosine}, o), 1e-6);
  // Single precision: a hundred roundings of 6e-8 in a state where the log density has gradients of order 10.
  EXPECT_LT(largest_error<float>({sde::PathFamily::linear}, o), 5e-5);
}

// A basis of both dimensions: Hutch++ is exact with any probes.
TEST(MixtureLikelihood, HutchPlusPlusSpansTheSpace) {
  sde::LikelihoodOptions o{sde::uniform_grid(100)};
  o.trace = {sde::TraceMethod::hutch_pp, 6, sde::Probe::gaussian};
  EXPECT_LT(largest_error<double>({sde::PathFamily::linear}, o), 1e-6);
}

// The density of samples: from x_0 ~ N(0, I), the number that comes with x_1 is the log density at x_1.
TEST(MixtureLikelihood, SamplesComeWithTheirDensity) {
  const auto g = mixture();
  const sde::Schedule schedule;
  const Tensor x0 = sde::initial_noise({2}, 100, {7, 0}, DType::f64);
  const sde::Likelihood l =
      sde::sample_with_likelihood({velocity_field(g, schedule), schedule}, x0, {}, {sde::uniform_grid(100)});
  Values truth(100);
  g->log_density(100, l.x.values<double>().data(), truth.data());
  for (std::size_t i = 0; i < 100; ++i) EXPECT_NEAR(l.log_likelihood[i], truth[i], 1e-6);
}

}  // namespace
}  // namespace costate::finetune
