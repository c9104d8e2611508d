// The samplers beyond Euler-Maruyama: Flow-GRPO's, Karras et al.'s, and exponential integrators.
#include <costate/autograd/ops.h>
#include <costate/sde/diffusion.h>
#include <costate/sde/edm.h>
#include <costate/sde/exponential.h>
#include <costate/sde/memoryless.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/error.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numbers>
#include <string>

namespace costate::sde {
namespace {

const Schedule kLinear{}, kEdm{.family = PathFamily::edm};
using P = Parametrisation;

template <class F>
void expect_error(const std::string& words, const F& f) {
  try {
    f();
    ADD_FAILURE() << "accepted: " << words;
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
  }
}

// Times whose log(alpha/beta) is uniform from `low` to `high`.
std::vector<double> log_snr_grid(const Schedule& schedule, int steps, double low = -3, double high = 3) {
  std::vector<double> t;
  for (int k = 0; k <= steps; ++k) t.push_back(time_of_log_snr(schedule, low + (high - low) * k / steps));
  return t;
}

// The formulas of the paper's public code, in its time tau = 1 - t and with its velocity, noise - data.
TEST(FlowSde, IsTheCodeOfFlowGrpo) {
  const double a = 0.7;
  const auto t = shifted_grid(10, 3);
  const Chain chain = flow_sde(kLinear, t, a);
  for (int k = 0; k < 10; ++k) {
    const double tau = 1 - t[k], dt = t[k] - t[k + 1], below = tau == 1 ? 1 - t[1] : tau;
    const double s = std::sqrt(tau / (1 - below)) * a;
    EXPECT_NEAR(chain.A[k], 1 + s * s / (2 * tau) * dt, 1e-13);
    EXPECT_NEAR(chain.C[k], -(1 + s * s * (1 - tau) / (2 * tau)) * dt, 1e-13);
    EXPECT_NEAR(chain.std[k], s * std::sqrt(-dt), 1e-14);
  }
  EXPECT_TRUE(chain.memoryless() && !chain.convertible());
  EXPECT_TRUE(flow_sde(kLinear, t, std::numbers::sqrt2).convertible());
  expect_error("a must be positive", [&] { flow_sde(kLinear, t, 0); });
}

// What it remembers of its noise for data N(0, 1): memoryless in the limit, far from it on its usual grids.
TEST(FlowSde, RemembersItsNoise) {
  const struct {
    double a;
    int steps;
    double rho;
  } cases[] = {{.7, 10, .291}, {.7, 40, .235},   {.7, 1000, .113}, {.3, 10, .808},
               {.3, 40, .777}, {.3, 1000, .679}, {1, 10, .0553}};
  for (const auto& c : cases)
    EXPECT_NEAR(residual_correlation(flow_sde(kLinear, uniform_grid(c.steps), c.a)), c.rho, 5e-4)
        << c.a << " " << c.steps;
  EXPECT_NEAR(gaussian_law(flow_sde(kLinear, uniform_grid(10), .7), 0, 1).variance, .931, 5e-4);
}

TEST(Edm, PreconditioningIsAnAffineConversion) {
  for (double sigma_data : {0.5, 1.0, 2.0})
    for (double t : {0.0, 0.3, 0.8, 0.99}) {
      const PathPoint p = kEdm.at(t);
      const double sigma = p.beta / p.alpha, theirs = 0.37, F = -1.2, x = p.alpha * theirs;
      const EdmPreconditioning c = edm_preconditioning(sigma, sigma_data);
      const double norm2 = sigma * sigma + sigma_data * sigma_data;
      EXPECT_NEAR(c.c_skip, sigma_data * sigma_data / norm2, 1e-15);
      EXPECT_NEAR(c.c_out, sigma * sigma_data / std::sqrt(norm2), 1e-14);
      EXPECT_NEAR(c.c_in, 1 / std::sqrt(norm2), 1e-15);
      const Affine d = edm_x1(p, sigma_data);
      EXPECT_NEAR(d.x * x + d.prediction * F, c.c_skip * theirs + c.c_out * F, 1e-14);
      if (sigma_data == 1) {  // F = -v_prediction
        const Affine v = conversion(P::v_prediction, P::x1, p);
        EXPECT_NEAR(d.x, v.x, 1e-14);
        EXPECT_NEAR(d.prediction, -v.prediction, 1e-14);
        EXPECT_NEAR(c.c_in / p.alpha, 1, 1e-14);
      }
    }
  EXPECT_NEAR(edm_preconditioning(std::exp(2.0)).c_noise, 0.5, 1e-15);
  expect_error("sigma_data 0", [] { edm_preconditioning(1, 0); });
  expect_error("pure noise", [] { edm_x1(kLinear.at(0)); });
}

// Algorithm 2 (its Euler steps) as it is written, in its own state, beside the chain, with a denoiser that is not linear.
TEST(Edm, ChurnedChainIsTheAlgorithm) {
  const int N = 12;
  const Churn churn{.S_churn = 3, .S_tmin = 0.05, .S_tmax = 30, .S_noise = 1.003};
  for (const Schedule& path : {kEdm, kLinear}) {
    const auto t = karras_grid(path, N);
    const Chain chain = churned(path, t, churn, P::x1);
    const auto denoiser = [](double x, double sigma) { return std::sin(x / (1 + sigma)) + 0.1 * sigma; };
    const auto level = [&](double time) { return path.beta(time) / path.alpha(time); };
    double mine = 0.8, theirs = mine / path.alpha(t[0]);
    for (int i = 0; i < N; ++i) {
      const double sigma = level(t[i]), next = i + 1 < N ? level(t[i + 1]) : 0;
      const double gamma =
          sigma >= churn.S_tmin && sigma <= churn.S_tmax ? std::min(churn.S_churn / N, std::numbers::sqrt2 - 1) : 0;
      const double raised = sigma * (1 + gamma);
      theirs += std::sqrt(raised * raised - sigma * sigma) * churn.S_noise * std::cos(0.7 * i);
      theirs += (next - raised) * (theirs - denoiser(theirs, raised)) / raised;
      const PathPoint p = path.at(chain.t[i]);
      mine = chain.A[i] * mine + chain.C[i] * denoiser(mine / p.alpha, p.beta / p.alpha) +
             chain.std[i] * std::cos(0.7 * (i + 1));
    }
    EXPECT_NEAR(mine, theirs, 1e-9) << path.description();  // times of levels, to rounding of t
  }
}

TEST(Edm, ChurnForgetsAFiniteShare) {
  // For data at one point, raising a level by 1 + gamma keeps 1/(1 + gamma) of the noise, whatever the grid.
  const int N = 40;
  const auto t = karras_grid(kEdm, N);
  for (double S_churn : {2.0, 10.0, 40.0}) {
    const Chain chain = churned(kEdm, t, {.S_churn = S_churn, .S_tmin = 0.05, .S_tmax = 50});
    int raised = 0;
    for (double s : chain.std) raised += s > 0;
    const double gamma = std::min(S_churn / N, std::numbers::sqrt2 - 1);
    EXPECT_GT(raised, 20);
    // Data of variance 1e-14 beside a last level of 0.002.
    const Chain noisy =
        churned(kEdm, {t.begin(), t.end() - 1}, {.S_churn = S_churn * (N - 1) / N, .S_tmin = 0.05, .S_tmax = 50});
    // Started from N(0, 1) where the path has N(0, beta^2).
    const double beta = kEdm.beta(0), phi = std::pow(1 + gamma, -raised) / beta;
    EXPECT_NEAR(residual_correlation(noisy, 1e-14), phi / std::sqrt(1 + phi * phi * (1 - beta * beta)), 1e-8)
        << S_churn;
    const Memory m = memory_of(chain);
    EXPECT_FALSE(m.memoryless || m.convertible);
    EXPECT_NE(m.sentence.find("S_churn"), std::string::npos);
    EXPECT_TRUE(std::isnan(m.limit));
  }
  // Without churn it is the exponential step.
  const Chain none = churned(kEdm, t, {}), plain = exponential(kEdm, t);
  for (int k = 0; k < N; ++k) {
    EXPECT_NEAR(none.A[k], plain.A[k], 1e-12);
    EXPECT_NEAR(none.C[k], plain.C[k], 1e-12);
    EXPECT_EQ(none.std[k], 0);
  }
  EXPECT_TRUE(none.noise == plain.noise);
  expect_error("starts above 0", [] { churned(kLinear, uniform_grid(4), {.S_churn = 1}); });
  expect_error("lower S_tmax", [&] { churned(kEdm, t, {.S_churn = 40}); });
  expect_error("S_tmin 3", [&] { churned(kEdm, t, {.S_churn = 1, .S_tmin = 3, .S_tmax = 2}); });
}

TEST(Exponential, IsDdimWithoutNoise) {
  for (const Schedule& path : {kLinear, kEdm, Schedule{PathFamily::vp_squaredcos}})
    for (P prediction : {P::velocity, P::x1}) {
      const Chain a = exponential(path, uniform_grid(9), prediction), b = ddim(path, uniform_grid(9), 0, prediction);
      for (int k = 0; k < 9; ++k) {
        if (k == 0 && prediction == P::x1 && path.alpha(0) > 0) continue;  // ddim cancels two large numbers there
        EXPECT_NEAR(a.A[k], b.A[k], 1e-11) << a.description << " " << k;
        EXPECT_NEAR(a.C[k], b.C[k], 1e-11) << a.description << " " << k;
        EXPECT_EQ(a.std[k], 0);
      }
    }
  // On the linear path x' = ((1 - t')/(1 - t)) x + (t' - t)/(1 - t) x1.
  const Chain c = exponential(kLinear, {0.2, 0.5, 1}, P::x1);
  EXPECT_NEAR(c.A[0], 0.5 / 0.8, 1e-15);
  EXPECT_NEAR(c.C[0], 0.3 / 0.8, 1e-15);
}

// The endpoint of the exact Gaussian model: the flow carries N(0, 1) at t_0 to mean m alpha + s (0 - m alpha_0) and
// deviation s, with s = sqrt(var/var_0). On grids uniform in log(alpha/beta) one evaluation a step reaches order 2 with two
// estimates and order 1 with one; the first step, of first order, makes one local error of order 2.
TEST(Exponential, OrdersOfConvergence) {
  const double m = 0.7, v = 0.5;
  for (const Schedule& path : {kLinear, kEdm, Schedule{PathFamily::vp_linear}})
    for (P prediction : {P::x1, P::velocity, P::epsilon, P::v_prediction}) {
      double error[2][2][2] = {};  // method, refinement, moment
      for (int i = 0; i < 2; ++i) {
        const auto t = log_snr_grid(path, 80 << i);
        const PathPoint p = path.at(t.front()), q = path.at(t.back());
        const double s =
            std::sqrt((q.alpha * q.alpha * v + q.beta * q.beta) / (p.alpha * p.alpha * v + p.beta * p.beta));
        const double mean = m * q.alpha - s * m * p.alpha;
        int method = 0;
        for (const Chain& chain : {exponential(path, t, prediction), dpmpp_2m(path, t, prediction)}) {
          const GaussianLaw law = gaussian_law(chain, m, v);
          EXPECT_NEAR(law.correlation, 1, 1e-12);
          error[method][i][0] = std::abs(law.mean - mean), error[method][i][1] = std::abs(std::sqrt(law.variance) - s);
          ++method;
        }
      }
      for (int moment = 0; moment < 2; ++moment) {
        EXPECT_NEAR(std::log2(error[0][0][moment] / error[0][1][moment]), 1, 0.1)
            << path.description() << name(prediction);
        EXPECT_NEAR(std::log2(error[1][0][moment] / error[1][1][moment]), 2, 0.15)
            << path.description() << name(prediction);
        EXPECT_LT(error[1][0][moment], 0.1 * error[0][0][moment]);
      }
    }
}

// diffusers 0.42, DPMSolverMultistepScheduler (dpmsolver++, order 2, midpoint; timestep_spacing trailing) on the
// scaled_linear betas of latent diffusion, with a network cos(x) + 0.001 timestep and x = sin(0.11 i).
TEST(Exponential, DpmppTrajectoriesAreTheLibrarys) {
  const Schedule schedule = diffusion_schedule(BetaLaw::scaled_linear, 1000, .00085, .012);
  const struct {
    P prediction;
    int steps;
    double wanted[3];
  } cases[] = {{P::epsilon, 10, {-14.44556318539982, -13.272326517093386, -11.838326385127957}},
               {P::epsilon, 20, {-14.156929845315553, -13.227260736559435, -11.938059925119425}},
               {P::v_prediction, 10, {-1.338325851631537, -1.305328070256877, -1.270021423436496}},
               {P::v_prediction, 20, {-1.358716677291533, -1.3228673649371907, -1.2845422713640735}},
               {P::x1, 10, {0.7288117331236749, 0.7200284872770801, 0.7117358378654766}},
               {P::x1, 20, {0.7132784623708931, 0.7089692896594328, 0.7049510753425472}}};
  for (const auto& c : cases) {
    const Chain chain = dpmpp_2m(schedule, time_grid(GridKind::trailing, schedule, c.steps), c.prediction);
    ASSERT_TRUE(chain.multistep());
    // The sampler itself, on the same network.
    const Field field = [](const Var& x, const Var& t, const Tensor&) {
      std::vector<double> p = x.value().to_doubles();
      for (double& v : p) v = std::cos(v) + .001 * timestep_of_time(t.value().to_doubles()[0], 1000);
      return Var(Tensor::from(p, x.value().shape()));
    };
    const Tensor x0 = Tensor::from(std::vector<double>{0, std::sin(.11), std::sin(.22)}, {1, 3});
    const auto x = rollout(field, chain, x0, {}, {}).to_doubles();
    // Their levels are in single precision; ten to twenty steps magnify them by up to 1/alpha(0) = 15.
    for (int i = 0; i < 3; ++i)
      EXPECT_NEAR(x[i], c.wanted[i], 2e-5 * std::abs(c.wanted[i])) << name(c.prediction) << " " << c.steps;
  }
}

TEST(Exponential, WhereDpmppIsOfFirstOrder) {
  const Chain few = dpmpp_2m(kLinear, uniform_grid(10), P::x1), plain = exponential(kLinear, uniform_grid(10), P::x1);
  for (int k : {0, 1, 9}) {  // the first, the one after alpha = 0, the one to t = 1
    EXPECT_EQ(few.D[k], 0) << k;
    EXPECT_EQ(few.C[k], plain.C[k]) << k;
  }
  for (int k = 2; k < 9; ++k) EXPECT_LT(few.D[k], 0) << k;
  for (int k = 0; k < 10; ++k) EXPECT_EQ(few.B[k], 0) << k;
  const auto t = log_snr_grid(kLinear, 10);
  EXPECT_EQ(dpmpp_2m(kLinear, t).D.back(), 0);
  EXPECT_NE(dpmpp_2m(kLinear, t, P::velocity, false).D.back(), 0);
  EXPECT_NE(dpmpp_2m(kLinear, log_snr_grid(kLinear, 15)).D.back(), 0);
}

// Every reader of A, C and std alone refuses a multistep chain.
TEST(Exponential, MultistepChainsAreRefusedWhereTheyAreNotUnderstood) {
  const Chain chain = dpmpp_2m(kLinear, uniform_grid(20));
  const Field zero = [](const Var& x, const Var&, const Tensor&) { return affine(x, 0.0, 0.0); };
  const Tensor x = Tensor::full({2, 3}, 1.0, DType::f64);
  expect_error("multistep", [&] { advance(chain, 3, x, x, {}); });
  expect_error("multistep", [&] { pullback_step(zero, chain, 3, x, {}, x); });
  EXPECT_TRUE(may_sample_with(exact_memoryless(kLinear, uniform_grid(10)), chain));
}

TEST(Ddpm, VariancesByName) {
  const Schedule schedule = diffusion_schedule(BetaLaw::linear, 100);
  const auto t = uniform_grid(10);
  for (const char* word : {"fixed_small", "fixed_small_log", "fixed_large"}) EXPECT_EQ(name(ddpm_variance(word)), word);
  const Chain small = ddpm(schedule, t), log = ddpm(schedule, t, DdpmVariance::fixed_small_log),
              large = ddpm(schedule, t, DdpmVariance::fixed_large);
  EXPECT_EQ(small.std, exact_memoryless(schedule, t).std);
  EXPECT_EQ(log.std, small.std);
  EXPECT_EQ(large.std, ddpm_fixed_large(schedule, t).std);
  expect_error("std is a function of x", [] { ddpm_variance("learned_range"); });
  expect_error("is not offered", [] { ddpm_variance("fixed_large_log"); });
  expect_error("did you mean \"fixed_small\"", [] { ddpm_variance("fixed_smal"); });
  expect_error("variance-preserving", [&] { ddpm_fixed_large({.family = PathFamily::power}, {0.1, 1}); });
}

}  // namespace
}  // namespace costate::sde
