// Policy iteration on a value network, replay, and what all costates share: threads and plans.
#include <costate/autograd/ops.h>
#include <costate/finetune/evaluate/estimate.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/problem/linear_gaussian.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/nn/mlp.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>

namespace costate::finetune {
namespace {

using sde::uniform_grid;
using Options = ValueGradientOptions;
using Costate = Options::Costate;

nn::VelocityMlp small_network(Device device = Device::cpu, std::int64_t classes = 0) {
  nn::Init init(3, DType::f32, device);
  nn::MlpOptions mlp;
  mlp.hidden = 32, mlp.depth = 2, mlp.time_frequencies = 3, mlp.classes = classes;
  nn::VelocityMlp network = nn::make_velocity_mlp(mlp, init);
  network.output = nn::make_linear(init, 32, 2);
  return network;
}
ControlProblem small_problem(const nn::Network& base, Device device = Device::cpu) {
  ControlProblem p{sde::exact_memoryless({}, uniform_grid(12)), field_of(base), {2}, linear_reward({1.0, 0.5})};
  p.device = device;
  return p;
}
std::vector<double> all_parameters(const nn::Network& network) {
  std::vector<double> v;
  for (const Tensor& t : nn::parameters(network)) {
    const auto d = t.to_doubles();
    v.insert(v.end(), d.begin(), d.end());
  }
  return v;
}

TEST(ValueNetwork, CurvatureOfTheExactEnd) {
  // V_K = lambda r with an indefinite quadratic: both ends of the spectrum to 1e-3 (f32 differences), from any point.
  ControlProblem p = small_problem(small_network());
  p.reward = quadratic_reward({0.2, 0.1}, {1.0, 0.6, 0.6, -0.4}), p.reward_multiplier = 2;
  ValueOptions o;
  o.contraction_iterations = 40;
  const ValueFunction v(p, o, 1);
  const Curvature c = v.curvature(12, sde::initial_noise({2}, 5, {1, 0}), {});
  const double middle = 0.3, half = std::sqrt(0.7 * 0.7 + 0.36);  // of Q; the Hessian is -2 Q
  EXPECT_NEAR(c.lowest, -2 * (middle + half), 2e-3);
  EXPECT_NEAR(c.highest, -2 * (middle - half), 2e-3);
}

TEST(ValueNetwork, GradientsAreThoseOfTheValue) {
  // Both forms, by central differences of the value: f32 leaves 2e-3.
  for (const auto form : {ValueOptions::Form::plain, ValueOptions::Form::skip}) {
    const nn::Network base = small_network();
    ValueGradientRegression trainer(small_problem(base), base,
                                    {.costate = Costate::value, .batch = 64, .value = {.form = form}});
    trainer.step(), trainer.step();
    const ValueFunction& v = *trainer.value();
    const Tensor x = sde::initial_noise({2}, 6, {9, 0});
    for (const int k : {0, 5, 11, 12}) {
      const auto g = v.gradient(k, x, {}).to_doubles();
      for (int i = 0; i < 2; ++i) {
        std::vector<float> e(12);
        for (std::size_t r = 0; r < 6; ++r) e[2 * r + static_cast<std::size_t>(i)] = 0.02f;
        const Tensor step = Tensor::from(e, {6, 2});
        const auto up = v.value(k, add(Var(x), Var(step)).value(), {}).to_doubles(),
                   down = v.value(k, sub(Var(x), Var(step)).value(), {}).to_doubles();
        for (std::size_t r = 0; r < 6; ++r)
          EXPECT_NEAR(g[2 * r + static_cast<std::size_t>(i)], (up[r] - down[r]) / 0.04, 2e-3) << k;
      }
    }
  }
}

// N(0, 1) data in one dimension, r = x: the optimal control is a shift a step, and the tuned mean that of the fixed point by
// linear recursion (0.637 on ten steps, O(h) below the tilt's 1).
struct ShiftNetwork {
  Var shift;  // (steps + 1, 1)
  int steps;
  Var operator()(const Var& x, const Var& t, const Tensor&) const {
    std::vector<std::int32_t> step;
    for (const double v : t.value().to_doubles()) step.push_back(static_cast<std::int32_t>(std::lround(v * steps)));
    // The velocity of N(0, 1) on the linear path: (2 t - 1)/(t^2 + (1 - t)^2) x.
    const Var up = 2.0 * t - 1.0, down = add(square(t), square(affine(t, -1.0, 1.0)));
    return add(mul(x, reshape(div(up, down), {x.extent(0), 1})), gather_rows(shift, Tensor::from(step, t.shape())));
  }
  void visit(const nn::Visitor& v) { v("shift", shift); }
};
double tuned_mean(Options options, Reward reward, int iterations) {
  const int steps = 10;
  const ShiftNetwork base{Var(Tensor::zeros({steps + 1, 1})), steps};
  const sde::Chain chain = sde::exact_memoryless({}, uniform_grid(steps));
  options.batch = 128, options.seed = 4;
  options.learner.lr = {.peak = 0.1, .warmup = 0, .total = iterations, .decay = nn::LearningRate::Decay::cosine};
  options.loss_space = Options::LossSpace::velocity;
  options.value.hidden = 24, options.value.depth = 1, options.value.time_frequencies = 2, options.value.updates = 4;
  options.value.learner.lr.peak = 1e-2;
  ValueGradientRegression trainer({chain, field_of(nn::Network(base)), {1}, std::move(reward)}, base, options);
  for (int i = 0; i < iterations; ++i) trainer.step();
  sde::Chain quiet = chain;  // the mean of a linear chain by its noiseless path
  std::fill(quiet.std.begin(), quiet.std.end(), 0.0);
  return sde::rollout(field_of(trainer.network()), quiet, Tensor::zeros({1, 1}), {}, {}).item();
}

// 150 iterations of a small value network come within 0.02 of the fixed point (the base has mean 0).
double fixed_point() { return linear_fixed_point(sde::exact_memoryless({}, uniform_grid(10)), {0, 1, 1}).sde_mean; }

TEST(ValueNetwork, TemporalDifferencesReachTheFixedPoint) {
  EXPECT_NEAR(tuned_mean({.costate = Costate::value}, linear_reward({1.0}), 150), fixed_point(), 0.02);
}
TEST(ValueNetwork, ReturnsReachTheFixedPoint) {
  const Options o{.costate = Costate::value, .value = {.target = ValueOptions::Target::monte_carlo}};
  EXPECT_NEAR(tuned_mean(o, linear_reward({1.0}), 150), fixed_point(), 0.02);
}
TEST(ValueNetwork, TheSkipFormReachesTheFixedPoint) {
  const Options o{.costate = Costate::value, .value = {.form = ValueOptions::Form::skip}};
  EXPECT_NEAR(tuned_mean(o, linear_reward({1.0}), 150), fixed_point(), 0.02);
}

Reward black_box() {
  Reward r;
  r.name = "x, without gradient";
  r.black_box = [](const Tensor& x) { return x.reshape({-1}).clone(); };
  return r;
}
TEST(ValueNetwork, BlackBoxRewardsReachTheFixedPoint) {
  EXPECT_NEAR(tuned_mean({.costate = Costate::value}, black_box(), 150), fixed_point(), 0.02);
}
TEST(ValueNetwork, SteinsIdentityReachesTheFixedPoint) {
  // Pairs of noises; and the path's own, one draw a state, which is noisier.
  EXPECT_NEAR(tuned_mean({.costate = Costate::stein, .value = {.pairs = 4}}, black_box(), 150), fixed_point(), 0.03);
  EXPECT_NEAR(tuned_mean({.costate = Costate::stein}, black_box(), 150), fixed_point(), 0.06);
}
TEST(ValueNetwork, BlackBoxRewardsHaveNoCostates) {
  const nn::Network base = small_network();
  ControlProblem p = small_problem(base);
  p.reward = black_box();
  EXPECT_THROW(ValueGradientRegression(p, base, {}), Error);
  const Options skip{.costate = Costate::value, .value = {.form = ValueOptions::Form::skip}};
  EXPECT_THROW(ValueGradientRegression(p, base, skip), Error);
}

TEST(ValueNetwork, StateCostsCountFromTheirStepOn) {
  // No reward, 0.1 a step: V_k = -0.1 (12 - k) wherever x is; the fit of a small network is good to 0.05.
  for (const auto target : {ValueOptions::Target::td, ValueOptions::Target::monte_carlo}) {
    const nn::Network base = small_network();
    ControlProblem p = small_problem(base);
    p.reward = linear_reward({0, 0});
    p.state_cost = [](int, const Var& x) { return affine(sum(x, 1), 0.0, 0.1); };
    Options o{.costate = Costate::value, .batch = 32, .value = {.hidden = 24, .target = target, .updates = 10}};
    o.value.learner.lr.peak = 1e-2;
    ValueGradientRegression t(p, base, o);
    for (int i = 0; i < 40; ++i) t.step();
    const Tensor x = sde::initial_noise({2}, 4, {2, 0});
    for (const int k : {0, 6, 11})
      for (const double v : t.value()->value(k, x, {}).to_doubles()) EXPECT_NEAR(v, -0.1 * (12 - k), 0.05) << k;
  }
}

TEST(ValueNetwork, CostatesAreAsSmallAsTheReward) {
  const nn::Network base = small_network();
  ControlProblem p = small_problem(base);
  p.reward = linear_reward({1, 0}), p.reward_multiplier = 1e-3;
  const double one = ValueGradientRegression(p, base, {.costate = Costate::value, .batch = 8}).step()["costate_norm"];
  EXPECT_GT(one, 0.0009);  // the gradient at the last step, |lambda grad r| = 1e-3
  EXPECT_LT(one, 0.1);     // those of a network that has learned nothing yet
}

TEST(ValueNetwork, ConvexRewardsAreRefusedWithStepAndKappa) {
  // r = 3 |x|^2 at the end of a chain with noise in the last step: std^2 6 >= 1 there.
  const nn::Network base = small_network();
  ControlProblem p = small_problem(base);
  p.chain = sde::euler_maruyama_constant({}, uniform_grid(4), 1.0);
  p.reward = quadratic_reward({0, 0}, {-6, -6});
  try {
    ValueGradientRegression trainer(p, base, {.costate = Costate::value, .batch = 32, .value = {.contraction_every = 1}});
    trainer.step();
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::numerical);
    const std::string words = e.what();
    EXPECT_NE(words.find("at step 3 std^2/b times the curvature of the value is 1.5"), std::string::npos) << words;
  }
  // Concave: damped, and reported.
  p.reward = quadratic_reward({0, 0}, {6, 6});
  ValueGradientRegression trainer(
      p, base, {.costate = Costate::value, .batch = 32, .value = {.damping = true, .contraction_every = 1}});
  const Metrics m = trainer.step();
  EXPECT_NEAR(m["contraction"], 1.5, 0.02);
  EXPECT_LT(m["curvature"], 1);
}

TEST(Replay, LogRatiosAreThoseOfTheSteps) {
  // By the definition, log p_new - log p_old of x_{k+1}, in double precision from the states; and the mean of the ratio is 1.
  const nn::Network base = small_network();
  ControlProblem p = small_problem(base);
  nn::Network moved = nn::clone(base);
  nn::visit(moved, [](const std::string&, Var& v) {
    if (v.numel() == 2) v = Var(Tensor::from(std::vector<float>{0.1f, -0.05f}, {2}));  // the output's bias
  });
  constexpr std::int64_t rows = 600;
  const Trajectories paths = simulate(field_of(base), p, rows, {7, 0});
  const auto ratio = log_policy_ratio(p, paths, field_of(moved));
  std::vector<double> exact(static_cast<std::size_t>(rows)), weights;
  for (int k = 0; k < 12; ++k) {
    const double A = p.chain.A[k], C = p.chain.C[k], s = p.chain.std[k];
    if (s == 0) continue;
    const auto x = paths.states[k].to_doubles(), y = paths.states[k + 1].to_doubles(), old = paths.predictions[k].to_doubles();
    const auto now = moved(Var(paths.states[k]), Var(sde::step_time(p.chain, k, paths.states[k])), {}).value().to_doubles();
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double a = (y[i] - A * x[i] - C * now[i]) / s, b = (y[i] - A * x[i] - C * old[i]) / s;
      exact[i / 2] += (b * b - a * a) / 2;
    }
  }
  for (std::size_t i = 0; i < exact.size(); ++i) {
    EXPECT_NEAR(ratio[i], exact[i], 1e-4);
    weights.push_back(std::exp(ratio[i]));
  }
  const Estimate e = mean_estimate(weights);
  EXPECT_NEAR(e.value, 1, 4 * e.standard_error);
}

