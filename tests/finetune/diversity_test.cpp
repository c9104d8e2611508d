// Vendi scores, mode counts, precision and recall, weighted Frechet distances, and the report of a control, against closed
// forms.
#include <costate/finetune/evaluate/control_report.h>
#include <costate/finetune/evaluate/coverage.h>
#include <costate/finetune/evaluate/diversity.h>
#include <costate/finetune/evaluate/frechet.h>
#include <costate/finetune/evaluate/vendi.h>
#include <costate/finetune/problem/analytic_field.h>
#include <costate/finetune/problem/mixture_tilt.h>
#include <costate/sde/girsanov.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace costate::finetune {
namespace {

using Values = std::vector<double>;
constexpr double kInf = std::numeric_limits<double>::infinity();

// Rows that are unit vectors along one of the axes.
Values one_hot(const std::vector<int>& axes, int dim) {
  Values x(axes.size() * static_cast<std::size_t>(dim), 0.0);
  for (std::size_t i = 0; i < axes.size(); ++i) x[i * static_cast<std::size_t>(dim) + static_cast<std::size_t>(axes[i])] = 3.5;
  return x;
}

Values gaussian_features(int rows, int dim) {
  const Philox noise{7, Stream::user};
  Values x;
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < dim; ++j) x.push_back(noise.normal(static_cast<std::uint64_t>(i), 0, static_cast<std::uint32_t>(j)));
  return x;
}

Values cosine_kernel(const Values& x, int dim) {
  const auto d = static_cast<std::size_t>(dim);
  const std::size_t rows = x.size() / d;
  Values k(rows * rows);
  const auto dot = [&](std::size_t i, std::size_t j) {
    double s = 0;
    for (std::size_t c = 0; c < d; ++c) s += x[i * d + c] * x[j * d + c];
    return s;
  };
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < rows; ++j) k[i * rows + j] = dot(i, j) / std::sqrt(dot(i, i) * dot(j, j));
  return k;
}

// m equal groups of orthogonal directions count as m samples, at every order; one group as one.
TEST(Vendi, GroupsOfEqualSamples) {
  for (const double q : {0.5, 1.0, 2.0, 7.0, kInf}) {
    EXPECT_NEAR(vendi_of_features(5, one_hot({0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}, 5), q), 4, 1e-12) << q;
    EXPECT_NEAR(vendi_of_features(40, one_hot({8, 1, 30, 8, 1, 30}, 40), q), 3, 1e-12) << q;
    EXPECT_NEAR(vendi_of_features(3, one_hot({1, 1, 1}, 3), q), 1, 1e-12) << q;
  }
}

// Unequal groups: the exponential of the Renyi entropy of their shares, whether a share is a number of copies or a weight.
TEST(Vendi, SharesGiveTheEntropy) {
  const Values p = {0.5, 0.3, 0.2};
  const double shannon = std::exp(entropy(p));
  const Values copies = one_hot({0, 0, 0, 0, 0, 1, 1, 1, 2, 2}, 3);
  EXPECT_NEAR(vendi_of_features(3, copies), shannon, 1e-12);
  EXPECT_NEAR(vendi_of_features(3, one_hot({0, 1, 2}, 3), 1, p), shannon, 1e-12);
  EXPECT_NEAR(vendi_of_features(3, copies, 2), 1 / (0.25 + 0.09 + 0.04), 1e-12);
  EXPECT_NEAR(vendi_of_features(3, copies, 3), std::pow(0.125 + 0.027 + 0.008, -0.5), 1e-12);
  EXPECT_NEAR(vendi_of_features(3, copies, kInf), 2, 1e-12);
  // Orders near 1 tend to it: the derivative of the score in q is bounded by its variance of log l, well below 1 here.
  EXPECT_NEAR(vendi_of_features(3, copies, 1 + 1e-6), shannon, 1e-6);
}

