#include <costate/sde/parametrisation.h>
#include <costate/sde/schedule.h>
#include <costate/tensor/error.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace costate::sde {
namespace {

const std::vector<Schedule> kSchedules = {{PathFamily::linear},
                                          {PathFamily::vp_linear},
                                          {PathFamily::vp_cosine},
                                          {PathFamily::vp_linear, 0.5, 8},
                                          {.family = PathFamily::power},
                                          {.family = PathFamily::power, .power = 1},
                                          {.family = PathFamily::power, .power = 1.5},
                                          {PathFamily::vp_scaled_linear, 0.85, 12},
                                          {PathFamily::vp_sigmoid},
                                          {PathFamily::vp_squaredcos},
                                          {.family = PathFamily::edm},
                                          {.family = PathFamily::edm, .sigma_max = 10, .rho = 1}};
const std::vector<Parametrisation> kPredictions = {Parametrisation::velocity, Parametrisation::epsilon,
                                                   Parametrisation::x1, Parametrisation::score,
                                                   Parametrisation::v_prediction};

TEST(Schedule, DerivativesAreThoseOfAlphaAndBeta) {
  for (const Schedule& schedule : kSchedules)
    for (double t : {0.05, 0.3, 0.5, 0.8, 0.95}) {
      const PathPoint p = schedule.at(t);
      const double h = 1e-5;
      const double alpha_dot = (schedule.alpha(t + h) - schedule.alpha(t - h)) / (2 * h);
      const double beta_dot = (schedule.beta(t + h) - schedule.beta(t - h)) / (2 * h);
      // Central differences: error h^2/6 times a third derivative of order 1e2 at most.
      EXPECT_NEAR(p.alpha_dot, alpha_dot, 1e-7) << schedule.description() << " t " << t;
      EXPECT_NEAR(p.beta_dot, beta_dot, 1e-6) << schedule.description() << " t " << t;
      EXPECT_NEAR(p.beta_beta_dot, p.beta * p.beta_dot, 1e-14);
      EXPECT_NEAR(p.wronskian, p.alpha_dot * p.beta - p.beta_dot * p.alpha, 1e-12);
      EXPECT_NEAR(p.kappa, p.alpha_dot / p.alpha, 1e-12 * p.kappa);
      EXPECT_NEAR(p.eta, p.beta * (p.kappa * p.beta - p.beta_dot), 1e-12 * p.eta);
      EXPECT_NEAR(p.memoryless_sigma, std::sqrt(2 * p.eta), 1e-12 * p.memoryless_sigma);
    }
}

TEST(Schedule, EndpointsAreExact) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  for (const Schedule& schedule : kSchedules) {
    const PathPoint data = schedule.at(1), noise = schedule.at(0);
    const std::string what = schedule.description();
    EXPECT_EQ(data.alpha, 1) << what;
    EXPECT_EQ(data.beta, 0) << what;
    switch (schedule.family) {
      case PathFamily::vp_linear:
      case PathFamily::vp_sigmoid:  // the mean rate is that at the middle
        EXPECT_NEAR(noise.alpha, std::exp(-(schedule.beta_min + schedule.beta_max) / 4), 1e-14) << what;
        break;
      case PathFamily::vp_scaled_linear: {  // int_0^1 of the square of a line between a and b: (a^2 + a b + b^2)/3
        const double a = std::sqrt(schedule.beta_min), b = std::sqrt(schedule.beta_max);
        EXPECT_NEAR(noise.alpha, std::exp(-(a * a + a * b + b * b) / 6), 1e-14);
        break;
      }
      case PathFamily::edm:
        EXPECT_NEAR(noise.beta / noise.alpha, schedule.sigma_max, 1e-12 * schedule.sigma_max);
        EXPECT_EQ(data.eta, 0);
        EXPECT_EQ(data.wronskian, schedule.rho == 1 ? schedule.sigma_max : 0);
        break;
      default:
        EXPECT_EQ(noise.alpha, 0) << what;
        EXPECT_EQ(noise.beta, 1) << what;
        EXPECT_EQ(noise.kappa, inf) << what;
        EXPECT_EQ(noise.eta, inf) << what;
    }
    if (noise.alpha > 0) {
      EXPECT_TRUE(std::isfinite(noise.kappa)) << what;
    }
    const bool rate_at_data = schedule.family == PathFamily::vp_linear || schedule.family == PathFamily::vp_sigmoid ||
                              schedule.family == PathFamily::vp_scaled_linear ||
                              schedule.family == PathFamily::vp_squaredcos;
    EXPECT_EQ(data.beta_dot == -inf && data.wronskian == inf, rate_at_data) << what;
    if (!rate_at_data) {
      EXPECT_EQ(data.eta, 0) << what;
    }
    if (schedule.family == PathFamily::vp_linear || schedule.family == PathFamily::vp_scaled_linear) {
      EXPECT_NEAR(data.eta, schedule.beta_min / 2, 1e-15) << what;
    }
    for (double t : {0.0, 1.0}) {
      const PathPoint p = schedule.at(t);
      for (double value : {p.alpha, p.beta, p.alpha_dot, p.beta_dot, p.beta_beta_dot, p.wronskian, p.kappa,
                           p.eta, p.memoryless_sigma})
        EXPECT_FALSE(std::isnan(value)) << schedule.description() << " t " << t;
      EXPECT_TRUE(std::isfinite(p.beta_beta_dot));
    }
  }
}