TEST(Replay, BatchesServeTheirPassesAndNoLonger) {
  const nn::Network base = small_network();
  int calls = 0;
  ControlProblem p = small_problem(base);
  p.reward = callback_reward("counted", [&](auto x, auto rows, auto value, auto gradient) {
    ++calls;
    for (std::int64_t i = 0; i < rows; ++i) value[i] = x[2 * i], gradient[2 * i] = 1, gradient[2 * i + 1] = 0;
  });
  Options o{.batch = 32, .replay = {.size = 96, .passes = 2}};
  ValueGradientRegression trainer(p, base, o);
  for (int i = 0; i < 6; ++i) trainer.step();
  EXPECT_EQ(calls, 3);  // one collection of three batches
  trainer.step();
  EXPECT_EQ(calls, 6);
  // Weighted, with large updates: the effective sample size falls, and below the limit paths are made anew.
  o.replay = {.size = 32, .passes = 50, .weighted = true, .least_ess = 0.5};
  o.learner.lr.peak = 2e-2;
  calls = 0;
  ValueGradientRegression weighted(p, base, o);
  EXPECT_NEAR(weighted.step()["ess"], 1, 1e-6);  // the policy that made the paths
  for (int i = 0; i < 20; ++i) EXPECT_GE(weighted.step()["ess"], 0.5);
  EXPECT_GT(calls, 2);
  EXPECT_LT(calls, 20);
  EXPECT_THROW(ValueGradientRegression(p, base, {.batch = 32, .replay = {.size = 40}}), Error);
  EXPECT_THROW(ValueGradientRegression(p, base, {.batch = 32, .keep_activations = true, .replay = {.size = 32}}), Error);
}

