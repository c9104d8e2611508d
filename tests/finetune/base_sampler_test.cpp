// Base samplers with the analytic velocity of a mixture: their terminal law, and the certificates of the
// optimal control.
#include <costate/finetune/evaluate/importance.h>
#include <costate/finetune/evaluate/modes.h>
#include <costate/finetune/evaluate/path_kl.h>
#include <costate/finetune/evaluate/wasserstein.h>
#include <costate/finetune/problem/mixture_tilt.h>
#include <costate/sde/chain.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

namespace costate::finetune {
namespace {

using Values = std::vector<double>;
const sde::Schedule kLinear{sde::PathFamily::linear};

MixtureTilt problem() {
  return MixtureTilt(GaussianMixture::isotropic(1, {0.5, 0.5}, {-1.5, 1.5}, 0.4), {{0.6}, {}, {}});
}

// Stratified quantiles of a one-dimensional mixture: W1 to the law itself is of order 1/n.
Values quantiles(const GaussianMixture& g, int n) {
  Values q(n);
  for (int i = 0; i < n; ++i) q[i] = g.quantile((i + 0.5) / n);
  return q;
}

struct Rollout {
  Values x;
  PathKl kl;
};

// Runs `chain` for one-dimensional x with the velocity of `model`; controls are relative to `base`.
Rollout rollout(const sde::Chain& chain, const GaussianMixture& model, const GaussianMixture& base, int rows,
                std::uint64_t seed) {
  Rollout out{Values(rows), PathKl(rows)};
  Values v(rows), vb(rows), control(rows), noise(rows);
  const Philox increments{seed, Stream::noise};
  out.x =
      quantiles(GaussianMixture::isotropic(1, {1}, {0}, 1), rows);  // stratified: no sampling error in X_0
  for (int k = 0; k < chain.steps(); ++k) {
    model.velocity(chain.schedule, rows, out.x.data(), chain.t[k], v.data());
    if (&model == &base)
      vb = v;
    else
      base.velocity(chain.schedule, rows, out.x.data(), chain.t[k], vb.data());
    for (int b = 0; b < rows; ++b) {
      noise[b] = increments.normal(b, k, 0);
      control[b] = chain.std[k] > 0 ? chain.C[k] * (v[b] - vb[b]) / chain.std[k] : 0;
      out.x[b] = chain.A[k] * out.x[b] + chain.C[k] * v[b] + chain.std[k] * noise[b];
    }
    out.kl.add(1, control.data(), noise.data());
  }
  return out;
}

// W1 between the sampled terminal law and the data. The notes' values at K = 40 (exact quadrature): 0.023
// Euler-Maruyama with both offsets, 0.009 with the denominator's alone, 0.024 exact step, of the same order
// for the ODE. 60000 samples of a law of standard deviation 1.55 leave a noise of about 1.55/sqrt(60000) =
// 0.006 in W1.
TEST(BaseSampler, TerminalLawMatchesTheDataWithinTheKnownDistance) {
  const MixtureTilt p = problem();
  const int n = 60000;
  const Values truth = quantiles(p.base(), n);
  const auto t = sde::uniform_grid(40);
  const struct {
    const char* what;
    sde::Chain chain;
    double expected;
  } cases[] = {{"em both", sde::euler_maruyama(kLinear, t), 0.023},
               {"em denominator", sde::euler_maruyama(kLinear, t, sde::Offset::denominator), 0.009},
               {"exact", sde::exact_memoryless(kLinear, t), 0.024}};
  for (const auto& c : cases) {
    const double w1 = wasserstein1(rollout(c.chain, p.base(), p.base(), n, 17).x, truth);
    EXPECT_NEAR(w1, c.expected, 0.008) << c.what;
  }
  // Every other noise law converges to the same data.
  const auto fine = sde::uniform_grid(100);
  for (const sde::Chain& chain :
       {sde::euler_maruyama_constant(kLinear, fine, 0.7), sde::euler_ode(kLinear, fine),
        sde::euler_maruyama(kLinear, fine, sde::Offset::denominator, sde::Parametrisation::velocity, 2),
        sde::exact_memoryless({sde::PathFamily::vp_cosine}, fine),
        sde::exact_memoryless({sde::PathFamily::vp_linear}, fine)}) {
    const double w1 = wasserstein1(rollout(chain, p.base(), p.base(), n / 3, 18).x, truth);
    EXPECT_LT(w1, 0.04) << chain.description;  // measured 0.010 to 0.025
  }
}

// The optimal velocity plugged into the chain: tilted law, path KL = KL(p* || p), and weights that are nearly
// constant, G = r - log(p^u/p) = log Z + O(h).
TEST(BaseSampler, OptimalControlIsCertified) {
  const MixtureTilt p = problem();
  const int n = 20000;
  const Values truth = quantiles(p.target(), n);
  double spread[2];
  for (int i = 0; i < 2; ++i) {
    const Rollout r = rollout(sde::exact_memoryless(kLinear, sde::uniform_grid(100 << (2 * i))), p.target(),
                              p.base(), n, 23);
    Values reward(n);
    for (int b = 0; b < n; ++b) reward[b] = p.reward().value(&r.x[b], 1);
    const Values g = r.kl.tilted_log_weights(reward);
    const Estimate mean = mean_estimate(g), log_z = log_z_estimate(g);
    spread[i] = mean.standard_error * std::sqrt(n);
    // The continuous control on a grid of K steps costs 2.4/K more than KL(p* || p), measured at K = 100 and
    // 400.
    const int K = 100 << (2 * i);
    EXPECT_NEAR(r.kl.control_cost().value, p.kl(), 3.0 / K + 4 * r.kl.control_cost().standard_error);
    EXPECT_NEAR(r.kl.girsanov().value, r.kl.control_cost().value, 4 * r.kl.girsanov().standard_error);
    EXPECT_LE(mean.value, log_z.value);
    EXPECT_NEAR(log_z.value, p.log_z(), 0.02);
    EXPECT_GT(effective_sample_size(g), 0.95 * n);
    EXPECT_LT(wasserstein1(r.x, truth), 0.05);
    EXPECT_NEAR(mode_weights(p.target(), r.x)[0], p.target().weights()[0], 0.015);
  }
  EXPECT_LT(spread[1], 0.6 * spread[0]);  // of order sqrt(h): four times the steps, half the spread
}

// The same velocity solves the ODE for the tilted law (Theorem 1).
TEST(BaseSampler, OptimalVelocityConvertsToTheOde) {
  const MixtureTilt p = problem();
  const int n = 20000;
  const Rollout r = rollout(sde::euler_ode(kLinear, sde::uniform_grid(200)), p.target(), p.base(), n, 29);
  EXPECT_LT(wasserstein1(r.x, quantiles(p.target(), n)), 0.03);
}

}  // namespace
}  // namespace costate::finetune
