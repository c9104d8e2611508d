// Over-optimisation: a proxy that is the gold reward and a bump at density 1e-4 of the base. Without the
// divergence from the base the gold reward rises and falls; with it, it rises to what the tilted law has.
// examples/overoptimisation draws the curves.
#include <costate/finetune/backpropagation/backpropagation.h>
#include <costate/finetune/evaluate/estimate.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/problem/analytic_field.h>
#include <costate/finetune/problem/control_network.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/finetune/rollout.h>
#include <costate/nn/init.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace costate::finetune {
namespace {

constexpr double kBump[] = {1.82, 1.54};

std::shared_ptr<const GaussianMixture> modes() {
  return std::make_shared<const GaussianMixture>(
      2, std::vector<double>{0.5, 0.3, 0.2}, std::vector<double>{-1.2, -0.6, 1.0, -0.9, 0.3, 1.2},
      std::vector<double>{0.1225, 0, 0, 0.1225, 0.09, 0, 0, 0.09, 0.16, 0, 0, 0.16});
}
Reward gold() { return quadratic_reward({0.5, 0.4}, {2, 2}); }
Reward proxy() { return proxy_reward(gold(), {kBump[0], kBump[1]}, 0.45, 6); }

enum class Method { backpropagation, relative_entropy, adjoint_matching };

struct Curve {
  std::vector<double> gold{}, proxy{}, path_kl{};
  double peak() const { return *std::max_element(gold.begin(), gold.end()); }
  // How far the gold reward was at most below what it had been before.
  double largest_fall() const {
    double before = gold[0], fall = 0;
    for (const double g : gold) before = std::max(before, g), fall = std::max(fall, before - g);
    return fall;
  }
};

// The averaged network every tenth update, on the same 1000 noises.
Curve tuned(Method method, int updates) {
  const sde::Chain chain = sde::exact_memoryless({}, sde::uniform_grid(20));
  const ControlProblem problem{.chain = chain,
                               .base = velocity_field(modes(), chain.schedule),
                               .sample_shape = {2},
                               .reward = proxy()};
  nn::Init init(3);
  const nn::Network network(make_control_network(
      problem.base, {.dim = 2, .hidden = {64, 64}, .activation = Activation::silu, .time_frequencies = 3},
      init));
  std::unique_ptr<Objective> objective;
  LearnerOptions learner;
  learner.lr.peak = 5e-4, learner.ema_decay = 0.9;
  if (method == Method::adjoint_matching) {
    ValueGradientOptions o;
    o.batch = 128, o.learner = learner;
    objective = std::make_unique<ValueGradientRegression>(problem, network, o);
  } else {
    BackpropagationOptions o;
    o.batch = 128, o.learner = learner, o.kl_weight = method == Method::relative_entropy ? 1 : 0;
    objective = std::make_unique<Backpropagation>(problem, network, o);
  }
  Curve curve;
  for (int n = 0; n <= updates; ++n) {
    if (n % 10 == 0) {
      const Trajectories paths = simulate(field_of(objective->average()), problem, 1000, {77, 0});
      curve.gold.push_back(mean_estimate(gold()(paths.terminal()).to_doubles()).value);
      curve.proxy.push_back(mean_estimate(proxy()(paths.terminal()).to_doubles()).value);
      curve.path_kl.push_back(mean_estimate(step_likelihoods(problem, paths).path_cost()).value);
    }
    if (n < updates) objective->step();
  }
  return curve;
}

// E gold under p exp(lambda proxy)/Z, by sums over a fine grid: both laws are negligible at its borders.
double tilted_gold(double lambda) {
  std::vector<double> x;
  for (double u = -4; u <= 4; u += 0.04)
    for (double v = -4; v <= 4; v += 0.04) x.push_back(u), x.push_back(v);
  const auto rows = static_cast<std::int64_t>(x.size() / 2);
  std::vector<double> log_density(x.size() / 2);
  modes()->log_density(rows, x.data(), log_density.data());
  const Tensor at = Tensor::from(x, {rows, 2});
  const auto g = gold()(at).to_doubles(), p = proxy()(at).to_doubles();
  double z = 0, sum = 0;
  for (std::size_t i = 0; i < g.size(); ++i) {
    const double w = std::exp(log_density[i] + lambda * p[i]);
    z += w, sum += w * g[i];
  }
  return sum / z;
}

TEST(Overoptimisation, TheBumpLiesWhereTheBaseHardlyIs) {
  double log_density = 0;
  modes()->log_density(1, kBump, &log_density);
  EXPECT_NEAR(std::exp(log_density), 1e-4, 5e-6);
  // At this temperature the tilted law leaves the bump alone, and four times colder it does not.
  EXPECT_GT(tilted_gold(1), tilted_gold(0) + 1);
  EXPECT_LT(tilted_gold(4), tilted_gold(1) - 0.5);
}

TEST(Overoptimisation, WithoutADivergenceTheGoldRewardRisesAndFalls) {
  const Curve c = tuned(Method::backpropagation, 90);
  EXPECT_GT(c.peak(), c.gold.front() + 0.8);
  EXPECT_LT(c.gold.back(), c.peak() - 0.8);
  for (std::size_t i = 1; i < c.proxy.size(); ++i)
    EXPECT_GT(c.proxy[i], c.proxy[i - 1]) << i;  // what is trained rises on
  EXPECT_GT(c.path_kl.back(), 10);
}

// What the averaged networks of two neighbouring rows differ by without a trend is below .1, an eighth of the fall above. The
// last quarter of the way to the tilted law is left after so few updates at a constant rate, and the chain's twenty steps have
// a law of their own.
void expect_rise_to_the_tilted_law(Method method) {
  const Curve c = tuned(method, 140);
  EXPECT_LT(c.largest_fall(), 0.1);
  EXPECT_GT(c.gold.back(), c.gold.front() + 1);
  EXPECT_NEAR(c.gold.back(), tilted_gold(1), 0.25);
  EXPECT_LT(c.path_kl.back(), 1);
}
TEST(Overoptimisation, WithTheDivergenceItRisesToTheTiltedLaws) {
  expect_rise_to_the_tilted_law(Method::relative_entropy);
}
TEST(Overoptimisation, UnderAdjointMatchingItRisesToTheTiltedLaws) {
  expect_rise_to_the_tilted_law(Method::adjoint_matching);
}

}  // namespace
}  // namespace costate::finetune
