// The stationary Ornstein-Uhlenbeck process dX = -X/2 dt + dB over a time T with r = b x and lambda = 1/a, in exact steps:
//   rho = e^{-T/2},  v_0(x) = lambda b rho x + lambda^2 b^2 (1 - rho^2)/2,  nu* = N(lambda b rho, 1),
//   x_K has mean lambda b (1 - rho^2) from N(0, 1), and lambda b from nu*;
//   the divergence is lambda^2 b^2 rho^2/2 of the initial law and lambda^2 b^2 (1 - rho^2)/2 of the paths.
#include <costate/finetune/initial_law/noise_control.h>
#include <costate/finetune/initial_law/tilted_noise.h>
#include <costate/finetune/initial_law/value_of_noise.h>
#include <costate/nn/init.h>
#include <costate/nn/mlp.h>
#include <costate/tensor/parallel.h>
#include <gtest/gtest.h>

#include "backpropagation_support.h"

namespace costate::finetune {
namespace {

using testing::affine_steps;
using testing::mean;
using testing::numbers;
using testing::plain_options;

constexpr int kSteps = 12;
constexpr double kRho = .6, kB = 1.25, kLambda = .8, kTilt = kLambda * kB;

ControlProblem ornstein_uhlenbeck() {
  const double A = std::pow(kRho, 1.0 / kSteps), std = std::sqrt(1 - A * A);
  return testing::scalar_problem(testing::constant_chain(kSteps, A, std, std), nn::Network(affine_steps(kSteps, 0)),
                                 linear_reward({kB}), kLambda);
}

double variance(const std::vector<double>& v) {
  const double m = mean(v);
  double s = 0;
  for (const double e : v) s += (e - m) * (e - m);
  return s / static_cast<double>(v.size() - 1);
}

std::vector<double> values_at(const nn::Network& value, std::vector<float> x) {
  const auto rows = static_cast<std::int64_t>(x.size());
  return value(Var(Tensor::from(x, {rows, 1})), Var(Tensor::zeros({rows})), Tensor()).value().to_doubles();
}

nn::Network learnt(NoiseRegression regression, int rollouts = 4) {
  const ControlProblem p = ornstein_uhlenbeck();
  ValueOfNoiseOptions o;
  o.hidden = 16, o.depth = 1, o.iterations = 300, o.batch = 128, o.rollouts = rollouts, o.regression = regression, o.seed = 3;
  o.learner.lr = {.peak = .03, .total = o.iterations, .decay = nn::LearningRate::Decay::cosine, .final = .01};
  return train_value_of_noise(p, make_value_of_noise({1}, 0, o, Device::cpu), o);
}

// The exact value as a network, so that what samplers do can be told from what regression does.
struct LinearValue {
  Var operator()(const Var& x, const Var&, const Tensor&) const {
    return reshape(affine(x, kTilt * kRho, kTilt * kTilt * (1 - kRho * kRho) / 2), {x.extent(0)});
  }
  void visit(const nn::Visitor&) {}
};

TEST(InitialLaw, TheValueOfTheNoiseIsRegressed) {
  const std::vector<float> at{-1.5f, -.5f, 0.f, .5f, 1.5f};
  // e^y given x_0 is lognormal with deviation .95 of its mean: a batch of 512 paths tells v to .95/sqrt(512) = .04 in the
  // middle and to several times that at the rim; small steps average over many batches. Least squares hardly sees where e^v is
  // small.
  for (const NoiseRegression r : {NoiseRegression::gamma, NoiseRegression::least_squares}) {
    const std::vector<double> v = values_at(learnt(r), at);
    for (std::size_t i = 0; i < at.size(); ++i)
      EXPECT_NEAR(v[i], kTilt * kRho * at[i] + kTilt * kTilt * (1 - kRho * kRho) / 2,
                  i == 0 && r == NoiseRegression::least_squares ? .25 : i == 0 || i == 4 ? .1 : .06)
          << name(r) << at[i];
  }
  // The logarithm of a mean of 4 is low by Var/(2 n E^2) = .896/8 = .11 to first order.
  const std::vector<double> v = values_at(learnt(NoiseRegression::log_mean), at);
  const double bias = v[2] - kTilt * kTilt * (1 - kRho * kRho) / 2;
  EXPECT_LT(bias, -.05);
  EXPECT_GT(bias, -.15);
}

// Draws of nu* = N(.6, 1): 20000 of them have standard errors of .007 in the mean and .01 in the variance.
void expect_the_tilted_noise(const TiltedNoise& law, double bias, double variance_bias) {
  const std::vector<double> x = law.draw(20000, {17, 0}, {}).x.to_doubles();
  EXPECT_NEAR(mean(x), kTilt * kRho, 3 * .0071 + bias);
  EXPECT_NEAR(variance(x), 1, 3 * .01 + variance_bias);
}

// Every other path has no reward; with one path from each x_0 half of the starts have no part in the regression.
TEST(InitialLaw, StartsWithoutARewardHaveNoPart) {
  ControlProblem p = ornstein_uhlenbeck();
  p.reward.on_failure = Reward::Policy::skip;
  p.reward.value = [value = p.reward.value](const Var& x) {
    std::vector<float> hole(static_cast<std::size_t>(x.extent(0)));
    for (std::size_t i = 1; i < hole.size(); i += 2) hole[i] = NAN;
    return add(value(x), Var(Tensor::from(hole, {x.extent(0)})));
  };
  ValueOfNoiseOptions o;
  o.hidden = 16, o.depth = 1, o.iterations = 300, o.batch = 256, o.rollouts = 1, o.seed = 3;
  o.learner.lr = {.peak = .03, .total = o.iterations, .decay = nn::LearningRate::Decay::cosine, .final = .01};
  const std::vector<float> at{-.5f, 0.f, .5f, 1.5f};
  const std::vector<double> v = values_at(train_value_of_noise(p, make_value_of_noise({1}, 0, o, Device::cpu), o), at);
  // As above, of a quarter of the paths: twice the errors. Starts that counted as e^y = 1 would take .4 off the last one.
  for (std::size_t i = 0; i < at.size(); ++i)
    EXPECT_NEAR(v[i], kTilt * kRho * at[i] + kTilt * kTilt * (1 - kRho * kRho) / 2, i == 3 ? .2 : .12) << at[i];
}

// Without a reward every path has y = -sum f, here -18, whatever x_0 and the noise are: nothing is left to chance. A row that a
// chunk forgets (100 rows are chunks of 32) is one in 32 with y = 0, which takes .5 off.
TEST(InitialLaw, EveryPathPaysItsStateCost) {
  ControlProblem p = ornstein_uhlenbeck();
  p.reward = linear_reward({0});
  p.state_cost = [](int, const Var& x) { return affine(reshape(x, {x.extent(0)}), 0, 1.5); };
  ValueOfNoiseOptions o;
  o.hidden = 16, o.depth = 1, o.iterations = 400, o.batch = 100, o.rollouts = 1, o.seed = 3;
  o.regression = NoiseRegression::log_mean;
  o.learner.lr = {.peak = .2, .total = o.iterations, .decay = nn::LearningRate::Decay::cosine, .final = .01};
  for (const double v : values_at(train_value_of_noise(p, make_value_of_noise({1}, 0, o, Device::cpu), o), {-1.f, 0.f, 1.f}))
    EXPECT_NEAR(v, -18, .1);
}

TEST(InitialLaw, ResamplingDrawsFromIt) {
  // One of 200 draws: the bias of self-normalised weights is about -Cov(w, x w)/M = -.6 e^{.36}/200 = .004.
  const TiltedNoise law(nn::Network(LinearValue{}), {}, {1}, {.method = InitialMethod::sir, .particles = 200}, Device::cpu);
  expect_the_tilted_noise(law, .005, .02);
  // Weights are lognormal with log-variance .36: (E w)^2/E w^2 = e^{-.36} = .698, a bit more for finitely many.
  EXPECT_NEAR(law.draw(2000, {17, 0}, {}).efficiency, .70, .01);
  EXPECT_NEAR(law.divergence(20000, {5, 0}, {}), kTilt * kTilt * kRho * kRho / 2, .02);
  const TiltedNoise one(nn::Network(LinearValue{}), {}, {1}, {.particles = 1}, Device::cpu);
  EXPECT_EQ(one.draw(50, {17, 0}, {}).x.to_doubles(), sde::initial_noise({1}, 50, {17, 0}).to_doubles());
}

TEST(InitialLaw, MovesDrawFromIt) {
  const TiltedNoise law(nn::Network(LinearValue{}), {}, {1}, {.method = InitialMethod::mcmc, .moves = 60, .move_size = .6},
                        Device::cpu);
  expect_the_tilted_noise(law, 0, 0);
  const double accepted = law.draw(2000, {17, 0}, {}).efficiency;
  EXPECT_GT(accepted, .7);
  EXPECT_LT(accepted, .95);
}

TEST(InitialLaw, AControlFromAPointDrawsFromIt) {
  constexpr int steps = 6;
  BackpropagationOptions o = plain_options(128);
  o.kl_weight = 1;
  o.learner.lr = {.peak = .02, .total = 150, .decay = nn::LearningRate::Decay::cosine, .final = .02};
  nn::MlpOptions m;
  m.dim = 1, m.hidden = 16, m.depth = 1, m.time_frequencies = 1;
  nn::Init init(4);
  Backpropagation trainer(noise_control_problem(nn::Network(LinearValue{}), {1}, steps, Device::cpu),
                          nn::Network(nn::make_velocity_mlp(m, init)), o);
  Metrics last;
  for (int n = 0; n < 150; ++n) last = trainer.step();
  // The optimum is u = .6 throughout, with divergence .18; what is left of 150 updates is some hundredths.
  const TiltedNoise law({}, trainer.network(), {1}, {.method = InitialMethod::flow, .control_steps = steps}, Device::cpu);
  expect_the_tilted_noise(law, .03, .05);
  EXPECT_NEAR(last["control_cost"], kTilt * kTilt * kRho * kRho / 2, .03);
}

// The whole of entropy-regularised control: value, initial law, control. The gradient in constant shifts is noiseless, see
// relative_entropy_test.cpp, so that one step of Newton's method is the optimum from any initial law.
TEST(InitialLaw, DriftAndInitialLawTogetherReachTheTilt) {
  const nn::Network value = learnt(NoiseRegression::gamma);
  constexpr std::int64_t rows = 20000;
  for (const bool tilted : {false, true}) {
    ControlProblem p = ornstein_uhlenbeck();
    if (tilted)
      p.initial = TiltedNoise(value, {}, {1}, {.method = InitialMethod::sir, .particles = 100}, Device::cpu).law(p);
    BackpropagationOptions o = plain_options(64);
    o.kl_weight = 1;
    BackpropagationMetrics m;
    const std::vector<double> g = numbers(Backpropagation(p, nn::Network(affine_steps(kSteps, 0)), o).gradient(m).parameters);
    testing::AffineSteps best = affine_steps(kSteps, 0);
    for (int k = 0; k < kSteps; ++k) best.theta[k] = Var(Tensor::full({1}, -g[k]));  // C = std: the control itself
    const nn::Network tuned(best);
    const Backpropagation optimum(p, tuned, o);
    for (const double v : numbers(optimum.gradient(m).parameters)) EXPECT_NEAR(v, 0, 1e-5);
    EXPECT_NEAR(m.control_cost, kTilt * kTilt * (1 - kRho * kRho) / 2, 1e-5);
    const std::vector<double> x =
        simulate(field_of(tuned), p, rows, {31, 0}, {.base_predictions = false}).terminal().to_doubles();
    // 3 standard errors of .007, and what the regression and 100 draws leave in the slope of v_0, at most .05 of it, times rho.
    EXPECT_NEAR(mean(x), tilted ? kTilt : kTilt * (1 - kRho * kRho), tilted ? .05 : .022) << tilted;
    EXPECT_NEAR(variance(x), 1, .05);
  }
}

TEST(InitialLaw, RowsDependOnTheirKeyAloneAndThreadsDoNotMatter) {
  const nn::Network value(LinearValue{});
  nn::MlpOptions m;
  m.dim = 1, m.hidden = 4, m.depth = 1;
  nn::Init init(4);
  const nn::Network control(nn::make_velocity_mlp(m, init));
  for (const InitialMethod method : {InitialMethod::sir, InitialMethod::mcmc, InitialMethod::flow}) {
    const bool flow = method == InitialMethod::flow;
    const TiltedNoise law(value, flow ? control : nn::Network(), {1}, {.method = method, .particles = 5, .moves = 5},
                          Device::cpu);
    const std::vector<double> all = law.draw(150, {9, 40}, {}).x.to_doubles();
    set_threads(2);
    EXPECT_EQ(law.draw(150, {9, 40}, {}).x.to_doubles(), all) << name(method);
    set_threads(1);
    const std::vector<double> some = law.draw(30, {9, 140}, {}).x.to_doubles();
    for (std::size_t i = 0; i < some.size(); ++i) EXPECT_EQ(some[i], all[100 + i]) << name(method);
  }
}

TEST(InitialLaw, ClassesHaveValuesOfTheirOwn) {
  // The base drifts by the class: y is -1/2 for class 0 and +1/2 for class 1, and nothing is random.
  ControlProblem p = ornstein_uhlenbeck();
  p.labels = {0, 1};
  p.reward = linear_reward({1.0}), p.reward_multiplier = 1;
  p.chain = testing::constant_chain(1, 0, 1, 1e-3);
  p.base = [](const Var& x, const Var&, const Tensor& labels) {
    std::vector<float> level;
    for (const std::int32_t l : labels.values<std::int32_t>()) level.push_back(static_cast<float>(l) - .5f);
    return Var(Tensor::from(level, {x.extent(0), 1}));
  };
  ValueOfNoiseOptions o;
  o.hidden = 8, o.depth = 1, o.iterations = 200, o.batch = 64, o.rollouts = 1;
  o.learner.lr = {.peak = .03, .total = 200, .decay = nn::LearningRate::Decay::cosine, .final = .01};
  const nn::Network value = train_value_of_noise(p, make_value_of_noise({1}, 2, o, Device::cpu), o);
  for (const std::int32_t l : {0, 1}) {
    const Tensor labels = Tensor::from(std::vector<std::int32_t>{l, l, l}, {3});
    const Tensor x = Tensor::from(std::vector<float>{-1, 0, 1}, {3, 1});
    for (const double v : value(Var(x), Var(Tensor::zeros({3})), labels).value().to_doubles()) EXPECT_NEAR(v, l - .5, .05);
  }
  EXPECT_THROW(value(Var(Tensor::zeros({3, 1})), Var(Tensor::zeros({3})), Tensor()), Error);
}

TEST(InitialLaw, WhatCannotBeIsRefused) {
  const nn::Network value(LinearValue{});
  EXPECT_THROW(TiltedNoise({}, {}, {1}, {.method = InitialMethod::sir}, Device::cpu), Error);
  EXPECT_THROW(TiltedNoise(value, {}, {1}, {.method = InitialMethod::flow}, Device::cpu), Error);
  EXPECT_THROW(TiltedNoise(value, value, {1}, {.method = InitialMethod::mcmc}, Device::cpu), Error);
  EXPECT_THROW(TiltedNoise(value, {}, {1}, {.particles = 0}, Device::cpu), Error);
  EXPECT_THROW(TiltedNoise(value, {}, {1}, {.move_size = 1.5}, Device::cpu), Error);
  const TiltedNoise flow(value, value, {1}, {.method = InitialMethod::flow}, Device::cpu);
  EXPECT_THROW(flow.draw(2, {}, Tensor::from(std::vector<std::int32_t>{0, 0}, {2})), Error);
  EXPECT_THROW(noise_control_problem(value, {1}, 0, Device::cpu), Error);
  using O = ValueOfNoiseOptions;
  for (const O& o : {O{.hidden = 0}, O{.depth = 0}}) EXPECT_THROW(make_value_of_noise({1}, 0, o, Device::cpu), Error);
  EXPECT_THROW(make_value_of_noise({1}, -1, {}, Device::cpu), Error);
  for (const O& o : {O{.iterations = 0}, O{.batch = 0}, O{.rollouts = 0}})
    EXPECT_THROW(train_value_of_noise(ornstein_uhlenbeck(), make_value_of_noise({1}, 0, {}, Device::cpu), o), Error);
  const O least{.hidden = 1, .depth = 1, .iterations = 1, .batch = 1, .rollouts = 1};
  EXPECT_NO_THROW(train_value_of_noise(ornstein_uhlenbeck(), make_value_of_noise({1}, 0, least, Device::cpu), least));
  EXPECT_THROW(noise_regression("poisson"), Error);
}

}  // namespace
}  // namespace costate::finetune
