// The loop of policy gradients: definitions by finite differences, windows, and what every objective owes (threads,
// plans, bad rewards, words).
#include <costate/sde/grid.h>
#include <costate/tensor/parallel.h>

#include "finetune/policy_gradient_support.h"

namespace costate::finetune {
namespace {

using namespace testing;
using Options = PolicyGradientOptions;
using Loss = Options::Loss;
using Divergence = Options::Divergence;

TEST(PathLosses, GradientsAreThoseOfTheirDefinitionsByFiniteDifferences) {
  // Loss as a function of the policy's table over fixed paths, from its definition, in double precision; central differences
  // with 1e-4. f32 predictions and sums leave 2e-4 of the largest component.
  const int steps = 5;
  ControlProblem problem = plain_chain(steps, 0.8, 0.5, 0.4, quadratic_reward({1.0}, {0.7}));
  problem.state_cost = [](int k, const Var& x) { return affine(sum(square(x), 1), 0.05 * (k + 1), 0.0); };
  problem.reward_multiplier = 1.5;
  const std::vector<double> shift{0.1, -0.2, 0.3, 0.0, 0.2}, slope{-0.1, 0.2, 0.1, -0.2, 0.1};
  Options o;
  o.batch = 64;
  for (const Loss loss : {Loss::cross_entropy, Loss::variance, Loss::log_variance, Loss::moment, Loss::trajectory_balance}) {
    o.loss = loss;
    o.log_z = loss == Loss::moment ? Options::LogZ::learned : Options::LogZ::batch;
    PolicyGradient pg("test", problem, affine_policy(problem, shift, slope), o);
    const PathBatch b = pg.sample();
    const auto gradient = flat(pg.gradient(b));
    const auto n = static_cast<std::size_t>(o.batch);
    // x_k, and z = (x_{k+1} - base mean)/std = u + e.
    std::vector<std::vector<double>> x(steps), z(steps);
    for (int k = 0; k < steps; ++k) {
      x[k] = b.paths.states[k].to_doubles();
      const auto e = sde::step_noise(k, b.paths.states[k], b.paths.key).to_doubles();
      for (std::size_t i = 0; i < n; ++i) z[k].push_back(0.5 / 0.4 * (shift[k] + slope[k] * x[k][i]) + e[i]);
    }
    const auto log_ratio = [&](const std::vector<double>& p) {
      std::vector<double> L(n);
      for (int k = 0; k < steps; ++k)
        for (std::size_t i = 0; i < n; ++i) {
          const double u = 0.5 / 0.4 * (p[k] + p[steps + k] * x[k][i]);
          L[i] += u * z[k][i] - u * u / 2;
        }
      return L;
    };
    std::vector<double> here = shift;
    here.insert(here.end(), slope.begin(), slope.end());
    const std::vector<double> S = b.path_score(), made = log_ratio(here);
    for (std::size_t i = 0; i < n; ++i) EXPECT_NEAR(made[i], b.path_log_ratio()[i], 1e-4);
    std::vector<double> weight(n);
    for (std::size_t i = 0; i < n; ++i) weight[i] = S[i] - made[i];
    const double log_z = log_mean_exp(weight);
    const auto definition = [&](const std::vector<double>& p) {
      const auto L = log_ratio(p);
      double mean = 0, total = 0;
      std::vector<double> v(n);
      for (std::size_t i = 0; i < n; ++i) {
        v[i] = loss == Loss::cross_entropy ? -std::exp(weight[i] - log_z) * L[i]
               : loss == Loss::variance    ? std::exp(S[i] - L[i] - log_z)
                                           : S[i] - L[i];
        mean += v[i] / static_cast<double>(n);
      }
      if (loss == Loss::cross_entropy) return mean;
      const double centre = loss == Loss::moment ? 0 : mean;
      for (const double y : v) total += (y - centre) * (y - centre);
      const double count =
          loss == Loss::variance || loss == Loss::log_variance ? static_cast<double>(n - 1) : static_cast<double>(n);
      return (loss == Loss::trajectory_balance ? 0.5 : 1.0) * total / count;
    };
    double largest = 0;
    for (const double g : gradient) largest = std::max(largest, std::abs(g));
    for (std::size_t j = 0; j < here.size(); ++j) {
      auto up = here, down = here;
      up[j] += 1e-4, down[j] -= 1e-4;
      EXPECT_NEAR(gradient[j], (definition(up) - definition(down)) / 2e-4, 2e-4 * largest)
          << static_cast<int>(loss) << " " << j;
    }
  }
}

TEST(PathLosses, LaterUpdatesSeeThePolicyAsItIs) {
  // A second pass over the same paths: its coefficients come from the log-ratio since. With learning rate 0 the policy has not
  // moved, and a loss of ten epochs is that of one; with a large one it has.
  const ControlProblem problem = plain_chain(4, 0.8, 0.5, 0.4, linear_reward({1.0}));
  const auto loss_after = [&](double lr, int epochs) {
    Options o;
    o.loss = Loss::log_variance, o.epochs = epochs, o.batch = 64, o.learner.lr.peak = lr;
    PolicyGradient pg("test", problem, affine_policy(problem, {0.1, 0.2, 0.3, 0.4}), o);
    return pg.step()["loss"];
  };
  EXPECT_NEAR(loss_after(1e-12, 10), loss_after(1e-12, 1), 1e-5 * loss_after(1e-12, 1));
  EXPECT_LT(loss_after(0.02, 10), 0.9 * loss_after(0.02, 1));
}

TEST(Advantages, WhitenedReturnsAreWhatTheNamesSay) {
  const StepTable returns{{1, 2, 3, 10, 20, 30, 99, 5}};
  const std::vector<std::uint8_t> valid{1, 1, 1, 1, 1, 1, 0, 1};
  const std::vector<std::int32_t> labels{0, 0, 0, 0, 1, 1, 1, 1};
  const StepTable none;
  LabelStatistics statistics(4, 2);
  const auto of = [&](AdvantageOptions o) { return advantages(o, {returns, {0}, valid, labels, none, none}, statistics)[0]; };
  // Group of four: 1, 2, 3, 10 with mean 4; leaving one out makes 4/3 of the distance.
  auto a = of({.baseline = Baseline::group, .group_size = 4});
  EXPECT_DOUBLE_EQ(a[0], (1 - 4) * 4.0 / 3);
  EXPECT_EQ(a[6], 0.0);
  // The rest of the second group: 20, 30, 5.
  EXPECT_DOUBLE_EQ(a[4], 20 - (30 + 5) / 2.0);
  a = of({.baseline = Baseline::group, .whitening = Whitening::set, .group_size = 4});
  EXPECT_NEAR(a[3], (10 - 4) / std::sqrt((9 + 4 + 1 + 36) / 4.0), 1e-6);
  a = of({.baseline = Baseline::group, .whitening = Whitening::batch, .clip = 0.5, .group_size = 4});
  EXPECT_EQ(a[3], 0.5);
  // Without a critic the batch gives the unit and not the middle: each group has its own.
  const auto plain = of({.baseline = Baseline::group, .group_size = 4});
  a = of({.baseline = Baseline::group, .whitening = Whitening::batch, .group_size = 4});
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(a[i] / a[3], plain[i] / plain[3], 1e-12) << i;
  double mean = 0, square = 0;  // of the returns
  for (const std::size_t i : {0, 1, 2, 3, 4, 5, 7}) mean += returns[0][i] / 7, square += returns[0][i] * returns[0][i] / 7;
  EXPECT_NEAR(a[3], plain[3] / std::sqrt(square - mean * mean), 1e-6);
  // The last four returns of label 0, the three of label 1.
  a = of({.baseline = Baseline::label});
  EXPECT_NEAR(a[0], 1 - 4, 1e-12);
  EXPECT_NEAR(a[5], 30 - 55.0 / 3, 1e-12);
  // A set of equal returns has advantage 0.
  const StepTable same{{2, 2}};
  const std::vector<std::uint8_t> both{1, 1};
  EXPECT_EQ(advantages({.baseline = Baseline::group, .whitening = Whitening::set, .group_size = 2},
                       {same, {0}, both, {}, none, none}, statistics)[0],
            (std::vector<double>{0, 0}));
  EXPECT_THROW(of({.baseline = Baseline::batch, .whitening = Whitening::set}), Error);
  EXPECT_THROW(of({.baseline = Baseline::group, .group_size = 3}), Error);
}

TEST(Advantages, TemporalDifferencesAddUpToTheReturn) {
  // Sum of A_k over k = R_0 - V(x_0), whatever the critic says in between.
  Options o;
  o.loss = Loss::clipped_ratio, o.advantage.baseline = Baseline::td, o.divergence = Divergence::in_return, o.batch = 50;
  o.critic.widths = {8};
  ControlProblem problem = plain_chain(6, 0.9, 1.0, 0.3, quadratic_reward({1.5}, {1.0}));
  problem.chain.std[3] = 0;  // a step without noise has no advantage: what it loses is its cost
  problem.state_cost = [](int, const Var& x) { return affine(sum(square(x), 1), 0.1, 0.0); };
  PolicyGradient pg("test", problem, affine_policy(problem, std::vector<double>(6, 0.1)), o);
  const PathBatch b = pg.sample();
  for (std::size_t i = 0; i < 50; ++i) {
    double total = 0;
    for (const int k : b.trained) total += b.coefficient[k][i];
    EXPECT_NEAR(total, b.returns[0][i] - b.values[0][i], 1e-9);
  }
}

// ---------------------------------------------------------------------------------------------- windows

TEST(Window, SchedulesDrawWhereTheySay) {
  WindowOptions w{.kind = WindowOptions::Kind::segments, .iterations = 100, .count = 5};
  for (int n = 0; n < 100; ++n) {
    const int i = draw_first_step(w, 40, n, 3);
    EXPECT_GE(i, n / 20 * 8);
    EXPECT_LT(i, n / 20 * 8 + 8);
  }
  w.kind = WindowOptions::Kind::clusters;
  w.clusters = {{0, 3, 30}, {10, 12, 0}, {20, 20, 70}};
  check_window(w, 40);
  EXPECT_LT(draw_first_step(w, 40, 29, 3), 4);
  EXPECT_EQ(draw_first_step(w, 40, 30, 3), 20);
  EXPECT_EQ(earliest_first_step(w, 40), 0);
  w.clusters[0].iterations = 31;
  EXPECT_THROW(check_window(w, 40), Error);
  // Annealed: uniform at first (mean of the remaining steps 20.5), about `centre` at last.
  w = {.kind = WindowOptions::Kind::annealed, .iterations = 1, .low = 1, .high = 40, .centre = 30, .deviation = 1};
  double first = 0, last = 0;
  for (int seed = 0; seed < 400; ++seed) {
    first += (40 - draw_first_step(w, 40, 0, seed)) / 400.0;
    last += (40 - draw_first_step(w, 40, 1, seed)) / 400.0;
  }
  EXPECT_NEAR(first, 20.5, 3 * 11.5 / 20);
  EXPECT_NEAR(last, 30, 3 * 1.05 / 20);
}

TEST(Window, AComparisonChoosesThePartThatKeepsSamplesWhereNothingIsGained) {
  // A policy that is the base itself gains nothing on average, and what is noised least stays nearest: the last part that
  // can be trained is chosen. The reward is small, so that its noise over 256 probes does not decide.
  ControlProblem problem = plain_chain(8, 1, 1, 1, linear_reward({1e-3}));
  problem.chain = sde::exact_memoryless({}, sde::uniform_grid(8));
  problem.initial = {};
  // The velocity of data N(0, 1) on the linear path, (2 t - 1) x / (t^2 + (1 - t)^2).
  problem.base = [](const Var& x, const Var& t, const Tensor&) {
    const Var s = affine(t, -1.0, 1.0);
    return mul(x, reshape(div(affine(t, 2.0, -1.0), add(square(t), square(s))), {x.extent(0), 1}));
  };
  Options o;
  o.window.kind = WindowOptions::Kind::dynamic, o.window.count = 4, o.window.probes = 256, o.batch = 16;
  PolicyGradient pg("test", problem, affine_policy(problem, std::vector<double>(8, 0.0)), o);
  EXPECT_EQ(pg.step()["first_step"], 6);
}

// ---------------------------------------------------------------------------------------------- the machinery

struct Case {
  const char* name;
  Options options;
};
std::vector<Case> cases() {
  std::vector<Case> list;
  const auto add = [&](const char* name, auto change) {
    Options o;
    o.batch = 96, o.learner.ema_decay = 0.9, o.critic.widths = {8, 8}, o.window.iterations = 3;
    change(o);
    list.push_back({name, o});
  };
  add("score function", [](Options& o) { o.loss = Loss::score_function, o.advantage.whitening = Whitening::batch; });
  add("ratios in minibatches", [](Options& o) {
    o.divergence = Divergence::none, o.epochs = 2, o.minibatches = 3, o.advantage.baseline = Baseline::label, o.train_steps = 5;
  });
  add("clamped, replay, critic", [](Options& o) {
    o.loss = Loss::clamped_ratio, o.divergence = Divergence::in_loss, o.advantage.baseline = Baseline::value;
    o.replay = 2, o.minibatches = 2, o.critic.updates = 3, o.critic.batch = 40;
  });
  add("groups of one x_0", [](Options& o) {
    o.advantage = {.baseline = Baseline::group, .whitening = Whitening::batch, .clip = 5, .group_size = 8};
    o.shared_noise = true, o.divergence = Divergence::in_loss, o.divergence_form = SurrogateOptions::Divergence::prediction;
  });
  add("temporal differences", [](Options& o) {
    o.advantage.baseline = Baseline::td, o.advantage.whitening = Whitening::batch, o.critic.skip = true, o.critic.warmup = 1;
  });
  add("timesteps and resets", [](Options& o) {
    o.advantage.baseline = Baseline::value, o.update = Options::Update::timestep, o.divergence = Divergence::none;
    o.critic.reset = CriticOptions::Reset::active, o.critic.reset_every = 2, o.critic.dropout = 0.1, o.critic.value_clip = 0.2;
    o.minibatches = 2;
  });
  add("windows of siblings", [](Options& o) {
    o.advantage = {.baseline = Baseline::group, .whitening = Whitening::set, .group_size = 4};
    o.window.kind = WindowOptions::Kind::clusters, o.window.siblings = true;
    o.window.clusters = {{4, 4, 1}, {0, 0, 2}};
  });
  add("dynamic windows", [](Options& o) {
    o.window.kind = WindowOptions::Kind::dynamic, o.window.count = 1, o.window.every = 2;
  });
  add("cross entropy", [](Options& o) { o.loss = Loss::cross_entropy, o.log_z = Options::LogZ::running; });
  add("log variance of groups", [](Options& o) {
    o.loss = Loss::log_variance, o.advantage.group_size = 4, o.shared_noise = true, o.epochs = 2;
  });
  add("trajectory balance", [](Options& o) {
    o.loss = Loss::trajectory_balance, o.log_z = Options::LogZ::learned, o.noise_scale = 1.2, o.minibatches = 2, o.replay = 2;
  });
  return list;
}
PolicyGradient small_trainer(const Case& c, Device device = Device::cpu) {
  nn::Init init(3, DType::f32, device);
  nn::MlpOptions mlp;
  mlp.hidden = 24, mlp.depth = 2, mlp.time_frequencies = 3, mlp.classes = 3;
  nn::VelocityMlp network = nn::make_velocity_mlp(mlp, init);
  network.output = nn::make_linear(init, 24, 2);
  Reward reward{.name = "black", .black_box = [](const Tensor& x) {
                  return sum(square(affine(Var(x), 1.0, -0.5)), 1).value();
                }};
  ControlProblem problem{.chain = sde::exact_memoryless({}, sde::uniform_grid(9)),
                         .base = field_of(network),
                         .sample_shape = {2},
                         .reward = reward,
                         .labels = {0, 2},
                         .device = device};
  return PolicyGradient(c.name, problem, nn::clone(nn::Network(network)), c.options);
}

// 96 paths of two labels: each has some 48 returns, which is enough for a mean of its own or, where more are asked for, is not.
TEST(PolicyGradientLoop, LabelsHaveAMeanOfTheirOwnFromTheMinimumOn) {
  const auto gradient_with = [](std::int64_t minimum) {
    Options o;
    o.batch = 96, o.advantage.baseline = Baseline::label, o.label_buffer = 96, o.label_minimum = minimum;
    PolicyGradient pg = small_trainer({"labels", o});
    return flat(pg.gradient(pg.sample()));
  };
  const std::vector<double> enough = gradient_with(1);
  EXPECT_EQ(gradient_with(20), enough);
  EXPECT_NE(gradient_with(96), enough);
}

TEST(PolicyGradientLoop, BitsDoNotDependOnThreads) {
  for (const Case& c : cases()) {
    std::vector<double> reference;
    for (const int n : {1, 3}) {
      set_threads(n);
      PolicyGradient pg = small_trainer(c);
      for (int i = 0; i < 3; ++i) pg.step();
      const auto v = all_parameters(pg.network());
      if (reference.empty()) reference = v;
      EXPECT_EQ(v, reference) << c.name;
    }
  }
  set_threads(1);
}

TEST(PolicyGradientLoop, MetaPredictsThePeakToTheByte) {
  for (const int n : {1, 2}) {
    set_threads(n);
    for (const Case& c : cases()) {
      memory::Usage peak[2];
      for (const Device device : {Device::cpu, Device::meta}) {
        const memory::PeakScope scope;
        {
          PolicyGradient pg = small_trainer(c, device);
          for (int i = 0; i < 3; ++i) pg.step();
        }
        peak[device == Device::meta] = scope.peak();
      }
      EXPECT_EQ(peak[0].total, peak[1].total) << c.name << ": " << to_string(peak[0]) << " / " << to_string(peak[1]);
    }
  }
  set_threads(1);
}

TEST(PolicyGradientLoop, EveryCaseReportsItsNumbersAndMovesThePolicy) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    PolicyGradient pg = small_trainer(c);
    const auto before = all_parameters(pg.network());
    Metrics m = pg.step();
    const auto names = m.entries();
    m = pg.step();
    EXPECT_NE(all_parameters(pg.network()), before);
    ASSERT_EQ(m.entries().size(), names.size());
    for (std::size_t i = 0; i < names.size(); ++i) EXPECT_EQ(m.entries()[i].name, names[i].name);
    for (const char* name : {"loss", "gradient_norm", "lr", "reward", "invalid"}) EXPECT_TRUE(std::isfinite(m[name])) << name;
    // Without a divergence the base is not asked, and nobody knows the cost.
    EXPECT_EQ(std::isnan(m["control_cost"]), c.options.divergence == Divergence::none && c.options.loss < Loss::cross_entropy);
  }
}