// More rows than features and fewer: the eigenvalues of X^T X and of X X^T, and of the kernel matrix itself.
TEST(Vendi, PrimalAndDualAgree) {
  for (const auto& [rows, dim] : {std::pair{30, 6}, {6, 30}, {12, 12}}) {
    const Values x = gaussian_features(rows, dim);
    Values weights;
    for (int i = 0; i < rows; ++i) weights.push_back(1 + i % 3);
    for (const double q : {0.7, 1.0, 2.0, kInf}) {
      EXPECT_NEAR(vendi_of_features(dim, x, q), vendi_of_kernel(cosine_kernel(x, dim), q), q < 1 ? 1e-4 : 1e-10);
      EXPECT_NEAR(vendi_of_features(dim, x, q, weights), vendi_of_kernel(cosine_kernel(x, dim), q, weights),
                  q < 1 ? 1e-4 : 1e-10);  // the matrix with zero eigenvalues has roots of rounding errors below order 1
    }
  }
}

TEST(Vendi, PointsThroughTheGaussianKernel) {
  // Two points at distance d: eigenvalues (1 +- exp(-d^2/(2 h^2)))/2.
  const double c = std::exp(-0.5 * 4 / (1.5 * 1.5)), a = (1 + c) / 2, b = (1 - c) / 2;
  EXPECT_NEAR(vendi_of_points(2, Values{0, 0, 0, 2}, 1.5), std::exp(-a * std::log(a) - b * std::log(b)), 1e-12);
  EXPECT_NEAR(vendi_of_points(1, Values{0, 100, 200, 300}, 1), 4, 1e-12);
  EXPECT_NEAR(vendi_of_points(1, Values{5, 5, 5}, 1), 1, 1e-12);
}

TEST(Vendi, Refusals) {
  EXPECT_THROW(vendi_of_kernel(Values{1, 0, 0}), Error);
  EXPECT_THROW(vendi_of_kernel(Values{1, 0.5, 0, 1}), Error);
  EXPECT_THROW(vendi_of_kernel(Values{2, 0, 0, 1}), Error);
  EXPECT_THROW(vendi_of_features(2, Values{0, 0, 1, 1}), Error);
  EXPECT_THROW(vendi_of_features(2, Values{1, 0, 1, 1}, 0), Error);
  EXPECT_THROW(vendi_of_features(2, Values{1, 0, 1, 1}, 1, Values{1}), Error);
  EXPECT_THROW(vendi_of_features(1, Values{kInf}), Error);
  EXPECT_THROW(vendi_of_points(1, Values{1, 2}, 0), Error);
}

TEST(Diversity, PairwiseVarianceIsTheTraceOfTheCovariance) {
  EXPECT_NEAR(pairwise_variance(2, Values{0, 0, 3, 4, 0, 8}), (25 + 64 + 25) / 6.0, 1e-13);
}

TEST(CountTest, ByHandAndTails) {
  const std::vector<std::int64_t> counts{30, 50, 20};
  const CountTest t = count_test(counts, Values{1, 2, 1});  // expected 25, 50, 25
  EXPECT_NEAR(t.chi_squared, 1 + 0 + 1, 1e-12);
  EXPECT_NEAR(t.g, 2 * (30 * std::log(1.2) + 20 * std::log(0.8)), 1e-12);
  EXPECT_EQ(t.degrees, 2);
  EXPECT_NEAR(t.chi_squared_p, std::exp(-1.0), 1e-14);  // two degrees: exp(-x/2)
  EXPECT_NEAR(t.total_variation, 0.05, 1e-15);
  EXPECT_EQ(count_test(std::vector<std::int64_t>{1, 1}, Values{1, 0}).chi_squared_p, 0);
  // One degree: erfc(sqrt(x/2)); four: e^{-x/2}(1 + x/2). Both branches of the incomplete gamma function.
  for (const double x : {0.01, 0.5, 2.0, 3.1, 10.0, 60.0}) {
    EXPECT_NEAR(chi_squared_tail(x, 1), std::erfc(std::sqrt(x / 2)), 1e-13) << x;
    EXPECT_NEAR(chi_squared_tail(x, 4), std::exp(-x / 2) * (1 + x / 2), 1e-13) << x;
  }
  EXPECT_EQ(chi_squared_tail(0, 3), 1);
  EXPECT_THROW(count_test(counts, Values{1, 2}), Error);
  EXPECT_THROW(count_test(std::vector<std::int64_t>{0, 0}, Values{1, 2}), Error);
}

