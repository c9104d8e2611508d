#include <costate/sde/chain.h>
#include <costate/tensor/error.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

namespace costate::sde {
namespace {

const Schedule kLinear{PathFamily::linear}, kCosine{PathFamily::vp_cosine}, kVp{PathFamily::vp_linear};

using Builder = std::function<Chain(const Schedule&, int)>;
struct Case {
  const char* what;
  Builder build;
};
const std::vector<Case> kBuilders = {
    {"exact", [](const Schedule& s, int k) { return exact_memoryless(s, uniform_grid(k)); }},
    {"em both", [](const Schedule& s, int k) { return euler_maruyama(s, uniform_grid(k)); }},
    {"em denominator",
     [](const Schedule& s, int k) { return euler_maruyama(s, uniform_grid(k), Offset::denominator); }},
    {"em scaled 2",
     [](const Schedule& s, int k) {
       return euler_maruyama(s, uniform_grid(k), Offset::denominator, Parametrisation::velocity, 2);
     }},
    {"em constant 0.7",
     [](const Schedule& s, int k) { return euler_maruyama_constant(s, uniform_grid(k), 0.7); }},
    {"ode", [](const Schedule& s, int k) { return euler_ode(s, uniform_grid(k)); }},
};

TEST(Chain, PaperFormsOnTheLinearPath) {
  const int K = 40;
  const double h = 1.0 / K;
  const auto t = uniform_grid(K);
  const Chain paper = euler_maruyama(kLinear, t),
              denominator = euler_maruyama(kLinear, t, Offset::denominator);
  const Chain exact = exact_memoryless(kLinear, t), ode = euler_ode(kLinear, t);
  for (std::size_t k = 0; k < K; ++k) {
    const double s = t[k];
    EXPECT_NEAR(paper.A[k], 1 - h / (s + h), 1e-14);
    EXPECT_NEAR(paper.C[k], 2 * h, 1e-15);
    EXPECT_NEAR(paper.std[k], std::sqrt(h * 2 * (1 - s + h) / (s + h)), 1e-14);
    EXPECT_NEAR(denominator.A[k], paper.A[k], 1e-14);
    EXPECT_NEAR(denominator.std[k], std::sqrt(h * 2 * (1 - s) / (s + h)), 1e-14);
    const double be = 1 - s, al2 = t[k + 1], be2 = 1 - t[k + 1],
                 q = be * be - s * s / (al2 * al2) * be2 * be2;
    // mean = (al/al') (be'/be)^2 x + al' q/be^2 (x + be v)
    EXPECT_NEAR(exact.C[k], al2 * q / be, 1e-13);
    EXPECT_NEAR(exact.A[k], s / al2 * be2 * be2 / (be * be) + al2 * q / (be * be), 1e-13);
    EXPECT_NEAR(exact.std[k], be2 * std::sqrt(q) / be, 1e-13);
    EXPECT_EQ(ode.A[k], 1);
    EXPECT_NEAR(ode.C[k], h, 1e-15);
    EXPECT_EQ(ode.std[k], 0);
  }
  EXPECT_EQ(exact.std.back(), 0);
  EXPECT_NEAR(exact.std.front(), 1 - h, 1e-15);  // fresh noise at t = 0: mean = al' (x + v), std = be'
  EXPECT_EQ(paper.steps(), K);
  const Affine x1 = denoised_endpoint(paper);
  EXPECT_NEAR(x1.x, 1, 1e-15);
  EXPECT_NEAR(x1.prediction, h, 1e-15);  // x + h v, the paper's noiseless endpoint
}

// The DDPM step of arXiv 2409.08861, eq. 219, is the exact step with epsilon prediction on a
// variance-preserving path.
TEST(Chain, ExactStepIsTheAncestralStepOfDdpm) {
  const auto t = uniform_grid(30);
  const Chain chain = exact_memoryless(kVp, t, Parametrisation::epsilon);
  for (std::size_t k = 0; k + 1 < t.size(); ++k) {
    const double abar = std::pow(kVp.alpha(t[k]), 2), abar2 = std::pow(kVp.alpha(t[k + 1]), 2),
                 r = abar / abar2;
    EXPECT_NEAR(chain.A[k], 1 / std::sqrt(r), 1e-12);
    EXPECT_NEAR(chain.C[k], -(1 - r) / std::sqrt(r * (1 - abar)), 1e-12);
    EXPECT_NEAR(chain.std[k] * chain.std[k], (1 - abar2) / (1 - abar) * (1 - r), 1e-12);
  }
}

// As h -> 0 the exact step is Euler-Maruyama of the memoryless equation: on the linear path alpha' q/beta ->
// 2h and std^2 -> 2 h eta; in general C -> 2h (velocity prediction) and std^2 -> 2 h eta on every path.
TEST(Chain, ExactStepHasTheMemorylessLimit) {
  for (const Schedule& schedule : {kLinear, kCosine, kVp})
    for (double t : {0.1, 0.5, 0.9}) {
      double previous = 0;
      for (double h : {1e-3, 1e-4}) {
        const Chain chain = exact_memoryless(schedule, {t, t + h});
        const PathPoint p = schedule.at(t);
        const double error =
            std::max({std::abs(chain.C[0] / (2 * h) - 1), std::abs((1 - chain.A[0]) / h - p.kappa),
                      std::abs(chain.std[0] * chain.std[0] / (2 * h * p.eta) - 1)});
        EXPECT_LT(error, 200 * h) << schedule.description() << " t " << t << " h " << h;
        // Ten times smaller steps, ten times smaller error (the second-order remainder is below a twentieth
        // here).
        if (previous > 0) {
          EXPECT_NEAR(previous / error, 10, 0.5) << schedule.description() << " t " << t;
        }
        previous = error;
      }
    }
}

// Every prediction type gives the same chain for a model that is exact in its own parametrisation.
TEST(Chain, PredictionsAreInterchangeable) {
  const auto from_zero = uniform_grid(20);
  std::vector<double> above_zero;
  for (int k = 0; k <= 20; ++k) above_zero.push_back(0.02 + 0.98 * k / 20);
  above_zero.back() = 1;
  for (const Schedule& schedule : {kLinear, kCosine, kVp}) {
    const bool singular = schedule.alpha(0) == 0;
    const auto builders = [&](const std::vector<double>& t, Parametrisation p) {
      return std::vector<Chain>{exact_memoryless(schedule, t, p),
                                euler_maruyama(schedule, t, Offset::both, p),
                                euler_maruyama_constant(schedule, t, 0.5, p), euler_ode(schedule, t, p)};
    };
    for (Parametrisation p : {Parametrisation::epsilon, Parametrisation::x1, Parametrisation::score}) {
      const auto& t = singular && p != Parametrisation::x1 ? above_zero : from_zero;
      const auto reference = builders(t, Parametrisation::velocity), converted = builders(t, p);
      for (std::size_t i = 0; i < reference.size(); ++i) {
        const GaussianLaw a = gaussian_law(reference[i], 0.4, 0.49),
                          b = gaussian_law(converted[i], 0.4, 0.49);
        EXPECT_NEAR(a.mean, b.mean, 1e-11) << converted[i].description;
        EXPECT_NEAR(a.variance, b.variance, 1e-11) << converted[i].description;
        EXPECT_EQ(reference[i].std, converted[i].std);
      }
      if (singular && p != Parametrisation::x1) {
        EXPECT_THROW(exact_memoryless(schedule, from_zero, p), Error);
      }
    }
  }
}

// Every sampler keeps the marginals: terminal mean and variance for data N(0.5, 0.8) have an error of order
// h. On vp_linear the start from N(0, I) instead of p_0 leaves an error of order alpha(0) = 0.0066 that no
// step size removes (it is that of the noiseless equations, and of constant sigma; the memoryless ones forget
// it), so the order is read off successive differences: they halve when K doubles.
TEST(Chain, TerminalLawIsRightToFirstOrder) {
  for (const Schedule& schedule : {kLinear, kCosine, kVp})
    for (const Case& c : kBuilders) {
      GaussianLaw law[3];
      for (int i = 0; i < 3; ++i) law[i] = gaussian_law(c.build(schedule, 400 << i), 0.5, 0.8);
      const double slope = (law[0].variance - law[1].variance) / (law[1].variance - law[2].variance);
      // 0.15: the velocity of vp_linear grows as (1 - t)^{-1/2} towards the data, a slower term of order 1.5.
      EXPECT_NEAR(slope, 2, 0.15) << c.what << " " << schedule.description();
      const double limit_variance = 2 * law[2].variance - law[1].variance;  // Richardson
      const double limit_mean = 2 * law[2].mean - law[1].mean;
      const double floor = schedule.alpha(0);
      EXPECT_NEAR(limit_variance, 0.8, 1e-4 + floor) << c.what << " " << schedule.description();
      EXPECT_NEAR(limit_mean, 0.5, 1e-4 + floor) << c.what << " " << schedule.description();
      EXPECT_NEAR(law[0].variance, 0.8, 0.025) << c.what << " " << schedule.description();
    }
}

TEST(Chain, ResidualCorrelation) {
  // Exact step: fresh noise at t = 0, so that nothing of X_0 is left at any K when alpha(0) = 0.
  for (int K : {2, 5, 40}) {
    EXPECT_NEAR(residual_correlation(exact_memoryless(kLinear, uniform_grid(K))), 0, 1e-15);
    EXPECT_NEAR(residual_correlation(exact_memoryless(kCosine, uniform_grid(K))), 0, 1e-15);
  }
  // Constant sigma on N(0, 1): exp(-pi sigma^2/4), with an O(h) error.
  for (double sigma : {0.5, 1.0, 1.5}) {
    const double limit = std::exp(-std::acos(-1.0) * sigma * sigma / 4);
    EXPECT_NEAR(constant_sigma_correlation(sigma), limit, 1e-15);
    double error[2];
    for (int i = 0; i < 2; ++i)
      error[i] =
          residual_correlation(euler_maruyama_constant(kLinear, uniform_grid(1000 << i), sigma)) - limit;
    EXPECT_LT(std::abs(error[0]), 3e-3) << sigma;
    EXPECT_NEAR(error[0] / error[1], 2, 0.1) << sigma;
  }
  EXPECT_NEAR(residual_correlation(euler_maruyama_constant(kLinear, uniform_grid(4000), 1), 0.25),
              constant_sigma_correlation(1, 0.25), 1e-3);
  // sigma^2 = c 2 eta forgets the noise as t_1^c = K^{-c}: slowly for small c, although memoryless in the
  // limit.
  for (double c : {0.25, 0.5}) {
    const auto left = [&](int K) {
      return residual_correlation(
          euler_maruyama(kLinear, uniform_grid(K), Offset::denominator, Parametrisation::velocity, c));
    };
    EXPECT_NEAR(std::log2(left(800) / left(1600)), c, 0.02) << c;
    EXPECT_GT(left(40), 0.07) << c;
  }
  // The equation without noise forgets nothing.
  EXPECT_NEAR(residual_correlation(euler_ode(kLinear, uniform_grid(50))), 1, 1e-14);
}

TEST(Chain, WhichModelsMayBeSampledWithAnotherNoise) {
  const auto t = uniform_grid(10);
  const Chain exact = exact_memoryless(kLinear, t), paper = euler_maruyama(kLinear, uniform_grid(40));
  const Chain scaled = euler_maruyama(kLinear, t, Offset::both, Parametrisation::velocity, 0.5);
  const Chain constant = euler_maruyama_constant(kLinear, t, 1), ode = euler_ode(kLinear, t);
  const Chain cosine = exact_memoryless(kCosine, t);
  const Chain x1 = exact_memoryless(kLinear, t, Parametrisation::x1);
  EXPECT_TRUE(exact.memoryless() && exact.convertible() && paper.convertible());
  EXPECT_TRUE(scaled.memoryless() && !scaled.convertible());
  EXPECT_TRUE(!constant.memoryless() && !ode.memoryless() && !ode.convertible());
  for (const Chain* other : {&paper, &scaled, &constant, &ode}) EXPECT_TRUE(may_sample_with(exact, *other));
  EXPECT_FALSE(may_sample_with(scaled, ode));
  EXPECT_FALSE(may_sample_with(constant, ode));
  EXPECT_TRUE(may_sample_with(constant, euler_maruyama_constant(kLinear, uniform_grid(99), 1)));
  EXPECT_FALSE(may_sample_with(exact, cosine));
  EXPECT_FALSE(may_sample_with(exact, x1));
  EXPECT_NE(may_sample_with(scaled, ode).sentence.find("memoryless but does not convert"), std::string::npos);
}

TEST(Chain, Refusals) {
  EXPECT_THROW(exact_memoryless(kLinear, {0.5}), Error);
  EXPECT_THROW(exact_memoryless(kLinear, {0, 0.5, 0.5}), Error);
  EXPECT_THROW(exact_memoryless(kLinear, {0, 1.5}), Error);
  EXPECT_THROW(euler_maruyama(kLinear, uniform_grid(4), Offset::none), Error);
  EXPECT_NO_THROW(euler_maruyama(kVp, uniform_grid(4), Offset::none));
  EXPECT_THROW(euler_maruyama(kLinear, uniform_grid(4), Offset::both, Parametrisation::velocity, 0), Error);
  EXPECT_THROW(euler_maruyama_constant(kLinear, uniform_grid(4), -1), Error);
}

}  // namespace
}  // namespace costate::sde