// Every path has its part once an epoch, however they are cut: where nothing moves, the losses of equal parts average to the
// loss of the whole.
TEST(PolicyGradientLoop, MinibatchesPartTheBatch) {
  for (const auto update : {Options::Update::iteration, Options::Update::timestep}) {
    const auto loss = [&](int minibatches, int epochs) {
      Case c{"parts", {}};
      c.options.batch = 24, c.options.seed = 5, c.options.update = update;
      c.options.advantage.baseline = Baseline::none;
      c.options.learner.lr.peak = 0, c.options.minibatches = minibatches, c.options.epochs = epochs;
      return small_trainer(c).step()["loss"];
    };
    const double whole = loss(1, 1);
    EXPECT_GT(std::abs(whole), 0.01);
    for (const int parts : {2, 3, 24}) EXPECT_NEAR(loss(parts, 2), whole, 1e-5 * std::abs(whole)) << parts;
  }
}

TEST(PolicyGradientLoop, TheStandardClipCutsFewRatios) {
  Options o;
  o.epochs = 2, o.minibatches = 4, o.learner.lr.peak = 1e-3;
  o.batch = 256;
  PolicyGradient pg = small_trainer({"standard", o});
  double largest = 0;
  for (int i = 0; i < 10; ++i) largest = std::max(largest, pg.step()["clipped"]);
  EXPECT_LT(largest, 0.3);
  EXPECT_GT(largest, 0);  // there are updates after the first, and they have moved
}

