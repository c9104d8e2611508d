// Gradients of reward backpropagation on chains where every one of them is known:
//   x_{k+1} = .9 x_k + theta_k + .3 e_k,  T = 10,  x_0 ~ N(0, 1),  r(x) = -(x - 1.5)^2/2,  theta_k = .05:
//   dJ/dtheta_k = (1.5 - E x_T) .9^{9-k},  E x_T = .05 (1 - .9^10)/.1,  and of one path (1.5 - x_T) .9^{9-k}.
#include <costate/nn/init.h>
#include <costate/nn/mlp.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "backpropagation_support.h"

namespace costate::finetune {
namespace {

using testing::affine_steps;
using testing::mean;
using testing::numbers;
using testing::plain_options;
using Truncation = BackpropagationOptions::Truncation;

constexpr int kSteps = 10;
constexpr double kTarget = 1.5;

Reward distance() { return quadratic_reward({kTarget}, {1.0}); }

// J_k = A + fixed = .9 whatever `fixed` is.
Backpropagation objective(const BackpropagationOptions& o, double fixed = 0, Reward reward = distance(), double std = .3) {
  const nn::Network net(affine_steps(kSteps, .05, fixed));
  return {testing::scalar_problem(testing::constant_chain(kSteps, .9 - fixed, 1, std), net, std::move(reward)), net, o};
}
std::vector<double> raised(const Backpropagation& b, BackpropagationMetrics* metrics = nullptr) {  // dJ/dtheta
  BackpropagationMetrics m;
  std::vector<double> g = numbers(b.gradient(metrics ? *metrics : m).parameters);
  for (double& v : g) v = -v;
  return g;
}
// The ends of the paths that the objective draws in its first iteration.
std::vector<double> ends(const Backpropagation& b, std::int64_t rows, double fixed = 0) {
  const ControlProblem p = testing::scalar_problem(testing::constant_chain(kSteps, .9 - fixed, 1, .3), b.network(), distance());
  return simulate(field_of(b.network()), p, rows, {7, 0}, {.base_predictions = false}).terminal().to_doubles();
}

TEST(Backpropagation, ThePathwiseGradientOfAGaussianChain) {
  constexpr std::int64_t batch = 20000;
  const Backpropagation b = objective(plain_options(batch));
  BackpropagationMetrics m;
  const std::vector<double> g = raised(b, &m);
  const double expected[] = {.45496, .62409, .85609, 1.17434};
  const int at[] = {0, 3, 6, 9};
  // One path has standard deviation .733 .9^{9-k}, .28 to .73: that of x_T.
  const double sd = std::sqrt(std::pow(.9, 20) + .09 * (1 - std::pow(.9, 20)) / .19);
  for (int i = 0; i < 4; ++i) {
    const double decay = std::pow(.9, 9 - at[i]);
    EXPECT_NEAR(g[at[i]], expected[i], 3 * sd * decay / std::sqrt(batch)) << at[i];
  }
  // And with the paths themselves, to rounding in f32.
  const std::vector<double> x = ends(b, batch);
  for (int k = 0; k < kSteps; ++k) EXPECT_NEAR(g[k], (kTarget - mean(x)) * std::pow(.9, 9 - k), 2e-5) << k;
  EXPECT_TRUE(std::isnan(m.control_cost));
  EXPECT_NEAR(m.loss, -m.reward, 1e-12);
}

TEST(Backpropagation, TheSpreadOfOnePath) {
  // The mean of 64 paths has an eighth of the deviation of one; 150 of them estimate it to 6 %.
  std::vector<double> first, last;
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    BackpropagationOptions o = plain_options(64);
    o.seed = seed;
    const std::vector<double> g = raised(objective(o));
    first.push_back(g.front()), last.push_back(g.back());
  }
  const auto deviation = [](const std::vector<double>& v) {
    double s = 0;
    for (const double e : v) s += (e - mean(v)) * (e - mean(v));
    return 8 * std::sqrt(s / static_cast<double>(v.size() - 1));
  };
  EXPECT_NEAR(deviation(first), .284, 3 * .06 * .284);
  EXPECT_NEAR(deviation(last), .733, 3 * .06 * .733);
}

TEST(Backpropagation, CheckpointedGradientsHaveTheBitsOfStoredOnes) {
  BackpropagationOptions o = plain_options(300);
  o.kl_weight = 1;
  const auto bits = [&](sde::AdjointMethod method, std::int64_t micro_batch) {
    o.adjoint.method = method, o.micro_batch = micro_batch;
    BackpropagationMetrics m;
    std::vector<double> g = raised(objective(o, .4), &m);
    g.push_back(m.loss);
    return g;
  };
  for (const std::int64_t micro_batch : {0, 100}) {
    const std::vector<double> stored = bits(sde::AdjointMethod::store_all, micro_batch);
    for (const sde::AdjointMethod m : sde::adjoint_methods())
      if (sde::bitwise_exact(m)) {
        EXPECT_EQ(bits(m, micro_batch), stored) << sde::name(m);
      }
  }
  o.adjoint.method = sde::AdjointMethod::store_all;
  for (const int last : {0, 4}) {
    if (last) o.truncation = Truncation::last, o.last_steps = last;
    o.keep_activations = false, o.micro_batch = 0;
    BackpropagationMetrics m;
    const std::vector<double> again = raised(objective(o, .4), &m);
    o.keep_activations = true;
    EXPECT_EQ(raised(objective(o, .4), &m), again) << last;
  }
  o.keep_activations = false, o.truncation = Truncation::full;
  o.kl_weight = 0;  // tangents are carried without running costs
  const std::vector<double> stored = bits(sde::AdjointMethod::store_all, 0), pushed = bits(sde::AdjointMethod::forward, 0);
  for (std::size_t i = 0; i < stored.size(); ++i) EXPECT_NEAR(pushed[i], stored[i], 1e-5) << i;
}

TEST(Backpropagation, TheLastStepsAlone) {
  for (const int last : {1, 4, kSteps}) {
    BackpropagationOptions o = plain_options(128);
    const std::vector<double> whole = raised(objective(o, .4));
    o.truncation = Truncation::last, o.last_steps = last;
    const std::vector<double> g = raised(objective(o, .4));
    for (int k = 0; k < kSteps; ++k) EXPECT_EQ(g[k], k < kSteps - last ? 0.0 : whole[k]) << last << " " << k;
  }
}

TEST(Backpropagation, DetachedInputsPassThroughTheSamplerAlone) {
  BackpropagationOptions o = plain_options(128);
  o.detached_inputs = true;
  const Backpropagation all = objective(o, .4);
  const double gap = kTarget - mean(ends(all, 128, .4));
  const std::vector<double> g = raised(all);
  for (int k = 0; k < kSteps; ++k) EXPECT_NEAR(g[k], gap * std::pow(.5, 9 - k), 1e-5) << k;
  // Three equally spaced steps, at an offset that changes from iteration to iteration.
  o.trained_steps = 3;
  const Backpropagation some = objective(o, .4);
  const DifferentiatedPath path = some.draw(0);
  const std::vector<double> h = raised(some);
  for (int k = 0; k < kSteps; ++k) EXPECT_NEAR(h[k], path.trains(k) ? g[k] : 0.0, 1e-7) << k;
  std::vector<int> seen(kSteps);
  for (int n = 0; n < 200; ++n) {
    const DifferentiatedPath p = some.draw(n);
    EXPECT_EQ(std::count(p.trained.begin(), p.trained.end(), true), 3);
    for (int k = 0; k < kSteps; ++k) seen[k] += p.trains(k);
  }
  for (int k = 0; k < kSteps; ++k) EXPECT_NEAR(seen[k] / 200.0, .3, 3 * std::sqrt(.21 / 200)) << k;
}

// Costs f_k = s x_k of the states on the way, which pass through the sampler alone as well, in steps that are not trained too:
// dJ/dtheta_k = (1.5 - E x_T) .5^{9-k} - s sum_{k<j<T} .5^{j-1-k}.
TEST(Backpropagation, DetachedInputsKeepTheCostsOfStates) {
  constexpr double slope = .7;
  BackpropagationOptions o = plain_options(128);
  o.detached_inputs = true;
  for (const int trained : {0, 3}) {
    o.trained_steps = trained;
    const nn::Network net(affine_steps(kSteps, .05, .4));
    ControlProblem problem = testing::scalar_problem(testing::constant_chain(kSteps, .5, 1, .3), net, distance());
    problem.state_cost = [](int, const Var& x) { return reshape(affine(x, slope, 0.0), {x.extent(0)}); };
    const Backpropagation b(problem, net, o);
    const double gap = kTarget - mean(ends(b, 128, .4));
    const DifferentiatedPath path = b.draw(0);
    const std::vector<double> g = raised(b);
    for (int k = 0; k < kSteps; ++k) {
      const double below = std::pow(.5, 9 - k);
      EXPECT_NEAR(g[k], path.trains(k) ? gap * below - slope * (1 - below) / .5 : 0.0, 2e-5) << trained << " " << k;
    }
  }
}

TEST(Backpropagation, ARandomNumberOfStepsWeighsThemByItsDistribution) {
  BackpropagationOptions o = plain_options(64);
  const std::vector<double> whole = raised(objective(o));
  o.truncation = Truncation::uniform;
  const Backpropagation b = objective(o);
  // Term k has a part in an iteration when K0 <= k: with probability (k + 1)/10.
  std::vector<double> share(kSteps);
  constexpr int draws = 2000;
  for (int n = 0; n < draws; ++n)
    for (int k = b.draw(n).first; k < kSteps; ++k) share[k] += 1.0 / draws;
  for (int k = 0; k < kSteps; ++k)
    EXPECT_NEAR(share[k], (k + 1) / 10.0, 3 * .5 / std::sqrt(draws)) << k;
  const int first = b.draw(0).first;
  const std::vector<double> g = raised(b);
  for (int k = 0; k < kSteps; ++k) EXPECT_EQ(g[k], k < first ? 0.0 : whole[k]) << k;
  // N(.84, .1^2) of ten steps: 8.4 +- 1, rounded and kept within them.
  o.truncation = Truncation::normal;
  const Backpropagation normal = objective(o);
  double sum = 0;
  for (int n = 0; n < draws; ++n) {
    const int f = normal.draw(n).first;
    ASSERT_TRUE(f >= 0 && f < kSteps);
    sum += f;
  }
  // The mean of the rounded numbers, from the normal distribution.
  double expected = 0;
  const auto cdf = [](double x) { return .5 * std::erfc(-x / std::sqrt(2.0)); };
  for (int f = 0; f < kSteps; ++f)
    expected += f * ((f == kSteps - 1 ? 1.0 : cdf(f + .5 - 8.4)) - (f == 0 ? 0.0 : cdf(f - .5 - 8.4)));
  EXPECT_NEAR(sum / draws, expected, 3 * .9 / std::sqrt(draws));
}

// One step, and the reward at the estimate of x_1 = x + (1 - t) v: theta_j acts as (1 - t_j) (target - x1hat).
TEST(Backpropagation, AStopTakesTheRewardAtTheEstimate) {
  BackpropagationOptions o = plain_options(256);
  o.truncation = Truncation::last, o.stop_from = .6, o.stop_to = 1;
  const Backpropagation b = objective(o);
  const DifferentiatedPath path = b.draw(0);
  const int j = path.last() - 1;
  ASSERT_TRUE(path.stopped && j >= 6 && j < kSteps);
  const ControlProblem p = testing::scalar_problem(testing::constant_chain(kSteps, .9, 1, .3), b.network(), distance());
  const std::vector<double> x =
      simulate(field_of(b.network()), p, 256, {7, 0}, {.base_predictions = false}).states[j].to_doubles();
  const double remaining = 1 - j / 10.0, estimate = mean(x) + remaining * .05;
  BackpropagationMetrics m;
  const std::vector<double> g = raised(b, &m);
  for (int k = 0; k < kSteps; ++k) EXPECT_NEAR(g[k], k == j ? remaining * (kTarget - estimate) : 0.0, 1e-5) << k;
  std::vector<int> seen(kSteps);
  for (int n = 0; n < 400; ++n) ++seen[b.draw(n).last() - 1];
  for (int k = 0; k < kSteps; ++k) EXPECT_NEAR(seen[k], k < 6 ? 0 : 100, k < 6 ? 0 : 3 * std::sqrt(75.0)) << k;
}

TEST(Backpropagation, ReNoisedSamplesAverageTheLastStep) {
  // On the linear path the last level of ten steps is t = .9: x' = .9 x_T + .1 e, and then the last step.
  BackpropagationOptions o = plain_options(4000);
  o.truncation = Truncation::last;
  const Backpropagation one = objective(o);
  const double x_mean = mean(ends(one, 4000)), single = raised(one).back();
  o.renoisings = 2;
  BackpropagationMetrics m;
  const std::vector<double> g = raised(objective(o), &m);
  const double again = kTarget - (.9 * (.9 * x_mean) + .05);
  // Only the noises of the last two levels are left: .1 .9 and .3 in deviation, two of 4000 rows, of which two thirds count.
  EXPECT_NEAR(g.back(), single / 3 + 2 * again / 3, 3 * (2.0 / 3) * std::hypot(.09, .3) / std::sqrt(8000));
  for (int k = 0; k + 1 < kSteps; ++k) EXPECT_EQ(g[k], 0.0) << k;
}

TEST(Backpropagation, ReNoisingKeepsTheMeanOfTheSamplersOwnLaw) {
  // Where the noised end has the law of the sampler's x_{K-1} the average has the mean of the last step's own gradient:
  // N(0, 1) at every level of a variance-preserving path, with a chain and a network that keep it.
  sde::Chain chain = testing::constant_chain(kSteps, .9, 1, std::sqrt(1 - .81));
  chain.schedule.family = sde::PathFamily::vp_cosine;
  const nn::Network net(affine_steps(kSteps, 0));
  BackpropagationOptions o = plain_options(20000);
  o.truncation = Truncation::last;
  const auto last = [&](int renoisings) {
    o.renoisings = renoisings;
    const Backpropagation b(testing::scalar_problem(chain, net, distance()), net, o);
    return raised(b).back();
  };
  // dJ/dtheta = 1.5 - E x = 1.5 with sd 1; re-noised ends are correlated with the first, which can only widen by less than 2.
  EXPECT_NEAR(last(0), 1.5, 3 / std::sqrt(20000.));
  EXPECT_NEAR(last(3), 1.5, 3 / std::sqrt(20000.));
}

TEST(Backpropagation, LossesOfTheReward) {
  BackpropagationOptions o = plain_options(64);
  const std::vector<double> x = ends(objective(o), 64);
  const auto gradient_at_the_end = [&](double sign_of(double r)) {
    double s = 0;
    for (const double e : x) s += sign_of(-(e - kTarget) * (e - kTarget) / 2) * (kTarget - e);
    return s / 64;
  };
  o.loss = {TerminalLoss::hinge, -.5, 0};
  BackpropagationMetrics m;
  EXPECT_NEAR(raised(objective(o), &m).back(), gradient_at_the_end([](double r) { return r < -.5 ? 1.0 : 0.0; }), 1e-5);
  double hinge = 0;
  for (const double e : x) hinge += std::max(-.5 + (e - kTarget) * (e - kTarget) / 2, 0.0) / 64;
  EXPECT_NEAR(m.loss, hinge, 1e-5);
  o.loss = {TerminalLoss::absolute, 0, -.2};
  EXPECT_NEAR(raised(objective(o)).back(), gradient_at_the_end([](double r) { return r < -.2 ? 1.0 : -1.0; }), 1e-5);
  EXPECT_THROW(terminal_loss("hinges"), Error);
}

// Rows without a valid reward have no part in the loss, nor in the penalties of their paths.
TEST(Backpropagation, FailedRewardsTakeTheirPathsOut) {
  constexpr std::int64_t rows = 80, kept = 50;  // the last thirty fail
  const nn::Network tuned(affine_steps(kSteps, .05, .4)), base(affine_steps(kSteps, 0, .3));
  const DifferentiatedPath path{.chain = testing::constant_chain(kSteps, .5, 1, .3)};
  const PathCost cost{[](int, const Var& x) { return affine(sum(square(x), 1), .1, 0.0); }, .01, field_of(base), .02};
  const auto run = [&](std::int64_t count, std::int64_t alive_rows) {
    Tensor alive;
    std::vector<double> state_cost(static_cast<std::size_t>(count));
    const sde::Process process = batch_process(count, 0, [&](std::int64_t first, std::int64_t n) {
      return path_process(
          parametric_field_of(tuned), path, {}, {3, static_cast<std::uint64_t>(first)}, cost,
          [&alive, first, n] { return alive.defined() ? alive.slice(first, n) : Tensor(); }, &state_cost[first]);
    });
    const auto terminal = [&](const Tensor& x) {
      Reward::Scores scores = distance().scores(x, true);
      if (alive_rows < count) {
        scores.valid.assign(static_cast<std::size_t>(count), 1);
        for (std::int64_t i = alive_rows; i < count; ++i) {
          scores.valid[static_cast<std::size_t>(i)] = 0;
          scores.value.mutate<float>()[static_cast<std::size_t>(i)] =
              scores.gradient.mutate<float>()[static_cast<std::size_t>(i)] = NAN;
        }
      }
      const Terminal end = end_of_paths(scores, {}, 1, .01);
      EXPECT_EQ(end.rows, alive_rows);
      EXPECT_EQ(end.failed, count - alive_rows);
      alive = end.alive;
      return end.costate;
    };
    const sde::Gradient g = sde::gradient(process, sde::initial_noise({1}, count, {3, 0}), terminal);
    std::vector<double> out = numbers(g.parameters);
    out.push_back(g.running_cost);
    return out;
  };
  const std::vector<double> all = run(kept, kept), some = run(rows, kept);
  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_NEAR(some[i], all[i], 1e-6 * std::abs(all[i])) << i;
}

TEST(Backpropagation, OnePathIsEnoughAndNoneIsAnError) {
  Backpropagation one = objective(plain_options(1));
  EXPECT_TRUE(std::isfinite(one.step()["reward"]));
  Reward none = distance();
  none.value = [](const Var& x) { return affine(sum(x, 1), NAN, 0.0); };
  none.on_failure = Reward::Policy::skip;
  Backpropagation b = objective(plain_options(1), 0, none);
  try {
    b.step();
    ADD_FAILURE() << "no reward and no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::numerical);
    EXPECT_NE(std::string(e.what()).find("not one of 1 rewards"), std::string::npos) << e.what();
  }
}

TEST(Backpropagation, ContradictionsAreRefusedInWords) {
  const auto refused = [](auto change, const char* words) {
    BackpropagationOptions o = plain_options(8);
    change(o);
    try {
      objective(o);
      ADD_FAILURE() << words;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
  };
  using O = BackpropagationOptions;
  refused([](O& o) { o.batch = 0; }, "batch 0");
  refused([](O& o) { o.truncation = Truncation::last, o.last_steps = 11; }, "last_steps is 11; the chain has 10");
  refused([](O& o) { o.stop_from = .9, o.stop_to = .5; }, "expected 0 <= stop_from < stop_to");
  refused([](O& o) { o.stop_from = .5; }, "which is no stop");
  refused([](O& o) { o.stop_from = .91, o.stop_to = .95; }, "no step of 10");
  refused([](O& o) { o.renoisings = 2; }, "truncation `last` of one step");
  refused([](O& o) { o.trained_steps = 2; }, "detached inputs");
  refused([](O& o) { o.kl_weight = -1; }, "must not be negative");
  refused([](O& o) { o.kl_weight = 1, o.stop_to = 1; }, "a stop or re-noised samples leave the path");
  refused([](O& o) { o.adjoint.method = sde::AdjointMethod::reversible; }, "cannot be undone");
  refused([](O& o) { o.adjoint.method = sde::AdjointMethod::backsolve; }, "not the discretisation");
  refused([](O& o) { o.keep_activations = true, o.adjoint.method = sde::AdjointMethod::binomial; },
          "is of the adjoint store_all");
  refused([](O& o) { o.adjoint.slots = 3; }, "keeps no chosen number of states");
  Reward black;
  black.name = "a referee";
  black.black_box = [](const Tensor& x) { return Tensor::zeros({x.extent(0)}); };
  EXPECT_THROW(objective(plain_options(8), 0, black), Error);
}

}  // namespace
}  // namespace costate::finetune