TEST(Schedule, LinearPathClosedForms) {
  const PathPoint p = Schedule{}.at(0.3);
  EXPECT_NEAR(p.kappa, 1 / 0.3, 1e-15);
  EXPECT_NEAR(p.eta, 0.7 / 0.3, 1e-15);
  EXPECT_NEAR(p.memoryless_sigma, std::sqrt(2 * 0.7 / 0.3), 1e-15);
}

TEST(Schedule, VariancePreservingPathsKeepTheVarianceAndHaveKappaEqualEta) {
  for (const Schedule& schedule : kSchedules) {
    if (!preserves_variance(schedule)) continue;
    for (double t : {0.0, 0.2, 0.7, 1.0}) {
      const PathPoint p = schedule.at(t);
      EXPECT_NEAR(p.alpha * p.alpha + p.beta * p.beta, 1, 1e-14);
      EXPECT_EQ(p.kappa, p.eta);
    }
  }
}

TEST(Schedule, NamesAndRefusals) {
  for (const char* word : {"linear", "power", "vp_linear", "vp_scaled_linear", "vp_sigmoid", "vp_squaredcos", "vp_cosine",
                           "vp_table", "edm"})
    EXPECT_EQ(name(path_family(word)), word);
  try {
    path_family("vp_cosin");
    FAIL() << "an unknown family was accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::argument);
    EXPECT_NE(std::string(e.what()).find("did you mean \"vp_cosine\""), std::string::npos) << e.what();
  }
  EXPECT_THROW(Schedule{}.at(-0.01), Error);
  EXPECT_THROW(Schedule{}.at(1.01), Error);
  EXPECT_THROW(Schedule{}.at(std::nan("")), Error);
  EXPECT_THROW((Schedule{PathFamily::vp_linear, 0, 20}.at(0.5)), Error);
  EXPECT_THROW((Schedule{PathFamily::vp_linear, 2, 1}.at(0.5)), Error);
  EXPECT_THROW((Schedule{PathFamily::vp_sigmoid, 2, 1}.at(0.5)), Error);
  EXPECT_THROW((Schedule{.family = PathFamily::power, .power = 0.5}.at(0.5)), Error);
  EXPECT_THROW((Schedule{.family = PathFamily::edm, .sigma_max = 0}.at(0.5)), Error);
  EXPECT_THROW((Schedule{.family = PathFamily::edm, .rho = 0.5}.at(0.5)), Error);
  EXPECT_FALSE((Schedule{.family = PathFamily::power} == Schedule{.family = PathFamily::power, .power = 3}));
  EXPECT_FALSE((Schedule{.family = PathFamily::edm} == Schedule{.family = PathFamily::edm, .rho = 3}));
  EXPECT_EQ((Schedule{.family = PathFamily::edm}).description(), "edm(sigma_max=80, rho=7)");
  EXPECT_TRUE(Schedule{} == (Schedule{PathFamily::linear, 3, 4}));
  EXPECT_FALSE((Schedule{PathFamily::vp_linear} == Schedule{PathFamily::vp_linear, 0.2, 20}));
}