// Exact samples pass, samples with other weights do not; what is far from every mode is counted apart.
TEST(ModeCoverage, TellsTheRightWeightsFromOthers) {
  const Values means{0, 0, 6, 0, 0, 6};
  const GaussianMixture target = GaussianMixture::isotropic(2, {0.2, 0.5, 0.3}, means, 0.5);
  const int n = 4000;
  Values x(2 * n);
  target.sample(5, 0, n, x.data());
  const ModeCoverage right = mode_coverage(target, x);
  EXPECT_GT(right.test.g_p, 0.01);
  EXPECT_EQ(right.covered, 3);
  EXPECT_LT(right.outside, 10);  // P(beyond 4 deviations) = e^{-8}: 1.3 of 4000 expected
  GaussianMixture::isotropic(2, {0.25, 0.73, 0.02}, means, 0.5).sample(5, 0, n, x.data());
  for (int i = 0; i < 20; ++i) x[static_cast<std::size_t>(i)] = 40;  // ten points far away
  const ModeCoverage wrong = mode_coverage(target, x);
  EXPECT_LT(wrong.test.chi_squared_p, 1e-10);
  EXPECT_EQ(wrong.covered, 2);
  EXPECT_GE(wrong.outside, 10);
  EXPECT_NEAR(wrong.test.total_variation, 0.28, 0.03);  // four standard errors of a share
}

TEST(PrecisionRecall, BallsOnALine) {
  // Real: 0, 1, 2, 10 with radii (k = 1) 1, 1, 1, 8; generated: 0.5, 2.5, 30, 31 with radii 2, 2, 1, 1.
  const PrecisionRecall r = precision_recall(1, Values{0, 1, 2, 10}, Values{0.5, 2.5, 30, 31}, 1);
  EXPECT_DOUBLE_EQ(r.precision, 0.5);
  EXPECT_DOUBLE_EQ(r.recall, 0.75);
  EXPECT_THROW(precision_recall(1, Values{0, 1, 2}, Values{0, 1, 2, 3}, 3), Error);
  EXPECT_THROW(precision_recall(1, Values{0, kInf, 2}, Values{0, 1, 2, 3}, 1), Error);
}

TEST(Entropy, OfShares) {
  EXPECT_NEAR(entropy(Values{2, 2, 2, 2, 0}), std::log(4), 1e-15);
  EXPECT_EQ(entropy(Values{0, 5}), 0);
  EXPECT_THROW(entropy(Values{0, 0}), Error);
}

// Weights are shares: integer weights give the mean and the biased covariance of repeated rows, whose factor is then
// 1/(1 - sum w^2) instead of n/(n - 1). Compared in one dimension, where d^2 = (m_x - m_y)^2 + (s_x - s_y)^2.
TEST(Frechet, WeightedSets) {
  const Values x{0, 1, 4}, w{2, 1, 1}, y{1, 2, 3, 6};
  const double mean = 5.0 / 4, share = (4 + 1 + 1) / 16.0;
  const double biased = (2 * mean * mean + (1 - mean) * (1 - mean) + (4 - mean) * (4 - mean)) / 4;
  const double sx = std::sqrt(biased / (1 - share)), sy = std::sqrt(14.0 / 3);
  EXPECT_NEAR(weighted_frechet_distance(1, x, w, y, {}, 0), std::pow(mean - 3, 2) + std::pow(sx - sy, 2), 1e-12);
  EXPECT_NEAR(weighted_frechet_distance(1, x, Values{3, 3, 3}, y, {}), frechet_distance(1, x, y), 1e-12);
  EXPECT_THROW(weighted_frechet_distance(1, x, Values{1, 0, 0}, y, {}), Error);
  EXPECT_THROW(weighted_frechet_distance(1, x, Values{1, 1}, y, {}), Error);
}

