// Likelihoods of paths that stop: a path has no part in weights, gradients and baselines once it has stopped.
#include <costate/finetune/backpropagation/backpropagation.h>
#include <costate/finetune/problem/control_benchmark.h>
#include <costate/finetune/regression/value_gradient.h>

#include <numbers>

#include "finetune/policy_gradient_support.h"

namespace costate::finetune {
namespace {

using namespace testing;
using Options = PolicyGradientOptions;
using Loss = Options::Loss;

// From -1 by steps of h with the drift of a double well until the path is above 0, at a cost of h a step.
ControlProblem exit_problem(const ControlBenchmark& b) {
  ControlProblem p{.chain = b.chain, .base = b.base, .sample_shape = {1}, .reward = b.reward};
  p.state_cost = b.state_cost, p.running = b.running, p.pathwise = b.pathwise;
  p.initial = [](std::int64_t rows, const sde::NoiseKey&) { return Tensor::full({rows, 1}, -1.0, DType::f32, Device::cpu); };
  return p;
}

// u(x, t_k) of a table: shift_k + slope_k x.
double control(const std::vector<double>& shift, const std::vector<double>& slope, int k, double x) {
  return shift[static_cast<std::size_t>(k)] + slope[static_cast<std::size_t>(k)] * x;
}

// E over paths from -1 by steps of the drift plus `push`, until they are above 0 or K are taken: with `weight` e^{-h} of every
// step the product over the steps taken, else the sum of `cost` over them. Backwards, by the midpoint rule on 800 cells of
// [-4, 0) and the exact chance to be above 0: errors far below the standard errors here.
double expectation(int steps, double push, double weight, double cost) {
  const double h = 1.0 / steps, s = std::sqrt(h), width = 0.005;
  constexpr std::size_t cells = 800;
  const auto centre = [&](std::size_t i) { return -4 + (static_cast<double>(i) + 0.5) * width; };
  const auto moved = [&](double x) { return x + h * (-4 * x * (x * x - 1) + push); };
  std::vector<double> kernel(cells * cells);
  const auto density = [&](double x, std::size_t j) {
    const double e = (centre(j) - moved(x)) / s;
    return width / s * std::exp(-e * e / 2) / std::sqrt(2 * std::numbers::pi);
  };
  for (std::size_t i = 0; i < cells; ++i)
    for (std::size_t j = 0; j < cells; ++j) kernel[i * cells + j] = density(centre(i), j);
  const double end = weight > 0 ? 1 : 0;  // of a path that has stopped
  const auto step = [&](double x, const auto& share, const std::vector<double>& next) {
    double sum = end * 0.5 * std::erfc(-moved(x) / (s * std::sqrt(2.0)));
    for (std::size_t j = 0; j < cells; ++j) sum += share(j) * next[j];
    return weight > 0 ? weight * sum : cost + sum;
  };
  std::vector<double> value(cells, end);
  for (int k = 1; k < steps; ++k) {
    std::vector<double> now(cells);
    for (std::size_t i = 0; i < cells; ++i) now[i] = step(centre(i), [&](std::size_t j) { return kernel[i * cells + j]; }, value);
    value = now;
  }
  return step(-1, [&](std::size_t j) { return density(-1, j); }, value);
}

TEST(Stopping, WeightsOfPathsHaveTheMeanZForEveryControl) {
  // E_u[e^G] = E_u[dP/dP_u e^{-cost}] = E[e^{-cost}] = Z: whatever the control is, and only if likelihoods and costs end where
  // paths do. The controls push out of the well, into it, and both. (Z is not e^{-cost of the best control}: steps of fixed width
  // do not reach it.)
  const ControlBenchmark b = control_benchmark("molecular_dynamics", {40});
  const double z = expectation(40, 0, std::exp(-1.0 / 40), 0);
  EXPECT_GT(z, std::exp(-*b.chain_optimal_cost));
  EXPECT_NEAR(z, std::exp(-*b.chain_optimal_cost), 0.002);
  const ControlProblem problem = exit_problem(b);
  for (const auto& [shift, slope] : {std::pair{0.0, 0.0}, {0.9, 0.0}, {-0.5, 0.6}}) {
    SCOPED_TRACE(shift);
    Options o;
    o.loss = Loss::log_variance, o.batch = 12000, o.seed = 3;
    PolicyGradient pg("test", problem, affine_policy(problem, std::vector<double>(40, shift), std::vector<double>(40, slope)), o);
    const PathBatch batch = pg.sample();
    const auto S = batch.path_score(), L = batch.path_log_ratio();
    double mean = 0, square = 0;
    const auto n = static_cast<double>(S.size());
    std::int64_t stopped = 0;
    for (std::size_t i = 0; i < S.size(); ++i) {
      const double w = std::exp(S[i] - L[i]);
      mean += w / n, square += w * w / n;
      stopped += batch.paths.stopped_at[i] < 40;
    }
    EXPECT_GT(stopped, 240);  // the identity is about something
    EXPECT_NEAR(mean, z, 3 * std::sqrt((square - mean * mean) / n));
  }
}

// Everything again in double precision by loops: states, stops, log weights of the paths of one batch under other parameters.
struct ByHand {
  std::vector<std::vector<double>> x;  // (rows)(steps taken): the states at which a step is taken
  std::vector<std::vector<double>> e;  // its noise
  double h = 0;