// ---------------------------------------------------------------------------------------------- all costates

std::vector<std::pair<const char*, Options>> kinds() {
  Options full, continuous, socm, constant, weighted, value, skip, stein, pairs, replayed, replayed_value, subset;
  full.costate = Costate::full, continuous.costate = Costate::continuous;
  full.early_steps = continuous.early_steps = 2, full.late_steps = continuous.late_steps = 3;
  full.pairing = Options::Pairing::same;
  socm.costate = constant.costate = Costate::reparametrised;
  socm.path_weights = constant.path_weights = weighted.path_weights = true;
  constant.reparametrisation.learned = false;
  weighted.early_steps = 3, weighted.late_steps = 2, weighted.loss_clip = 5;
  value.costate = skip.costate = replayed_value.costate = Costate::value;
  value.value.contraction_every = 2, value.value.contraction_rows = 5, value.value.damping = true;
  skip.value.form = ValueOptions::Form::skip, skip.value.target = ValueOptions::Target::monte_carlo;
  stein.costate = pairs.costate = Costate::stein;
  pairs.value.pairs = 2, pairs.late_steps = 4, pairs.value.form = ValueOptions::Form::skip;
  replayed.replay = {.size = 300, .passes = 2, .weighted = true, .least_ess = 0};
  replayed_value.replay = {.size = 150, .passes = 2};
  subset.kl_weights = {0.5}, subset.late_steps = 2;
  std::vector<std::pair<const char*, Options>> list{
      {"full", full},   {"continuous", continuous}, {"socm", socm},   {"socm, M = 1", constant},   {"socm-adjoint", weighted},
      {"value", value}, {"skip", skip},             {"stein", stein}, {"stein, pairs", pairs},     {"replay", replayed},
      {"replayed value", replayed_value},           {"subset", subset}};
  for (auto& [name, o] : list) o.batch = 150;
  return list;
}
ValueGradientRegression make(Options o, Device device = Device::cpu) {
  const nn::Network base = small_network(device, 3);
  ControlProblem p = small_problem(base, device);
  p.labels = {0, 2};
  p.state_cost = [](int k, const Var& x) { return affine(sum(square(x), 1), 0.002 * k, 0.0); };
  return {p, base, o};
}