// The power path is the linear one at another speed.
TEST(Schedule, PowerIsTheLinearPathAtAnotherSpeed) {
  for (double power : {1.0, 2.0, 3.5})
    for (double t : {0.01, 0.3, 0.7, 0.999}) {
      const double u = std::pow(t, power), speed = power * std::pow(t, power - 1);
      const PathPoint p = Schedule{.family = PathFamily::power, .power = power}.at(t), q = Schedule{}.at(u);
      EXPECT_NEAR(p.alpha, q.alpha, 1e-15);
      EXPECT_NEAR(p.beta, q.beta, 1e-15);
      EXPECT_NEAR(p.kappa, speed * q.kappa, 1e-12 * p.kappa);
      EXPECT_NEAR(p.eta, speed * q.eta, 1e-11 * p.eta);
      EXPECT_NEAR(p.wronskian, speed, 1e-14 * speed);
    }
}

// The cosine of Nichol and Dhariwal and EDM in the words of their papers.
TEST(Schedule, PathsInTheWordsOfTheirPapers) {
  const double half_pi = std::acos(0.0);
  for (double t : {0.0, 0.02, 0.5, 0.9, 1.0}) {
    const auto f = [&](double s) { return std::pow(std::cos((s + 0.008) / 1.008 * half_pi), 2); };
    EXPECT_NEAR(std::pow(Schedule{PathFamily::vp_squaredcos}.alpha(t), 2), f(1 - t) / f(0), 1e-15);
    // x_edm = x_1 + sigma n is ours times sqrt(1 + sigma^2).
    const PathPoint p = Schedule{.family = PathFamily::edm, .sigma_max = 80, .rho = 7}.at(t);
    const double sigma = 80 * std::pow(1 - t, 7), scale = std::sqrt(1 + sigma * sigma);
    EXPECT_NEAR(p.alpha * scale, 1, 1e-14);
    EXPECT_NEAR(p.beta * scale, sigma, 1e-13 * (1 + sigma));
  }
}

TEST(Schedule, TimeOfALogSnr) {
  for (const Schedule& schedule : kSchedules) {
    // Rounding of t times d lambda/dt, which is below 1e4 here.
    for (double t : {0.001, 0.2, 0.5, 0.9, 0.999})
      EXPECT_NEAR(time_of_log_snr(schedule, log_snr(schedule.at(t))), t, 1e-12) << schedule.description();
    EXPECT_EQ(time_of_log_snr(schedule, std::numeric_limits<double>::infinity()), 1);
    if (schedule.alpha(0) > 0) {
      const double first = log_snr(schedule.at(0));
      EXPECT_EQ(time_of_log_snr(schedule, first), 0);
      EXPECT_THROW(time_of_log_snr(schedule, first - 0.01), Error);
    }
  }
}