// A Gaussian with a linear reward on the exact memoryless chain: with the optimal control J = log Z within the error of the
// steps; without any J = lambda E r, a gap of c^2 s^2/2; both estimates of log Z agree with the closed form.
TEST(ControlReport, OptimalAndAbsentControl) {
  const double mean = 0.4, std = 0.8, c = 1.2, lambda = 0.5, tilt = c * lambda;
  const auto base = std::make_shared<const GaussianMixture>(GaussianMixture::isotropic(1, {1}, {mean}, std));
  const MixtureTilt problem(*base, QuadraticReward{{tilt}, {}, {}});
  const auto target = std::make_shared<const GaussianMixture>(problem.target());
  const sde::Chain chain = sde::exact_memoryless({}, sde::uniform_grid(100));
  const sde::Field v = velocity_field(base, {}), best = velocity_field(target, {});
  const Reward reward = linear_reward({c});
  const int n = 2000;
  const auto report = [&](const sde::Field& tuned) {
    const sde::Paths paths = sde::sample_paths(tuned, v, chain, {1}, n, {}, {3, 0}, {.dtype = DType::f64});
    const Tensor x = sde::sample(v, chain, {1}, n, {}, {3, n}, DType::f64);
    return control_report(lambda, reward(x).to_doubles(), reward(paths.terminal).to_doubles(), paths.cost, paths.log_ratio);
  };
  const ControlReport optimal = report(best), none = report(v);
  const double gap = tilt * tilt * std * std / 2;
  for (const ControlReport& r : {optimal, none}) {
    EXPECT_NEAR(r.log_z_of_base.value, problem.log_z(), 4 * r.log_z_of_base.standard_error);
    // The tilt of the sampler's own base law, which 100 steps leave within 0.01 of the data's.
    EXPECT_NEAR(r.log_z_of_tuned.value, problem.log_z(), 4 * r.log_z_of_tuned.standard_error + 0.01);
    EXPECT_NEAR(r.girsanov.value, r.path_kl.value, 4 * r.girsanov.standard_error);
  }
  EXPECT_NEAR(optimal.path_kl.value, problem.kl(), 0.01);
  EXPECT_NEAR(optimal.objective.value, problem.log_z(), 4 * optimal.objective.standard_error + 0.01);
  EXPECT_LT(optimal.log_weight_variance, 0.02);  // 0 but for the steps: O(h)
  EXPECT_GT(optimal.tuned_ess, 0.98);
  // Half of Var G to second order, and never below 0 (Jensen); the errors of log Z and J, which are not small, cancel.
  EXPECT_GE(optimal.gap.value, 0);
  EXPECT_NEAR(optimal.gap.value, optimal.log_weight_variance / 2, 0.1 * optimal.log_weight_variance);
  EXPECT_LT(optimal.gap.standard_error, 0.1 * optimal.objective.standard_error);
  EXPECT_NEAR(none.log_weight_variance, 2 * gap, 4 * 2 * gap * std::sqrt(2.0 / n) + 0.01);  // Var of lambda r
  EXPECT_NEAR(none.gap.value, gap, 4 * none.gap.standard_error + 0.01);
  EXPECT_NEAR(none.tuned_ess, std::exp(-2 * gap), 0.06);  // of log-normal weights: exp(-Var)
  EXPECT_EQ(none.path_kl.value, 0);
  EXPECT_THROW(control_report(1, Values{}, Values{1}, Values{1}, Values{1}), Error);
  EXPECT_THROW(control_report(1, Values{1}, Values{1}, Values{1, 2}, Values{1}), Error);
}

TEST(CrossRewards, OneRowAModel) {
  const Tensor x = Tensor::from(Values{1, 2, 3, 4}, {2, 2}), y = Tensor::from(Values{0, 0, 0, 2}, {2, 2});
  const Tensor models[] = {x, y};
  const Reward rewards[] = {linear_reward({1, 0}), linear_reward({0, 1}), quadratic_reward({0, 0}, {2, 0})};
  const auto table = cross_rewards(models, rewards);
  EXPECT_DOUBLE_EQ(table[0][0].value, 2);
  EXPECT_DOUBLE_EQ(table[0][1].value, 3);
  EXPECT_DOUBLE_EQ(table[0][2].value, -5);
  EXPECT_DOUBLE_EQ(table[1][1].value, 1);
  EXPECT_DOUBLE_EQ(table[1][1].standard_error, 1);
}

}  // namespace
}  // namespace costate::finetune