// Rows that base and tuned network were asked for, as in the tables of value_gradient.h.
struct Rows {
  std::atomic<std::int64_t> plain{0}, state{0}, parameters{0};
  void add(const Var& x, const Var& y) { (x.tracked() ? state : y.tracked() ? parameters : plain) += x.extent(0); }
  std::vector<std::int64_t> a_trajectory(std::int64_t batch) const {
    return {plain / batch, state / batch, parameters / batch};
  }
};
struct Counted {
  nn::Network network;
  std::shared_ptr<Rows> rows;
  Var operator()(const Var& x, const Var& t, const Tensor& labels) const {
    Var y = network(x, t, labels);
    rows->add(x, y);
    return y;
  }
  void visit(const nn::Visitor& v) { network.visit(v); }
};

TEST(ValueGradient, CostsAreThoseOfTheTable) {
  // K = 12 steps of which N = 11 have noise; L = 4 in the loss from f = 7 on, or all.
  using V = std::vector<std::int64_t>;
  const int K = 12, N = 11;
  const auto costs = [&](Options o, const V& tuned, const V& base, const char* what, int updates = 1) {
    const auto of_tuned = std::make_shared<Rows>(), of_base = std::make_shared<Rows>();
    const nn::Network network = small_network();
    o.batch = 64;
    ValueGradientRegression t(small_problem(Counted{network, of_base}), Counted{network, of_tuned}, o);
    for (int i = 0; i < updates; ++i) t.step();
    EXPECT_EQ(of_tuned->a_trajectory(64), tuned) << what << ", tuned";
    EXPECT_EQ(of_base->a_trajectory(64), base) << what << ", base";
  };
  for (const int L : {N, 4}) {
    const int f = N - L;
    Options o;
    o.late_steps = L == N ? 0 : L;
    costs(o, {K, 0, L}, {1, K - f - 1, 0}, "lean");
    Options same = o, keep = o, denoised = o, weighted = o;
    same.pairing = Options::Pairing::same, keep.keep_activations = true, denoised.denoised_endpoint = true;
    weighted.path_weights = true;
    costs(same, {K, 0, L}, {0, K - f, 0}, "same");
    costs(keep, {K - L, 0, L}, {1, K - f - 1, 0}, "keep_activations");
    costs(denoised, {K, 0, L}, {2, K - f - 1, 0}, "denoised_endpoint");
    costs(weighted, {K, 0, L}, {1 + f, K - f - 1, 0}, "socm-adjoint");
    o.costate = same.costate = Costate::full;
    costs(o, {K, K - f - 1, L}, {1, N - f - 1, 0}, "full");
    costs(same, {K, K - f, L}, {0, N - f, 0}, "full, same");
    o.costate = same.costate = Costate::continuous;
    costs(o, {K, K - f - 1, L}, {2, N - f - 1, 0}, "continuous");
    costs(same, {K, K - f, L}, {1, N - f, 0}, "continuous, same");
    for (const Costate c : {Costate::value, Costate::stein}) {
      o.costate = c;
      costs(o, {K, 0, L}, {N, 0, 0}, "value");
    }
    o.costate = Costate::value, o.value.form = ValueOptions::Form::skip;
    costs(o, {K, 0, L}, {N + (K - N), L, 0}, "skip");
    Options socm;
    socm.late_steps = o.late_steps;
    socm.costate = Costate::reparametrised, socm.path_weights = true;
    costs(socm, {K, 0, L}, {1, K - 1, 0}, "socm");
    Options replay;
    replay.late_steps = o.late_steps;
    replay.replay = {.size = 64, .passes = 3};
    costs(replay, {K, 0, 3 * L}, {1, K - 1, 0}, "replay", 3);
    replay.replay.weighted = true, replay.replay.least_ess = 0;
    costs(replay, {K + 3 * N, 0, 3 * L}, {1, K - 1, 0}, "weighted replay", 3);
  }
}

