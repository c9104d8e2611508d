#include <costate/sde/diffusion.h>
#include <costate/sde/edm.h>
#include <costate/sde/exponential.h>
#include <costate/sde/memoryless.h>
#include <costate/tensor/error.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>

namespace costate::sde {
namespace {

const Schedule kLinear{}, kEdm{.family = PathFamily::edm}, kVp{PathFamily::vp_linear};
const std::vector<Schedule> kFromNoise = {
    kLinear, {.family = PathFamily::power, .power = 2}, {PathFamily::vp_cosine}, {PathFamily::vp_squaredcos}};
const std::vector<Schedule> kSignalAtZero = {kVp, {PathFamily::vp_scaled_linear}, {PathFamily::vp_sigmoid}, kEdm};

NoiseFunction scaled(const Schedule& s, double c) { return noise_function(s, {NoiseLaw::Kind::scaled, c}); }

// sigma^2 = c 2 eta: alpha^c on paths from pure noise, whatever c > 0; on the others alpha(0)^c up to what t = 1/2 adds.
TEST(Memoryless, ScaledLaws) {
  for (const Schedule& path : kFromNoise)
    for (double c : {0.1, 0.5, 1.0, 3.0}) {
      const Memorylessness m = memorylessness(path, scaled(path, c));
      EXPECT_TRUE(m.memoryless) << path.description() << c;
      EXPECT_EQ(m.limit, 0);
      // alpha ~ t^p: the power of t' is c p.
      const double power = c * (path.family == PathFamily::power ? path.power : 1);
      EXPECT_NEAR(m.power, power, 1e-10 * power);  // quadrature
      EXPECT_NE(m.sentence.find(sentence({"power ", power, " of t'"})), std::string::npos)
          << m.sentence << " " << power;
    }
  for (const Schedule& path : kSignalAtZero)
    for (double c : {0.5, 1.0, 2.0}) {
      const PathPoint zero = path.at(0), half = path.at(0.5);
      const Memorylessness m = memorylessness(path, scaled(path, c));
      const double y = half.alpha / half.beta, limit = y * zero.beta * std::pow(zero.alpha / zero.beta / y, c);
      EXPECT_NEAR(m.limit, limit, 1e-6 * limit) << path.description() << c;
      EXPECT_EQ(m.memoryless, c >= 1) << path.description() << c << m.sentence;
      if (c == 1) {
        EXPECT_NEAR(m.limit, zero.alpha, 1e-6 * zero.alpha);
      }
    }
}

// sigma^2 = a t^{-q} on the linear path: memoryless for q >= 1, with a the deciding number nowhere but in the power; for
// q < 1 the limit is that of the finite integral.
TEST(Memoryless, PowersOfTime) {
  for (double q : {0.0, 0.5, 0.9, 1.0, 1.1, 2.0}) {
    const Memorylessness m = memorylessness(kLinear, [&](double t) { return std::sqrt(0.3 * std::pow(t, -q)); });
    EXPECT_EQ(m.memoryless, q >= 1) << q << " " << m.sentence;
    if (q == 0) {  // int_0^1/2 0.3/(2 (1 - t)^2) dt = 0.15
      EXPECT_NEAR(m.limit, std::exp(-0.15), 1e-9);
    }
    if (q == 0.5) {  // with t = u^2: 0.3 int du/(1 - u^2)^2 = 0.3 [u/(2 (1 - u^2)) + artanh(u)/2]
      const double u = std::sqrt(0.5), i = 0.3 * (u / (2 * (1 - u * u)) + std::atanh(u) / 2);
      EXPECT_NEAR(m.limit, std::exp(-i), 1e-9);
    }
  }
  EXPECT_NE(memorylessness(kLinear, [](double t) { return 1 / t; }).sentence.find("faster than any power"),
            std::string::npos);
  // An offset makes the memoryless law finite, and so leaves a memory: 2 (1 - t)/(t + h).
  EXPECT_FALSE(memorylessness(kLinear, [](double t) { return std::sqrt(2 * (1 - t) / (t + 0.025)); }).memoryless);
  // Between powers: 1/(t log^2) converges, 1/(t sqrt(log)) does not, and 1/(t log) is left undecided in words.
  const auto logarithmic = [](double m) {
    return [m](double t) { return std::sqrt(std::pow(std::log(4 / t), -m) / t); };
  };
  EXPECT_FALSE(memorylessness(kLinear, logarithmic(2)).memoryless);
  EXPECT_TRUE(memorylessness(kLinear, logarithmic(0.5)).memoryless);
  EXPECT_THROW(memorylessness(kLinear, logarithmic(1)), Error);
  EXPECT_THROW(memorylessness(kLinear, [](double) { return std::nan(""); }), Error);
  EXPECT_THROW(noise_function(kEdm, churned(kEdm, karras_grid(kEdm, 40), {.S_churn = 1, .S_tmax = 50}).noise), Error);
}

// In continuous time and on fine grids that begin at t_1: the discrete residual is about t_1^c (here h = 0.025).
TEST(Memoryless, ResidualOfTheFirstTime) {
  const double h = 0.025;
  std::vector<double> t;
  for (int k = 0; k <= 4000; ++k) t.push_back(std::exp(std::log(h) * (1 - k / 4000.0)));
  t.front() = h, t.back() = 1;
  const struct { double c, left; } cases[] = {{1, 0.026}, {0.245, 0.41}};  // as rounded
  for (const auto& c : cases) {
    const double left = correlation(kLinear, scaled(kLinear, c.c), 1, h), var = h * h + (1 - h) * (1 - h);
    EXPECT_NEAR(left, c.left, 5e-3);
    EXPECT_NEAR(left, std::pow(h / std::sqrt(var), c.c), 1e-9);
    EXPECT_NEAR(left, std::pow(h, c.c), 0.03 * left);
    // The chain starts from N(0, 1) instead of N(0, var): what is left of it is left/sqrt(var) of X_h.
    const double phi = left / std::sqrt(var), rho = phi / std::sqrt(1 + phi * phi * (1 - var));
    EXPECT_NEAR(residual_correlation(ddim(kLinear, t, std::sqrt(c.c))), rho, 1e-3);  // O(1/K)
  }
  for (double sigma : {0.5, 1.0, 2.0})
    for (double variance : {0.25, 1.0})
      EXPECT_NEAR(correlation(
                      kLinear, [&](double) { return sigma; }, variance),
                  constant_sigma_correlation(sigma, variance), 1e-9);
  EXPECT_EQ(correlation(kLinear, scaled(kLinear, 0.5)), 0);
  EXPECT_THROW(correlation(kLinear, scaled(kLinear, 0.5), 0), Error);
}

// On a variance-preserving path data N(0, 1) keeps variance 1, and DDIM keeps alpha(0)^(eta^2) of the noise: most
// of it where eta = 0.3. 1000 steps of the linear betas of DDPM.
TEST(Memoryless, DdimKeepsAPowerOfTheFirstAlpha) {
  const Schedule table = diffusion_schedule(BetaLaw::linear, 1000);
  const struct { double eta, rho; } cases[] = {{1, .0064}, {.7, .084}, {.3, .634}};
  for (const auto& c : cases) {
    const double limit = std::pow(table.alpha(0), c.eta * c.eta);
    EXPECT_NEAR(limit, c.rho, c.eta == 1 ? 5e-5 : 5e-4) << c.eta;  // as rounded
    // At 1000 steps within an O(1/K) of it, which two grids show: the error halves (less what a table's kinks do).
    const auto error = [&](int K) { return residual_correlation(ddim(table, uniform_grid(K), c.eta)) - limit; };
    EXPECT_LT(std::abs(error(1000)), 0.02 * limit) << c.eta;
    EXPECT_NEAR(error(500) / error(1000), 2, 0.2) << c.eta;
  }
  // The covariance that the exact step leaves is alpha(0) for any number of steps; only the variance has an error.
  for (int K : {5, 50}) {
    const GaussianLaw law = gaussian_law(ddim(table, uniform_grid(K), 1), 0, 1);
    EXPECT_NEAR(law.correlation * std::sqrt(law.variance), table.alpha(0), 1e-9);
  }
}

// Every sampler on every path follows its equation to first order, started from N(0, 1) at t_0 > 0: with data N(m, v) and
// var_t = alpha^2 v + beta^2 the equation's law at t is
//   mean m alpha + phi (0 - m alpha_0),   variance var_t + phi^2 (1 - var_0),
// phi = sqrt(var_t/var_0) times the correlation that its noise leaves. So every noise keeps the marginals; what remains of
// a wrong start is what it remembers.
TEST(Memoryless, EverySamplerFollowsItsEquationToFirstOrder) {
  const double m = 0.5, v = 0.8, start = 0.1, end = 0.9;
  using Grid = std::vector<double>;
  const struct {
    const char* what;
    std::function<Chain(const Schedule&, const Grid&)> build;
    NoiseLaw noise;
  } cases[] = {
      {"exact", [](const Schedule& s, const Grid& t) { return exact_memoryless(s, t); }, {NoiseLaw::Kind::scaled, 1}},
      {"fixed_large",
       [](const Schedule& s, const Grid& t) {
         return preserves_variance(s) ? ddpm(s, t, DdpmVariance::fixed_large) : exact_memoryless(s, t);
       },
       {NoiseLaw::Kind::scaled, 1}},
      {"ddim 0.6", [](const Schedule& s, const Grid& t) { return ddim(s, t, 0.6); }, {NoiseLaw::Kind::scaled, 0.36}},
      {"both", [](const Schedule& s, const Grid& t) { return euler_maruyama(s, t); }, {NoiseLaw::Kind::scaled, 1}},
      {"denominator 2",
       [](const Schedule& s, const Grid& t) {
         return euler_maruyama(s, t, Offset::denominator, Parametrisation::velocity, 2);
       },
       {NoiseLaw::Kind::scaled, 2}},
      {"constant",
       [](const Schedule& s, const Grid& t) { return euler_maruyama_constant(s, t, 0.8); },
       {NoiseLaw::Kind::constant, 0.8}},
      {"flow_sde",
       [](const Schedule& s, const Grid& t) { return flow_sde(s, t, 0.7); },
       {NoiseLaw::Kind::scaled, 0.245}},
      {"exponential", [](const Schedule& s, const Grid& t) { return exponential(s, t); }, {NoiseLaw::Kind::scaled, 0}},
      {"ode", [](const Schedule& s, const Grid& t) { return euler_ode(s, t); }, {NoiseLaw::Kind::scaled, 0}}};
  std::vector<Schedule> paths = kFromNoise;
  paths.insert(paths.end(), kSignalAtZero.begin(), kSignalAtZero.end());
  for (const Schedule& path : paths)
    for (const auto& c : cases) {
      const PathPoint p = path.at(start), q = path.at(end);
      const double var0 = p.alpha * p.alpha * v + p.beta * p.beta, var = q.alpha * q.alpha * v + q.beta * q.beta;
      const double left = correlation(path, noise_function(path, c.noise), v, start, end),
                   phi = std::sqrt(var / var0) * left;
      const double mean = m * q.alpha - phi * m * p.alpha, variance = var + phi * phi * (1 - var0);
      double error[2];
      for (int i = 0; i < 2; ++i) {
        const int K = 1000 << i;
        Grid t;
        for (int k = 0; k <= K; ++k) t.push_back(start + (end - start) * k / K);
        const GaussianLaw law = gaussian_law(c.build(path, t), m, v);
        // All three at once, with signs that do not cancel by symmetry.
        error[i] =
            std::hypot(law.mean - mean, law.variance - variance, law.correlation * std::sqrt(law.variance) - phi);
      }
      EXPECT_LT(error[0], 0.05) << c.what << " " << path.description();
      EXPECT_NEAR(error[0] / error[1], 2, 0.1) << c.what << " " << path.description() << " " << error[0];
    }
}

// Churning: with S_churn fixed the levels of ever finer grids lose noise at the rate S_churn sigma^2/(v + sigma^2) a unit
// of k/K in the variable x/alpha. Here the levels are geometric, sigma = sigma_0 (sigma_1/sigma_0)^{k/K}, which makes the
// integral (S_churn/(2 log(sigma_0/sigma_1))) log((v + sigma_0^2)/(v + sigma_1^2)).
TEST(Memoryless, ChurningFollowsItsEquationToFirstOrder) {
  const double m = 0.5, v = 0.8, first = 20, last = 0.1, S = 1.5;
  const double left = std::exp(-S / (2 * std::log(first / last)) * std::log((v + first * first) / (v + last * last)));
  for (const Schedule& path : {kLinear, kEdm, kVp}) {
    double error[2];
    for (int i = 0; i < 2; ++i) {
      const int K = 500 << i;
      std::vector<double> t;
      for (int k = 0; k <= K; ++k)
        t.push_back(time_of_log_snr(path, -std::log(first) - std::log(last / first) * k / K));
      const PathPoint p = path.at(t.front()), q = path.at(t.back());
      const double var0 = p.alpha * p.alpha * v + p.beta * p.beta, var = q.alpha * q.alpha * v + q.beta * q.beta;
      const double phi = std::sqrt(var / var0) * left;
      const GaussianLaw law = gaussian_law(churned(path, t, {.S_churn = S}), m, v);
      error[i] = std::hypot(law.mean - (m * q.alpha - phi * m * p.alpha), law.variance - (var + phi * phi * (1 - var0)),
                            law.correlation * std::sqrt(law.variance) - phi);
    }
    EXPECT_LT(error[0], 0.02) << path.description();
    EXPECT_NEAR(error[0] / error[1], 2, 0.1) << path.description();
  }
}

TEST(Memoryless, OneCallForAChain) {
  const auto t = uniform_grid(40);
  const Memory exact = memory_of(exact_memoryless(kLinear, t)), flow = memory_of(flow_sde(kLinear, t)),
               constant = memory_of(euler_maruyama_constant(kLinear, t, 1)), ode = memory_of(euler_ode(kLinear, t)),
               vp = memory_of(exact_memoryless(kVp, t)), dpm = memory_of(dpmpp_2m(kLinear, t));
  EXPECT_TRUE(exact.memoryless && exact.convertible && exact.limit == 0);
  EXPECT_NEAR(exact.correlation, 0, 1e-15);
  EXPECT_NE(exact.sentence.find("sigma^2 = 2 eta is memoryless and converts"), std::string::npos) << exact.sentence;
  EXPECT_TRUE(flow.memoryless && !flow.convertible);
  EXPECT_NEAR(flow.correlation, 0.235, 5e-4);
  EXPECT_NE(flow.sentence.find("does not convert"), std::string::npos);
  EXPECT_NE(flow.sentence.find("correlated by 0.235"), std::string::npos) << flow.sentence;
  EXPECT_FALSE(constant.memoryless || constant.convertible);
  EXPECT_NEAR(constant.limit, std::exp(-0.5), 1e-9);  // int_0^1/2 dt/(2 (1 - t)^2) = 1/2
  EXPECT_NE(constant.sentence.find("is not memoryless"), std::string::npos);
  EXPECT_FALSE(ode.memoryless || dpm.memoryless);
  EXPECT_NEAR(dpm.correlation, 1, 1e-12);
  EXPECT_TRUE(vp.memoryless && vp.convertible);
  EXPECT_NEAR(vp.limit, kVp.alpha(0), 1e-8);
  const Schedule table = diffusion_schedule(BetaLaw::scaled_linear, 1000);
  EXPECT_TRUE(memory_of(exact_memoryless(table, t)).memoryless);
  EXPECT_NEAR(memory_of(exact_memoryless(table, t)).limit, table.alpha(0), 1e-12);
  EXPECT_FALSE(memory_of(euler_maruyama(kVp, t, Offset::none, Parametrisation::velocity, 0.5)).memoryless);
}

TEST(Memoryless, WhichModelsMayBeSampledWithTheNewSamplers) {
  const auto t = karras_grid(kEdm, 20);
  const Chain exact = exact_memoryless(kEdm, t), part = ddim(kEdm, t, 0.5);
  const Churn churn{.S_churn = 4, .S_tmax = 40}, loud{.S_churn = 4, .S_tmax = 40, .S_noise = 1.007};
  const Chain churning = churned(kEdm, t, churn), louder = churned(kEdm, t, loud);
  for (const Chain& other : {churning, flow_sde(kEdm, t), dpmpp_2m(kEdm, t), exponential(kEdm, t), part})
    EXPECT_TRUE(may_sample_with(exact, other)) << other.description;
  EXPECT_FALSE(may_sample_with(exact, louder));
  EXPECT_NE(may_sample_with(exact, louder).sentence.find("keeps no marginals"), std::string::npos);
  EXPECT_FALSE(may_sample_with(part, churning));
  EXPECT_FALSE(may_sample_with(churning, exact));
  EXPECT_TRUE(may_sample_with(churning, churned(kEdm, karras_grid(kEdm, 30), churn)));
  EXPECT_FALSE(may_sample_with(churning, louder));
  EXPECT_TRUE(may_sample_with(part, flow_sde(kEdm, t, std::sqrt(0.5))));  // sigma^2 = eta^2 2 eta = (a^2/2) 2 eta
}

}  // namespace
}  // namespace costate::sde