  ByHand(const PathBatch& batch, const std::vector<double>& shift, const std::vector<double>& slope) {
    const int steps = batch.steps();
    h = 1.0 / steps;
    for (std::int64_t i = 0; i < batch.rows(); ++i) {
      double at = -1;
      x.emplace_back(), e.emplace_back();
      for (int k = 0; k < steps && at < 0; ++k) {
        const Tensor noise = Tensor::empty({1, 1}, DType::f32, Device::cpu);
        row_noise(batch, k, i, noise);
        x.back().push_back(at), e.back().push_back(noise.to_doubles()[0]);
        at += h * (-4 * at * (at * at - 1) + control(shift, slope, k, at)) + std::sqrt(h) * e.back().back();
      }
    }
  }
  // -cost - log p_theta/p of row i: log p_theta/p_u = sum d e - d^2/2 with d = sqrt(h) (u_theta - u), on the path as it is.
  double G(std::size_t i, const std::vector<double>& shift, const std::vector<double>& slope, const std::vector<double>& made_shift,
           const std::vector<double>& made_slope) const {
    double g = -h * static_cast<double>(x[i].size());
    for (std::size_t k = 0; k < x[i].size(); ++k) {
      const auto step = static_cast<int>(k);
      const double u = std::sqrt(h) * control(made_shift, made_slope, step, x[i][k]);
      const double d = std::sqrt(h) * control(shift, slope, step, x[i][k]) - u;
      g -= u * e[i][k] + u * u / 2 + d * e[i][k] - d * d / 2;
    }
    return g;
  }
};

TEST(Stopping, LogVarianceIsItsDefinitionByFiniteDifferences) {
  // 24 coordinates (12 shifts, 12 slopes), 300 paths, about half of which stop: the gradient against central differences of
  // Var(G) on the same paths. f32 rounding of the surrogate leaves 1e-5 of the largest coordinate.
  constexpr int steps = 12;
  const ControlBenchmark b = control_benchmark("molecular_dynamics", {steps});
  const ControlProblem problem = exit_problem(b);
  std::vector<double> shift(steps), slope(steps);
  for (int k = 0; k < steps; ++k) shift[k] = 1.2 + 0.1 * k, slope[k] = 0.5 - 0.05 * k;
  Options o;
  o.loss = Loss::log_variance, o.batch = 300, o.seed = 11;
  PolicyGradient pg("test", problem, affine_policy(problem, shift, slope), o);
  const PathBatch batch = pg.sample();
  const ByHand paths(batch, shift, slope);
  std::int64_t stopped = 0;
  for (std::size_t i = 0; i < 300; ++i) {
    ASSERT_EQ(batch.paths.stopped_at[i], static_cast<int>(paths.x[i].size())) << i;
    for (std::size_t k = 0; k < paths.x[i].size(); ++k)
      ASSERT_NEAR(batch.paths.states[k].values<float>()[i], paths.x[i][k], 1e-5);
    stopped += batch.paths.stopped_at[i] < steps;
  }
  ASSERT_GT(stopped, 60);
  ASSERT_LT(stopped, 300);
  const auto loss = [&](const std::vector<double>& s, const std::vector<double>& l) {
    double mean = 0, square = 0;
    for (std::size_t i = 0; i < 300; ++i) {
      const double g = paths.G(i, s, l, shift, slope);
      mean += g / 300, square += g * g / 300;
    }
    return (square - mean * mean) * 300 / 299;
  };
  const Gradients g = pg.gradient(batch);
  EXPECT_NEAR(g.loss, loss(shift, slope), 1e-5 * std::abs(g.loss));
  const auto analytic = flat(g);
  double largest = 0;
  for (const double v : analytic) largest = std::max(largest, std::abs(v));
  constexpr double eps = 1e-4;
  for (std::size_t j = 0; j < 2 * steps; ++j) {
    auto up_shift = shift, up_slope = slope, down_shift = shift, down_slope = slope;
    (j < steps ? up_shift : up_slope)[j % steps] += eps, (j < steps ? down_shift : down_slope)[j % steps] -= eps;
    EXPECT_NEAR(analytic[j], (loss(up_shift, up_slope) - loss(down_shift, down_slope)) / (2 * eps), 3e-5 * largest) << j;
  }
}

// The loss of paths after the policy has moved sees the steps that paths take, and no others.
TEST(Stopping, LikelihoodsSinceThePathsWereMade) {
  constexpr int steps = 12;
  const ControlBenchmark b = control_benchmark("molecular_dynamics", {steps});
  const ControlProblem problem = exit_problem(b);
  const std::vector<double> shift(steps, 1.5), slope(steps, 0.2), other(steps, 0.7), flat_slope(steps, -0.3);
  PathBatch batch = collect(field_of(nn::Network(affine_policy(problem, shift, slope))), problem, {.rows = 200}, {5});
  const ByHand paths(batch, shift, slope);
  std::vector<std::int32_t> all(200);
  for (int i = 0; i < 200; ++i) all[i] = i;
  const auto since = path_log_ratio_since(field_of(nn::Network(affine_policy(problem, other, flat_slope))), problem, batch, all);
  for (std::size_t i = 0; i < 200; ++i)
    EXPECT_NEAR(since[i], paths.G(i, shift, slope, shift, slope) - paths.G(i, other, flat_slope, shift, slope), 2e-4) << i;
}

// d/d push of the expected cost E[h tau + sum h push^2/2], a central difference of the backward recursion, against the mean
// gradient of the policy gradients, with the baselines whose means over paths the stopped ones could enter.
TEST(Stopping, PolicyGradientsAreDerivativesOfTheExpectedCost) {
  constexpr int steps = 20;
  const double h = 1.0 / steps, push = 0.8, eps = 1e-2;
  const auto cost = [&](double u) { return expectation(steps, u, 0, h + h * u * u / 2); };
  const double exact = (cost(push + eps) - cost(push - eps)) / (2 * eps);
  const ControlProblem problem = exit_problem(control_benchmark("molecular_dynamics", {steps}));
  struct Case {
    const char* name;
    Baseline baseline;
    Options::Divergence divergence;
  };
  for (const Case& c : {Case{"batch", Baseline::batch, Options::Divergence::in_return_and_loss},
                        Case{"return alone", Baseline::batch, Options::Divergence::in_return},
                        Case{"groups", Baseline::group, Options::Divergence::in_return},
                        Case{"value", Baseline::value, Options::Divergence::in_return}}) {
    SCOPED_TRACE(c.name);
    Options o;
    o.loss = Loss::score_function, o.advantage.baseline = c.baseline, o.divergence = c.divergence, o.batch = 512;
    if (c.baseline == Baseline::group) o.advantage.group_size = 4;  // some steps are taken by one of a group alone
    const Columns g = gradients(problem, affine_policy(problem, std::vector<double>(steps, push)), o, 40);
    Columns total;  // the shifts move together
    for (const auto& row : g.rows) {
      double s = 0;
      for (const double v : row) s += v;
      total.rows.push_back({s});
    }
    EXPECT_NEAR(total.mean(0), exact, 3 * total.error(0));
    EXPECT_LT(total.error(0), 0.04 * std::abs(exact));
  }
}

TEST(Stopping, AStoppedPathIsAtItsEndForTheCritic) {
  // Temporal differences: where a path stops at k + 1, the value there is its reward (0 here), so that the advantages of a path
  // add up to its return less V(x_0).
  constexpr int steps = 12;
  const ControlBenchmark b = control_benchmark("molecular_dynamics", {steps});
  const ControlProblem problem = exit_problem(b);
  Options o;
  o.loss = Loss::score_function, o.advantage.baseline = Baseline::td, o.divergence = Options::Divergence::in_return, o.batch = 100;
  PolicyGradient pg("test", problem, affine_policy(problem, std::vector<double>(steps, 1.5)), o);
  for (int i = 0; i < 3; ++i) pg.step();  // a critic that says something
  const PathBatch batch = pg.sample();
  std::int64_t stopped = 0;
  for (std::size_t i = 0; i < 100; ++i) {
    double sum = 0;
    for (int k = 0; k < steps; ++k) {
      sum += batch.coefficient[k][i];
      if (!batch.takes(k, i)) {
        EXPECT_EQ(batch.coefficient[k][i], 0);
        EXPECT_EQ(batch.values[k][i], 0);
      }
    }
    stopped += batch.paths.stopped_at[i] < steps;
    EXPECT_NEAR(sum, batch.returns[0][i] - batch.values[0][i], 1e-9);
  }
  EXPECT_GT(stopped, 10);
}

TEST(Stopping, AStoppedPathHasNoPartInGradients) {
  // What the states and predictions hold behind the stop, here NaN, is looked at by no objective.
  constexpr int steps = 12;
  const ControlBenchmark b = control_benchmark("molecular_dynamics", {steps});
  const ControlProblem problem = exit_problem(b);
  for (const Loss loss : {Loss::score_function, Loss::clipped_ratio, Loss::log_variance, Loss::cross_entropy}) {
    Options o;
    o.loss = loss, o.batch = 64, o.divergence = Options::Divergence::in_return;
    PolicyGradient pg("test", problem, affine_policy(problem, std::vector<double>(steps, 1.5)), o);
    PathBatch batch = pg.sample();
    const auto clean = flat(pg.gradient(batch));
    std::int64_t poisoned = 0;
    for (int k = 0; k < steps; ++k)
      for (std::int64_t i = 0; i < 64; ++i)
        if (!batch.paths.active(k, i)) {
          for (Tensor* t : {&batch.paths.states[k], &batch.paths.predictions[k], &batch.paths.base_predictions[k]})
            t->mutate<float>()[static_cast<std::size_t>(i)] = NAN;
          ++poisoned;
        }
    EXPECT_GT(poisoned, 30);
    EXPECT_EQ(flat(pg.gradient(batch)), clean);
    for (const double g : clean) EXPECT_TRUE(std::isfinite(g));
  }
}

TEST(Stopping, ObjectivesThatFollowPathsRefuse) {
  ControlProblem problem = exit_problem(control_benchmark("molecular_dynamics", {12}));
  const nn::Network policy(affine_policy(problem, std::vector<double>(12, 0.0)));
  const auto refused = [&](const auto& make, const char* words) {
    try {
      make();
      ADD_FAILURE() << words;
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::argument);
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
  };
  for (const char* words : {"jumps where a path stops", "follows all of them to the last step"}) {
    refused([&] { ValueGradientRegression(problem, policy, {}); }, words);
    refused([&] { Backpropagation(problem, policy, {}); }, words);
    problem.pathwise = true;  // a cost that does not jump: still nobody stops
  }
  Options o;
  o.window.kind = WindowOptions::Kind::segments, o.window.count = 2, o.window.siblings = true, o.advantage.group_size = 2;
  problem.initial = {};
  refused([&] { PolicyGradient("test", problem, policy, o); }, "a path that stops");
}

}  // namespace
}  // namespace costate::finetune