TEST(PolicyGradientLoop, PathsWithoutARewardHaveNoPart) {
  // Two paths are marked, or have no number: whatever their states hold (here NaN), gradients are those of the others.
  const ControlProblem problem = plain_chain(4, 0.8, 0.5, 0.4, linear_reward({1.0}));
  for (const Loss loss : {Loss::score_function, Loss::clipped_ratio, Loss::log_variance}) {
    Options o;
    o.loss = loss, o.batch = 40;
    PolicyGradient pg("test", problem, affine_policy(problem, {0.1, 0.2, 0.3, 0.4}), o);
    PathBatch b = pg.sample();
    Reward::Scores scores = problem.reward.scores(b.paths.terminal(), false);
    scores.value.mutate<float>()[3] = NAN;
    scores.valid.assign(40, 1), scores.valid[17] = 0;
    take_rewards(b, scores, 2.0);
    EXPECT_EQ(b.valid_paths, 38);
    double mean = 0;
    for (std::size_t i = 0; i < 40; ++i) {
      const bool out = i == 3 || i == 17;
      EXPECT_EQ(b.valid[i], !out);
      EXPECT_TRUE(!out || b.reward[i] == 0.0);
      if (!out) mean += static_cast<double>(scores.value.values<float>()[i]) / 38;
    }
    EXPECT_NEAR(b.mean_reward, mean, 1e-6);
    const auto clean = flat(pg.gradient(b));
    for (const int i : {3, 17})
      for (Tensor& x : b.paths.states) x.mutate<float>()[i] = NAN;
    EXPECT_EQ(flat(pg.gradient(b)), clean);
    for (const double g : clean) EXPECT_TRUE(std::isfinite(g));
    scores.valid.assign(40, 0);
    EXPECT_THROW(take_rewards(b, scores, 2.0), Error);
  }
}