TEST(ValueGradient, BitsDoNotDependOnThreads) {
  for (const auto& [name, o] : kinds()) {
    std::vector<double> reference;
    for (const int n : {1, 2, 3}) {
      set_threads(n);
      ValueGradientRegression t = make(o);
      for (int i = 0; i < 3; ++i) t.step();
      auto v = all_parameters(t.network());
      if (t.value()) {
        const auto more = all_parameters(t.value()->network());
        v.insert(v.end(), more.begin(), more.end());
      }
      if (reference.empty()) reference = v;
      EXPECT_EQ(v, reference) << name << ", " << n << " threads";
    }
  }
  set_threads(1);
}

TEST(ValueGradient, MetaPredictsThePeakToTheByte) {
  for (const int n : {1, 2}) {
    set_threads(n);
    for (const auto& [name, o] : kinds()) {
      memory::Usage peak[2];
      for (const Device device : {Device::cpu, Device::meta}) {
        const memory::PeakScope scope;
        {
          ValueGradientRegression t = make(o, device);
          for (int i = 0; i < 3; ++i) t.step();
        }
        peak[device == Device::meta] = scope.peak();
      }
      EXPECT_EQ(peak[0], peak[1]) << name << ": " << to_string(peak[0]) << " / " << to_string(peak[1]);
    }
  }
  set_threads(1);
}

}  // namespace
}  // namespace costate::finetune