// x_1, x_0 -> (x_t, every prediction) by definition; the conversions must agree with that.
TEST(Parametrisation, ConversionsAgreeWithTheDefinitions) {
  const double x1 = 0.7, x0 = -1.3;
  for (const Schedule& schedule : kSchedules)
    for (double t : {0.01, 0.4, 0.99}) {
      const PathPoint p = schedule.at(t);
      const double x = p.alpha * x1 + p.beta * x0;
      const double truth[] = {p.alpha_dot * x1 + p.beta_dot * x0, x0, x1, -x0 / p.beta,
                              p.alpha * x0 - p.beta * x1};
      for (Parametrisation from : kPredictions)
        for (Parametrisation to : kPredictions) {
          const Affine map = conversion(from, to, schedule, t);
          const double got = map.x * x + map.prediction * truth[static_cast<int>(from)];
          const double want = truth[static_cast<int>(to)];
          // Rounding, magnified by the size of the terms that cancel.
          const double scale = std::abs(map.x * x) + std::abs(want) + 1;
          EXPECT_NEAR(got, want, 1e-13 * scale)
              << schedule.description() << " t " << t << " " << name(from) << " -> " << name(to);
          const Affine round = compose(conversion(to, from, schedule, t), map);
          const Affine back = conversion(to, from, schedule, t);
          EXPECT_NEAR(round.prediction, 1, 1e-13);
          EXPECT_NEAR(round.x, 0, 1e-13 * (1 + std::abs(back.x) + std::abs(back.prediction * map.x)));
        }
    }
}

TEST(Parametrisation, LinearPathTextbookForms) {
  const double t = 0.3;
  const Affine x1 = conversion(Parametrisation::velocity, Parametrisation::x1, Schedule{}, t);  // x + (1-t) v
  EXPECT_NEAR(x1.x, 1, 1e-15);
  EXPECT_NEAR(x1.prediction, 1 - t, 1e-15);
  const Affine eps =
      conversion(Parametrisation::velocity, Parametrisation::epsilon, Schedule{}, t);  // x - t v
  EXPECT_NEAR(eps.x, 1, 1e-15);
  EXPECT_NEAR(eps.prediction, -t, 1e-15);
  const Affine s =
      conversion(Parametrisation::velocity, Parametrisation::score, Schedule{}, t);  // (t v - x)/(1-t)
  EXPECT_NEAR(s.x, -1 / (1 - t), 1e-14);
  EXPECT_NEAR(s.prediction, t / (1 - t), 1e-15);
}

TEST(Parametrisation, SingularEndpointsAreRefusedInWords) {
  using P = Parametrisation;
  const struct {
    P from, to;
    double t;
    bool refused;
  } cases[] = {
      {P::epsilon, P::velocity, 0, true},  {P::epsilon, P::x1, 0, true},   {P::score, P::velocity, 0, true},
      {P::epsilon, P::score, 0, false},    {P::velocity, P::x1, 0, false}, {P::velocity, P::score, 0, false},
      {P::x1, P::velocity, 0, false},      {P::x1, P::epsilon, 1, true},   {P::x1, P::velocity, 1, true},
      {P::velocity, P::score, 1, true},    {P::velocity, P::x1, 1, false}, {P::epsilon, P::score, 1, true},
      {P::velocity, P::velocity, 1, false}};
  for (const auto& c : cases) {
    if (!c.refused) {
      EXPECT_NO_THROW(conversion(c.from, c.to, Schedule{}, c.t))
          << name(c.from) << " -> " << name(c.to) << " t " << c.t;
      continue;
    }
    try {
      conversion(c.from, c.to, Schedule{}, c.t);
      FAIL() << name(c.from) << " -> " << name(c.to) << " at t = " << c.t << " was accepted";
    } catch (const Error& e) {
      const std::string expected = c.t == 0 ? "alpha(t) = 0" : "beta(t) = 0";
      EXPECT_NE(std::string(e.what()).find(expected), std::string::npos) << e.what();
    }
  }
  // The power path starts at rest: its velocity at t = 0 is 0 whatever x_1.
  try {
    conversion(P::velocity, P::x1, Schedule{.family = PathFamily::power}, 0);
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("stands still"), std::string::npos) << e.what();
  }
  for (const char* word : {"velocity", "epsilon", "x1", "score"})
    EXPECT_EQ(name(parametrisation(word)), word);
  EXPECT_THROW(parametrisation("x0"), Error);
}

}  // namespace
}  // namespace costate::sde