TEST(PolicyGradientLoop, WhatDoesNotFitIsRefusedInWords) {
  const auto refused = [](auto change, const char* words) {
    Case c{"doubtful", {}};
    c.options.batch = 96;
    change(c.options);
    try {
      small_trainer(c);
      ADD_FAILURE() << "accepted: " << words;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
  };
  refused([](Options& o) { o.loss = Loss::score_function, o.epochs = 2; }, "the score function without a ratio");
  refused([](Options& o) { o.noise_scale = 1.5; }, "ratios of likelihoods need one noise");
  refused([](Options& o) { o.loss = Loss::cross_entropy, o.noise_scale = 1.5; }, "noise_scale must be 1");
  refused([](Options& o) { o.loss = Loss::cross_entropy, o.log_z = Options::LogZ::learned; },
          "learned by moment and trajectory balance");
  refused([](Options& o) { o.loss = Loss::moment; }, "the moment loss learns log_z");
  refused([](Options& o) { o.loss = Loss::log_variance, o.window.kind = WindowOptions::Kind::segments; },
          "cannot be trained in a window");
  refused([](Options& o) { o.advantage.group_size = 7; }, "does not divide the batch of 96");
  refused([](Options& o) { o.shared_noise = true; }, "shared_noise needs a group_size");
  refused([](Options& o) { o.advantage.baseline = Baseline::group; }, "needs a group_size of at least 2");
  refused([](Options& o) { o.advantage.group_size = 4, o.micro_batch = 6; }, "expected 0 or whole groups of 4");
  refused([](Options& o) { o.train_steps = 10; }, "the chain has 8 steps with noise");
  refused([](Options& o) { o.advantage.baseline = Baseline::td, o.critic.widths = {}; }, "no hidden layers");
  refused([](Options& o) { o.divergence_form = SurrogateOptions::Divergence::prediction; }, "is a term of the loss only");
  const ControlProblem problem = plain_chain(4, 0.8, 0.5, 0.4, linear_reward({1.0}));
  BatchOptions parts;
  parts.rows = 12, parts.micro_batch = 6, parts.group_size = 4;
  EXPECT_THROW(collect(problem.base, problem, parts, {1, 0}), Error);
  parts.micro_batch = 8;
  EXPECT_NO_THROW(collect(problem.base, problem, parts, {1, 0}));
}

}  // namespace
}  // namespace costate::finetune
