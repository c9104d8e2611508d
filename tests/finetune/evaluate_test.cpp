#include <costate/finetune/evaluate/diversity.h>
#include <costate/finetune/evaluate/frechet.h>
#include <costate/finetune/evaluate/importance.h>
#include <costate/finetune/evaluate/modes.h>
#include <costate/finetune/evaluate/path_kl.h>
#include <costate/finetune/evaluate/wasserstein.h>
#include <costate/tensor/parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace costate::finetune {
namespace {

using Values = std::vector<double>;
constexpr double kInf = std::numeric_limits<double>::infinity();

TEST(Wasserstein, SmallCasesByHand) {
  EXPECT_DOUBLE_EQ(wasserstein1(Values{0, 1}, Values{1, 2}), 1);
  EXPECT_DOUBLE_EQ(wasserstein1(Values{3, 1, 2}, Values{2, 3, 1}), 0);
  EXPECT_DOUBLE_EQ(wasserstein1(Values{0}, Values{-1, 3}), 2);  // half moves 1, half moves 3
  EXPECT_DOUBLE_EQ(wasserstein1(Values{0, 10}, Values{0, 10}, Values{3, 1}, Values{1, 1}),
                   2.5);  // a quarter moves 10
  EXPECT_DOUBLE_EQ(wasserstein1(Values{0, 5}, Values{1}, Values{1, 0}), 1);
}

// A weight is a number of copies: integer weights equal repeated points, in one and in two dimensions.
TEST(Wasserstein, WeightsAreMultiplicities) {
  const Values x = {0.3, -1, 2.2, 0.9}, y = {0.1, 0.4, -2}, w = {1, 3, 2, 2};
  const Values repeated = {0.3, -1, -1, -1, 2.2, 2.2, 0.9, 0.9};
  EXPECT_NEAR(wasserstein1(x, y, w), wasserstein1(repeated, y), 1e-15);
  const Values x2 = {0.3, -1, 2.2, 0.9}, r2 = {0.3, -1, 0.3, -1, 2.2, 0.9}, y2 = {0.1, 0.4, -2, 1};
  EXPECT_NEAR(sliced_wasserstein1(2, x2, y2, 20, 3, Values{2, 1}), sliced_wasserstein1(2, r2, y2, 20, 3),
              1e-14);
}

TEST(Wasserstein, SlicedOfATranslation) {
  // Translating by v moves every projection by |theta . v|, whose mean over directions is 2|v|/pi in two
  // dimensions.
  const Values x = {0, 0, 1, 2, -1, 0.5};
  Values y = x;
  for (std::size_t i = 0; i < y.size(); i += 2) y[i] += 3, y[i + 1] -= 4;
  const int n = 4000;
  // Standard deviation of |cos| is 0.31, so that four standard errors are 4 * 0.31 * 5/sqrt(n).
  EXPECT_NEAR(sliced_wasserstein1(2, x, y, n, 1), 2 * 5 / std::acos(-1.0), 4 * 0.31 * 5 / std::sqrt(n));
  set_threads(2);
  const double two = sliced_wasserstein1(2, x, y, n, 1);
  set_threads(1);
  EXPECT_EQ(two, sliced_wasserstein1(2, x, y, n, 1));
  EXPECT_NE(two, sliced_wasserstein1(2, x, y, n, 2));
  EXPECT_EQ(sliced_wasserstein1(1, x, y, 5, 1), wasserstein1(x, y));
}

TEST(Wasserstein, Refusals) {
  EXPECT_THROW(wasserstein1(Values{}, Values{1}), Error);
  EXPECT_THROW(wasserstein1(Values{1}, Values{1}, Values{-1}), Error);
  EXPECT_THROW(wasserstein1(Values{1}, Values{1}, Values{0}), Error);
  EXPECT_THROW(wasserstein1(Values{1}, Values{1}, Values{1, 2}), Error);
  EXPECT_THROW(wasserstein1(Values{std::nan("")}, Values{1}), Error);
  EXPECT_THROW(sliced_wasserstein1(2, Values{1, 2, 3}, Values{1, 2}, 5, 1), Error);
  EXPECT_THROW(sliced_wasserstein1(2, Values{1, 2}, Values{1, 2}, 0, 1), Error);
}

TEST(Modes, SharesOfAKnownMixture) {
  const GaussianMixture g = GaussianMixture::isotropic(2, {0.2, 0.5, 0.3}, {0, 0, 4, 0, 0, 4}, 0.5);
  const int n = 50000;
  Values x(2 * n);
  g.sample(3, 0, n, x.data());
  for (ModeAssignment how : {ModeAssignment::responsibility, ModeAssignment::nearest}) {
    const auto w = mode_weights(g, x, how);
    // Four standard errors of a share; the modes are eight standard deviations apart.
    for (int i = 0; i < 3; ++i) EXPECT_NEAR(w[i], g.weights()[i], 4 * std::sqrt(0.25 / n));
  }
  const auto w = mode_weights(g, Values{0, 0, 4, 0, 0, 4}, ModeAssignment::nearest, Values{1, 2, 5});
  EXPECT_DOUBLE_EQ(w[0], 0.125);
  EXPECT_DOUBLE_EQ(w[2], 0.625);
  EXPECT_THROW(mode_weights(g, Values{1, 2, 3}), Error);
  EXPECT_THROW(mode_weights(g, Values{1, 2}, ModeAssignment::nearest, Values{0}), Error);
}

TEST(Frechet, EqualSetsAndTranslations) {
  const GaussianMixture g(3, {1}, {0, 0, 0}, {2, 0.5, 0, 0.5, 1, 0.2, 0, 0.2, 0.5});
  Values x(3 * 2000), y;
  g.sample(1, 0, 2000, x.data());
  EXPECT_NEAR(frechet_distance(3, x, x), 0, 1e-10);
  y = x;
  for (std::size_t i = 0; i < y.size(); i += 3) y[i] += 2, y[i + 1] -= 1;
  EXPECT_NEAR(frechet_distance(3, x, y), 5, 1e-9);
  // Scaling by c: S_y = c^2 S_x, so that d^2 = (c - 1)^2 tr S_x + |m|^2 (c - 1)^2.
  y = x;
  for (double& v : y) v *= 3;
  double trace = 0, mean_square = 0;
  for (int j = 0; j < 3; ++j) {
    double m = 0, s = 0;
    for (int i = 0; i < 2000; ++i) m += x[3 * i + j] / 2000;
    for (int i = 0; i < 2000; ++i) s += (x[3 * i + j] - m) * (x[3 * i + j] - m) / 1999;
    trace += s, mean_square += m * m;
  }
  EXPECT_NEAR(frechet_distance(3, x, y, 0), 4 * (trace + mean_square), 1e-9);
}

// Covariances that do not commute, against the closed form for 2x2: tr (A B)^{1/2} = sqrt(tr AB + 2 sqrt(det
// AB)).
TEST(Frechet, NonCommutingCovariances) {
  const Values x = {1, 0, -1, 0, 0.5, 2, -0.5, -2}, y = {1, 1, -1, -1, 0.3, -0.2, -0.3, 0.2};
  const auto covariance = [](const Values& v) {
    Values s(4, 0.0);  // both sets have mean 0
    for (std::size_t i = 0; i < v.size(); i += 2)
      for (int j = 0; j < 2; ++j)
        for (int k = 0; k < 2; ++k) s[2 * j + k] += v[i + j] * v[i + k] / 3;
    return s;
  };
  const Values a = covariance(x), b = covariance(y);
  const double product_trace = a[0] * b[0] + 2 * a[1] * b[1] + a[3] * b[3];
  const double determinant = (a[0] * a[3] - a[1] * a[1]) * (b[0] * b[3] - b[1] * b[1]);
  const double expected =
      a[0] + a[3] + b[0] + b[3] - 2 * std::sqrt(product_trace + 2 * std::sqrt(determinant));
  EXPECT_NEAR(frechet_distance(2, x, y, 0), expected, 1e-12);
  EXPECT_NEAR(frechet_distance(2, y, x, 0), expected, 1e-12);
  // A feature that never varies is no obstacle.
  EXPECT_NEAR(frechet_distance(2, Values{1, 5, 2, 5, 3, 5}, Values{1, 5, 2, 5, 3, 5}), 0, 1e-9);
  EXPECT_THROW(frechet_distance(2, Values{1, 2}, Values{1, 2, 3, 4}), Error);
  EXPECT_THROW(frechet_distance(1, Values{1, kInf}, Values{1, 2}), Error);
}

TEST(Diversity, PairwiseDistances) {
  const Values x = {0, 0, 3, 4, 0, 8};  // distances 5, 8, 5
  EXPECT_DOUBLE_EQ(mean_pairwise_distance(2, x), 6);
  EXPECT_NEAR(mean_pairwise_squared_distance(2, x), (25 + 64 + 25) / 3.0, 1e-13);
  EXPECT_THROW(mean_pairwise_distance(2, Values{1, 2}), Error);
}

TEST(Histogram, CountsAndDensity) {
  const Histogram h = histogram(Values{-1, 0, 0.1, 0.5, 0.99, 1, 7}, 0, 1, 2);
  EXPECT_DOUBLE_EQ(h.mass[0], 2 / 7.0);
  EXPECT_DOUBLE_EQ(h.mass[1], 2 / 7.0);
  EXPECT_DOUBLE_EQ(h.below, 1 / 7.0);
  EXPECT_DOUBLE_EQ(h.above, 2 / 7.0);
  EXPECT_DOUBLE_EQ(h.density(0), 4 / 7.0);
  EXPECT_DOUBLE_EQ(h.centre(1), 0.75);
  EXPECT_DOUBLE_EQ(histogram(Values{0, 0.6}, 0, 1, 2, Values{1, 3}).mass[1], 0.75);
  EXPECT_THROW(histogram(Values{1}, 1, 1, 4), Error);
  EXPECT_THROW(histogram(Values{}, 0, 1, 4), Error);
}

TEST(Importance, LogSumExpAndEffectiveSampleSize) {
  EXPECT_NEAR(log_sum_exp(Values{1000, 1000}), 1000 + std::log(2), 1e-12);
  EXPECT_EQ(log_sum_exp(Values{-kInf, -kInf}), -kInf);
  EXPECT_NEAR(effective_sample_size(Values(50, -700)), 50, 1e-9);
  EXPECT_NEAR(effective_sample_size(Values{0, -2000, -2000}), 1, 1e-12);
  EXPECT_NEAR(effective_sample_size(Values{std::log(1.0), std::log(3.0)}), 16 / 10.0, 1e-12);
  EXPECT_NEAR(weighted_mean(Values{1, 2}, Values{std::log(1.0), std::log(3.0)}).value, 1.75, 1e-14);
  EXPECT_THROW(normalised_weights(Values{0, std::nan("")}), Error);
  EXPECT_THROW(normalised_weights(Values{-kInf}), Error);
  EXPECT_THROW(normalised_weights(Values{}), Error);
}

// E e^{0.6 z} = e^{0.18} for z ~ N(0, 1).
TEST(Importance, LogZOfAGaussian) {
  const GaussianMixture g = GaussianMixture::isotropic(1, {1}, {0}, 1);
  Values z(20000);
  g.sample(11, 0, 20000, z.data());
  for (double& v : z) v *= 0.6;
  const Estimate e = log_z_estimate(z);
  EXPECT_NEAR(e.value, 0.18, 4 * e.standard_error);
  EXPECT_NEAR(e.standard_error, std::sqrt((std::exp(0.36) - 1) / 20000), 0.1 * e.standard_error);
}

// A constant control c on one-dimensional steps: path KL = K c^2/2; both estimators agree within their
// errors, the control cost without any, and E e^{-log ratio} = 1.
TEST(PathKl, BothEstimators) {
  const int rows = 20000, K = 4;
  const double c = 0.3;
  const GaussianMixture normal = GaussianMixture::isotropic(1, {1}, {0}, 1);
  PathKl kl(rows);
  const Values control(rows, c);
  Values noise(rows);
  for (int k = 0; k < K; ++k) {
    normal.sample(5 + k, 0, rows, noise.data());
    kl.add(1, control.data(), noise.data());
  }
  const double truth = K * c * c / 2;
  EXPECT_NEAR(kl.control_cost().value, truth, 1e-12);
  EXPECT_NEAR(kl.girsanov().value, truth, 4 * kl.girsanov().standard_error);
  EXPECT_NEAR(kl.girsanov().standard_error, c * std::sqrt(K / double(rows)),
              0.05 * kl.girsanov().standard_error);
  const Estimate one = log_z_estimate(kl.tilted_log_weights(Values(rows, 0.0)));
  EXPECT_NEAR(one.value, 0, 4 * one.standard_error);
  EXPECT_THROW(kl.tilted_log_weights(Values(3, 0.0)), Error);
  EXPECT_THROW(PathKl(0), Error);
}

TEST(PathKl, DimensionsAreSummedAndFloatsAccepted) {
  PathKl kl(2);
  const std::vector<float> u = {1, 2, 0, -1}, e = {0.5, -1, 3, 1};
  kl.add(2, u.data(), e.data());
  EXPECT_DOUBLE_EQ(kl.cost()[0], 2.5);
  EXPECT_DOUBLE_EQ(kl.cost()[1], 0.5);
  EXPECT_DOUBLE_EQ(kl.log_ratio()[0], 0.5 - 2 + 2.5);
  EXPECT_DOUBLE_EQ(kl.log_ratio()[1], -1 + 0.5);
}

TEST(ControlError, Relative) {
  const Values u = {1, 2, 3}, best = {1, 0, 4}, zero = {0, 0, 0};
  EXPECT_DOUBLE_EQ(relative_control_error(3, u.data(), best.data()), 5 / 17.0);
  EXPECT_DOUBLE_EQ(relative_control_error(3, zero.data(), best.data()), 1);
  EXPECT_TRUE(std::isnan(relative_control_error(3, u.data(), zero.data())));
}

}  // namespace
}  // namespace costate::finetune
