// Discrete diffusion schedules and samplers against diffusers 0.42 (float32 tables; steps in double
// precision).
#include <costate/sde/diffusion.h>
#include <costate/tensor/error.h>
#include <gtest/gtest.h>

#include <cmath>

namespace costate::sde {
namespace {

template <class F>
void expect_error(const std::string& words, const F& f) {
  try {
    f();
    ADD_FAILURE() << "no error; expected one about: " << words;
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::argument);
    EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
  }
}

// Single precision: torch's linspace differs from any other by a unit of the last place.
void expect_close(double found, double wanted, double relative = 1e-6) {
  EXPECT_NEAR(found, wanted, relative * std::abs(wanted));
}

TEST(Diffusion, BetasAndAlphaBarsAreThoseOfCheckpoints) {
  const auto linear = betas(BetaLaw::linear, 1000), bar = alphas_cumprod(linear);
  const int at[] = {0, 1, 2, 499, 500, 998, 999};
  const double b[] = {1e-4, 1.19919918e-4, 1.39839831e-4, .0100400411, .0100599602, .0199800804, .02};
  for (int i = 0; i < 7; ++i) expect_close(linear[at[i]], b[i]);
  const int places[] = {0, 1, 10, 499, 500, 998, 999};
  const double a[] = {.999899983,  .999780059,      .997806489,     .0785872415,
                      .0777966604, 4.118194556e-05, 4.035830716e-05};
  for (int i = 0; i < 7; ++i) expect_close(bar[places[i]], a[i]);

  const auto scaled = alphas_cumprod(betas(BetaLaw::scaled_linear, 1000, .00085, .012));
  const auto cosine = alphas_cumprod(betas(BetaLaw::squaredcos_cap_v2, 1000));
  const int few[] = {0, 10, 499, 999};
  const double s[] = {.999149978, .990431309, .277669460, .004660096};
  const double c[] = {.999958694, .999278843, .493843466, 2.4287349e-09};
  for (int i = 0; i < 4; ++i) {
    expect_close(scaled[few[i]], s[i]);
    expect_close(cosine[few[i]], c[i]);
  }
  const auto sigmoid =
      betas(BetaLaw::sigmoid, 1000);  // 1/(1 + e^6) of the way from 1e-4 to 0.02, and back from the end
  expect_close(sigmoid[0], 1e-4 + 0.0199 / (1 + std::exp(6.0)), 1e-5);
  expect_close(sigmoid[999], 0.02 - 0.0199 / (1 + std::exp(6.0)), 1e-5);
}

TEST(Diffusion, PathGoesThroughTheTable) {
  const Schedule schedule = diffusion_schedule(BetaLaw::linear, 1000);
  EXPECT_EQ(schedule.description(), "vp_table(linear, timesteps=1000, beta_start=1e-04, beta_end=0.02)");
  const auto bar = alphas_cumprod(betas(BetaLaw::linear, 1000));
  for (int i : {0, 1, 10, 333, 500, 999}) {
    const PathPoint p = schedule.at(time_of_timestep(i, 1000));
    expect_close(p.alpha * p.alpha, bar[i], 1e-12);
    expect_close(p.beta * p.beta, 1 - static_cast<double>(bar[i]), 1e-11);
    EXPECT_NEAR(timestep_of_time(time_of_timestep(i, 1000), 1000), i, 1e-9);
  }
  EXPECT_EQ(schedule.alpha(1), 1);
  EXPECT_EQ(schedule.beta(1), 0);
  EXPECT_EQ(timestep_of_time(0, 1000), 999);
  EXPECT_EQ(timestep_of_time(1, 1000), -1);
  for (double t :
       {0.00025, 0.3333, 0.71828, 0.99975}) {  // inside intervals: derivatives, and the identities of a path
    const PathPoint p = schedule.at(t);
    const double h = 1e-7;
    EXPECT_NEAR(p.alpha_dot, (schedule.alpha(t + h) - schedule.alpha(t - h)) / (2 * h), 1e-5);
    EXPECT_NEAR(p.beta_dot, (schedule.beta(t + h) - schedule.beta(t - h)) / (2 * h), 1e-4);
    EXPECT_NEAR(p.wronskian, p.alpha_dot * p.beta - p.beta_dot * p.alpha, 1e-12 * p.wronskian);
    EXPECT_NEAR(p.eta, p.beta * (p.kappa * p.beta - p.beta_dot), 1e-10 * p.eta);
  }
  // The rate at a timestep is that of the step towards the data; ever finer paths converge to vp_linear with
  // beta_min = T beta_start and beta_max = T beta_end.
  EXPECT_NEAR(schedule.at(0).kappa, -0.5 * 1000 * std::log(bar[999] / bar[998]), 1e-3);
  const Schedule limit{PathFamily::vp_linear, 0.1, 20};
  for (double t : {0.1, 0.5, 0.9}) EXPECT_NEAR(schedule.alpha(t), limit.alpha(t), 2e-3);
  for (double t : {0.0, 1.0}) {
    const PathPoint p = schedule.at(t);
    for (double v :
         {p.alpha, p.beta, p.kappa, p.eta, p.alpha_dot, p.beta_dot, p.wronskian, p.memoryless_sigma})
      EXPECT_FALSE(std::isnan(v));
  }
  EXPECT_TRUE(schedule == diffusion_schedule(betas(BetaLaw::linear, 1000), "by hand"));
  EXPECT_FALSE(schedule == diffusion_schedule(BetaLaw::linear, 1000, 1e-4, 0.021));
  EXPECT_FALSE(schedule == Schedule{});
}

// Tables of T timesteps with beta_start = beta_min/T and beta_end = beta_max/T tend to the continuous paths as 1/T; the
// squared cosine is already the continuous one at every timestep but the last, where it is capped.
TEST(Diffusion, TablesTendToTheContinuousPaths) {
  const struct {
    BetaLaw law;
    PathFamily family;
  } cases[] = {{BetaLaw::linear, PathFamily::vp_linear},
               {BetaLaw::scaled_linear, PathFamily::vp_scaled_linear},
               {BetaLaw::sigmoid, PathFamily::vp_sigmoid}};
  for (const auto& c : cases) {
    const Schedule limit{c.family, 0.1, 20};
    double error[2] = {};
    for (int i = 0; i < 2; ++i) {
      const int T = 500 << i;
      const Schedule table = diffusion_schedule(c.law, T, 0.1 / T, 20.0 / T);
      for (double t : {0.2, 0.4, 0.6, 0.8})
        error[i] = std::max(error[i], std::abs(std::log(table.alpha(t)) - std::log(limit.alpha(t))));
    }
    EXPECT_LT(error[0], 0.05) << limit.description();
    EXPECT_NEAR(error[0] / error[1], 2, 0.15) << limit.description();
  }
  const Schedule table = diffusion_schedule(BetaLaw::squaredcos_cap_v2, 1000), limit{PathFamily::vp_squaredcos};
  for (int i : {0, 10, 500, 990, 998}) {
    const double t = time_of_timestep(i, 1000);
    EXPECT_NEAR(table.alpha(t), limit.alpha(t), 1e-6);  // betas of single precision
  }
}

TEST(Diffusion, TimestepsOfEverySpacing) {
  using S = TimestepSpacing;
  EXPECT_EQ(timesteps(S::linspace, 1000, 7), (std::vector<int>{999, 832, 666, 500, 333, 166, 0}));
  EXPECT_EQ(timesteps(S::leading, 1000, 7), (std::vector<int>{852, 710, 568, 426, 284, 142, 0}));
  EXPECT_EQ(timesteps(S::leading, 1000, 7, 1).front(), 853);
  EXPECT_EQ(timesteps(S::trailing, 1000, 7), (std::vector<int>{999, 856, 713, 570, 428, 285, 142}));
  const auto t = grid_of_timesteps(timesteps(S::trailing, 1000, 10), 1000), u = uniform_grid(10);
  for (int k = 0; k <= 10; ++k) EXPECT_NEAR(t[k], u[k], 1e-15);
}

TEST(Diffusion, VariancesOfTheDdpmStep) {
  const Schedule schedule = diffusion_schedule(BetaLaw::linear, 1000);
  const Chain small = exact_memoryless(schedule, uniform_grid(1000), Parametrisation::epsilon),
              large = ddpm_fixed_large(schedule, uniform_grid(1000), Parametrisation::epsilon);
  const int timestep[] = {1, 500, 999};
  const double v_small[] = {5.4534794e-5, .0100512691, .0199999642},
               v_large[] = {1.19924545e-4, .0100598931, .0199999809};
  for (int i = 0; i < 3; ++i) {  // differences of single-precision numbers near 1: a few 1e-7
    const int k = 999 - timestep[i];
    EXPECT_NEAR(small.std[k] * small.std[k], v_small[i], 3e-7);
    EXPECT_NEAR(large.std[k] * large.std[k], v_large[i], 3e-7);
    EXPECT_EQ(small.A[k], large.A[k]);
  }
  EXPECT_EQ(small.std[999], 0);
  EXPECT_EQ(large.std[999], 0);
  EXPECT_TRUE(small.memoryless() && large.convertible());
  expect_error("variance-preserving", [] { ddpm_fixed_large({}, uniform_grid(4)); });
}

// One step from timestep 500 to 480 with x = sin(.11 i), prediction cos(.23 i), noise cos(.5 i).
TEST(Diffusion, DdimStepsAreTheLibrarys) {
  const Schedule schedule = diffusion_schedule(BetaLaw::linear, 1000);
  const struct {
    Parametrisation prediction;
    double eta;
    double wanted[3];
  } cases[] = {
      {Parametrisation::epsilon, 0.0, {-0.10907635509909319, 0.015022510824425295, 0.1432494820519319}},
      {Parametrisation::epsilon, 0.5, {0.0775601971155293, 0.1765538884835868, 0.23573086015745642}},
      {Parametrisation::epsilon, 1.0, {0.2133321720367558, 0.28856013653601514, 0.28263490674365344}},
      {Parametrisation::x1, 0.0, {0.0316809136134969, 0.1396040717978641, 0.24458798494886264}},
      {Parametrisation::x1, 0.5, {0.24863808318504255, 0.32797164679555757, 0.35889875771346713}},
      {Parametrisation::x1, 1.0, {0.48036872293493404, 0.5249090700734172, 0.47488845453049644}},
      {Parametrisation::v_prediction, 0.0, {-0.030423631662820583, 0.08010501818073684, 0.19086743640140935}},
      {Parametrisation::v_prediction, 0.5, {0.17315555629063972, 0.25565586131545914, 0.2936062280096577}},
      {Parametrisation::v_prediction, 1.0, {0.36254757083833766, 0.4120309021536719, 0.3729729283977288}}};
  for (const auto& c : cases) {
    const Chain chain =
        ddim(schedule, {time_of_timestep(500, 1000), time_of_timestep(480, 1000), 1}, c.eta, c.prediction);
    for (int i = 0; i < 3; ++i) {
      const double x =
          chain.A[0] * std::sin(.11 * i) + chain.C[0] * std::cos(.23 * i) + chain.std[0] * std::cos(.5 * i);
      EXPECT_NEAR(x, c.wanted[i], 1e-6)
          << name(c.prediction) << " eta " << c.eta;  // their tables are in float32
    }
  }
}

TEST(Diffusion, WholeDdimTrajectoriesAreTheLibrarys) {
  const Schedule schedule = diffusion_schedule(BetaLaw::scaled_linear, 1000, .00085, .012);
  const struct {
    TimestepSpacing spacing;
    int offset;
    double wanted[4];
  } cases[] = {{TimestepSpacing::leading,
                1,
                {-8.65136440005611, -8.19726839941757, -7.642061494626792, -6.900493882212641}},
               {TimestepSpacing::trailing,
                0,
                {-16.730324185806413, -15.730254713556675, -14.889216240753129, -13.82584386758188}}};
  for (const auto& c : cases) {
    const auto steps = timesteps(c.spacing, 1000, 10, c.offset);
    const Chain chain = ddim(schedule, grid_of_timesteps(steps, 1000), 0, Parametrisation::epsilon);
    for (int i = 0; i < 4; ++i) {
      double x = std::sin(.11 * i);
      for (int k = 0; k < 10; ++k)
        x = chain.A[k] * x + chain.C[k] * (std::cos(x) + .001 * timestep_of_time(chain.t[k], 1000));
      EXPECT_NEAR(x, c.wanted[i], 1e-4 * std::abs(c.wanted[i]));  // float32 tables, ten steps
    }
  }
}

TEST(Diffusion, DdimWithEtaOneIsTheExactStep) {
  for (const Schedule& schedule : {Schedule{}, diffusion_schedule(BetaLaw::squaredcos_cap_v2, 50)}) {
    const Chain a = ddim(schedule, uniform_grid(7), 1), b = exact_memoryless(schedule, uniform_grid(7));
    EXPECT_TRUE(a.noise == b.noise);
    for (int k = 0; k < 7; ++k) {
      EXPECT_NEAR(a.A[k], b.A[k], 1e-9 * (1 + std::abs(b.A[k])));
      EXPECT_NEAR(a.C[k], b.C[k], 1e-9 * (1 + std::abs(b.C[k])));
      EXPECT_NEAR(a.std[k], b.std[k], 1e-14);
    }
  }
}

TEST(Diffusion, FlowSigmasWithOneShiftAndWithTwo) {
  const double twice[] = {1, .90035909, .75112110, .50298506, .00892857, 0},
               once[] = {1, .90011996, .75037479, .50099897, .00299401, 0};
  const auto a = flow_sigmas(5, 3, true), b = flow_sigmas(5, 3);
  for (int k = 0; k < 6; ++k) {
    EXPECT_NEAR(a[k], twice[k], 1e-7);
    EXPECT_NEAR(b[k], once[k], 1e-7);
  }
  EXPECT_NEAR(flow_sigmas(2)[1], 0.001, 1e-15);
  // Its Euler steps are ours with t = 1 - sigma and the velocity turned round.
  const double wanted[] = {-1.4484387636184692, -1.387620449066162, -1.3206807374954224, -1.2476460933685303};
  std::vector<double> t;
  for (const double s : a) t.push_back(1 - s);
  const Chain chain = euler_ode({}, t);
  for (int i = 0; i < 4; ++i) {
    double x = std::sin(.11 * i);
    for (int k = 0; k < 5; ++k) {
      const double theirs = std::cos(x) + .001 * 1000 * (1 - chain.t[k]);  // what they call noise - data
      x = chain.A[k] * x + chain.C[k] * -theirs;
    }
    EXPECT_NEAR(x, wanted[i], 1e-5);
  }
}

TEST(Diffusion, RefusesInWords) {
  expect_error("\"linaer\" is not a law of beta; there are linear, scaled_linear",
               [] { beta_law("linaer"); });
  expect_error("did you mean \"linear\"", [] { beta_law("linaer"); });
  expect_error("not a timestep spacing", [] { timestep_spacing("dense"); });
  expect_error("number of timesteps is 0", [] { betas(BetaLaw::linear, 0); });
  expect_error("beta_start is 0.1", [] { betas(BetaLaw::linear, 10, 0.1, 0.01); });
  expect_error("beta_end is 1", [] { betas(BetaLaw::linear, 10, 0.1, 1); });
  expect_error("beta 1 is 1", [] { diffusion_schedule(std::vector<float>{0.5f, 1.0f}, ""); });
  expect_error("beta 0 is nan", [] { diffusion_schedule(std::vector<float>{std::nanf("")}, ""); });
  expect_error("alpha bar is 0", [] { diffusion_schedule(std::vector<float>(40, 0.9999999f), ""); });
  expect_error("does not decrease at timestep 0", [] { diffusion_schedule(std::vector<float>{1e-20f}, ""); });
  expect_error("has no table", [] { Schedule{PathFamily::vp_table}.at(0.5); });
  expect_error("timestep 3 comes after 2", [] { grid_of_timesteps({2, 3}, 10); });
  expect_error("timestep 10 is outside", [] { grid_of_timesteps({10}, 10); });
  expect_error("11 steps of a model with 10", [] { timesteps(TimestepSpacing::leading, 10, 11); });
  expect_error("eta is 2", [] { ddim({}, uniform_grid(3), 2); });
  expect_error("shift 0", [] { flow_sigmas(3, 0); });
}

}  // namespace
}  // namespace costate::sde
