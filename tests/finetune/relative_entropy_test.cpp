// Backpropagation with the divergence from the base: the gradient of
//   J = E[lambda r(x_K) - sum_k f_k(x_k)] - KL(P_u || P),   KL = E sum_k |u_k|^2/2,
// and where it leads.
#include <costate/nn/init.h>
#include <costate/nn/mlp.h>
#include <costate/sde/diffusion.h>
#include <costate/tensor/parallel.h>
#include <gtest/gtest.h>

#include "backpropagation_support.h"

namespace costate::finetune {
namespace {

using testing::affine_steps;
using testing::mean;
using testing::numbers;
using testing::plain_options;

nn::Network mlp(std::uint64_t seed, DType dtype, Device device = Device::cpu) {
  nn::MlpOptions o;
  o.dim = 2, o.hidden = 8, o.depth = 2, o.time_frequencies = 2;
  nn::Init init(seed, dtype, device);
  nn::VelocityMlp net = nn::make_velocity_mlp(o, init);
  net.output.weight = Var(init.uniform(net.output.weight.shape(), 8));  // zero at first otherwise
  return nn::Network(net);
}

// -J of 40 paths with given noises as a function of the parameters, differentiated by the sweep and by central differences, in
// double precision: errors of h^2 and of 1e-16/h, both near 1e-9 for h = 1e-5, with numbers of the order of 1.
TEST(RelativeEntropy, TheSweepIsTheGradientOfTheObjective) {
  constexpr std::int64_t rows = 40;
  const nn::Network base = mlp(1, DType::f64);
  const DifferentiatedPath path{.chain = sde::euler_maruyama({}, sde::uniform_grid(7))};
  const PathCost cost{[](int k, const Var& x) { return affine(sum(square(x), 1), .1 + .05 * k, 0.0); }, 1.0 / rows,
                      field_of(base), .7 / rows};
  const sde::NoiseKey key{5, 0};
  const Tensor x0 = sde::initial_noise({2}, rows, key, DType::f64);
  const Reward reward = quadratic_reward({.5, -.2}, {1.0, .3, .3, .8}, {.4, .1});
  double loss = 0;
  const auto gradient = [&](const nn::Network& tuned) {
    const sde::Process process = batch_process(rows, 0, [&](std::int64_t first, std::int64_t n) {
      (void)n;
      return path_process(parametric_field_of(tuned), path, {}, key.from(first), cost, nullptr, nullptr);
    });
    double end = 0;
    sde::Gradient g = sde::gradient(process, x0, [&](const Tensor& x) {
      const Reward::ValueAndGradient r = reward.value_and_gradient(x);
      end = -sum(Var(r.value)).value().item() / rows;
      return affine(Var(r.gradient), -1.0 / rows, 0.0).value();
    });
    loss = end + g.running_cost;
    return g;
  };
  nn::Network tuned = nn::clone(mlp(2, DType::f64));
  const std::vector<double> swept = numbers(gradient(tuned).parameters);
  std::size_t at = 0;
  double largest = 0;
  for (Tensor* p : mutable_parameters(tuned)) {
    for (std::int64_t i = 0; i < p->numel(); ++i, ++at) {
      if (at % 7) continue;  // every seventh number
      const auto n = static_cast<std::size_t>(i);
      const double was = p->mutate<double>()[n], h = 1e-5;
      p->mutate<double>()[n] = was + h;
      gradient(tuned);
      const double above = loss;
      p->mutate<double>()[n] = was - h;
      gradient(tuned);
      p->mutate<double>()[n] = was;
      largest = std::max(largest, std::abs(swept[at] - (above - loss) / (2 * h)));
    }
  }
  EXPECT_EQ(at, swept.size());
  EXPECT_LT(largest, 1e-7);
}

// The divergence of states that are taken as constants is another function: its gradient misses what a step does to the
// controls of later ones.
TEST(RelativeEntropy, TheDivergenceDependsOnTheStates) {
  // x_1 = theta_0 + ..., u_1 = (slope) x_1/std: d/dtheta_0 of E u_1^2/2 = slope^2 E x_1 / std^2, which a detached penalty
  // lacks.
  const sde::Chain chain = testing::constant_chain(2, 0, 1, .5);
  const nn::Network base(affine_steps(2, 0)), tuned(affine_steps(2, .3, .6));
  BackpropagationOptions o = plain_options(4000);
  o.kl_weight = 1;
  const ControlProblem p = testing::scalar_problem(chain, base, linear_reward({0.0}));
  BackpropagationMetrics m;
  const Backpropagation kept(p, tuned, o);
  const std::vector<double> g = numbers(kept.gradient(m).parameters);
  o.detached_inputs = true;
  BackpropagationMetrics other;
  const std::vector<double> h = numbers(Backpropagation(p, tuned, o).gradient(other).parameters);
  const Trajectories paths = simulate(field_of(tuned), p, 4000, {7, 0});
  const double x0 = mean(paths.states[0].to_doubles()), x1 = mean(paths.states[1].to_doubles());
  const double own = (.3 + .6 * x0) / .25;  // of u_0^2/2
  EXPECT_NEAR(h[0], own, 1e-4);
  EXPECT_NEAR(g[0], own + .6 * (.3 + .6 * x1) / .25, 1e-4);
  EXPECT_NEAR(m.control_cost, mean(step_likelihoods(p, paths).path_cost()), 1e-4);
  EXPECT_NEAR(m.control_cost, other.control_cost, 1e-5);  // the same number, differentiated otherwise
  EXPECT_NEAR(m.loss, m.control_cost, 1e-5);
}

// Data N(0, 1), r = b x: the optimum shifts every mean by a constant. The gradient is linear in these constants and has no
// noise, so that the optimum is reached in one step of Newton's method, and the mean of x_K moves by (b/a) v (1 - rho^2), v the
// variance of x_K (1 in continuous time) and rho the correlation of x_0 and x_K that the sampler leaves: DDIM's is
// alpha(t_0)^(eta^2) in continuous time.
TEST(RelativeEntropy, WhatIsRememberedOfTheNoiseIsNotTilted) {
  constexpr int steps = 40;
  constexpr double b = .8, lambda = 1.5;
  sde::Schedule schedule;
  schedule.family = sde::PathFamily::vp_cosine;
  for (const double eta : {.3, .7, 1.0}) {
    SCOPED_TRACE(eta);
    const auto ddim = [&](int n) {
      std::vector<double> grid;
      for (int k = 0; k <= n; ++k) grid.push_back(.02 + .98 * k / n);
      return sde::ddim(schedule, grid, eta, sde::Parametrisation::x1);
    };
    sde::Chain chain = ddim(steps);
    const sde::GaussianLaw law = sde::gaussian_law(chain, 0, 1), fine = sde::gaussian_law(ddim(4000), 0, 1);
    const double tilted = law.variance * (1 - law.correlation * law.correlation);
    EXPECT_NEAR(fine.correlation, std::pow(schedule.alpha(.02), eta * eta), .002);
    EXPECT_NEAR(fine.variance, 1, .005);
    // The exact prediction is slope_k x: put into A_k, so that what is left to learn is theta_k.
    for (int k = 0; k < steps; ++k)
      chain.A[k] += chain.C[k] * sde::gaussian_prediction(chain.prediction, schedule.at(chain.t[k]), 0, 1).slope;
    for (int k = 0; k <= steps; ++k) chain.t[k] = static_cast<double>(k) / steps;  // how AffineSteps knows its step
    const nn::Network base(affine_steps(steps, 0));
    const ControlProblem p = testing::scalar_problem(chain, base, linear_reward({b}), lambda);
    BackpropagationOptions o = plain_options(64);
    o.kl_weight = 1;
    BackpropagationMetrics m;
    const std::vector<double> g = numbers(Backpropagation(p, base, o).gradient(m).parameters);
    testing::AffineSteps optimum = affine_steps(steps, 0);
    for (const int k : p.controlled_steps())
      optimum.theta[k] = Var(Tensor::full({1}, -g[k] * chain.std[k] * chain.std[k] / (chain.C[k] * chain.C[k])));
    EXPECT_EQ(g.back(), chain.std.back() > 0 ? g.back() : 0.0);
    const nn::Network tuned(optimum);
    for (const double v : numbers(Backpropagation(p, tuned, o).gradient(m).parameters)) EXPECT_NEAR(v, 0, 1e-4);
    const sde::NoiseKey key{11, 0};
    const double shift = mean(simulate(field_of(tuned), p, 64, key, {.base_predictions = false}).terminal().to_doubles()) -
                         mean(simulate(field_of(base), p, 64, key, {.base_predictions = false}).terminal().to_doubles());
    EXPECT_NEAR(shift, b * lambda * tilted, 1e-4);
    EXPECT_NEAR(m.control_cost, b * b * lambda * lambda * tilted / 2, 1e-4);
  }
}

// Affine base steps, a quadratic reward and quadratic costs: V_k = -q x^2/2 + p x + c of the family of mean shifts by
//   q' = A^2 q/(1 + q s^2) + h,  p' = A p/(1 + q s^2),  c' = c - q s^2/2 + s^2 p^2/(2 (1 + q s^2)),  f_k = h x^2/2.
TEST(RelativeEntropy, TrainingReachesTheLinearQuadraticOptimum) {
  constexpr int steps = 8;
  constexpr double A = .9, s = .35, kappa = 1.2, target = 1.5, h = .1;
  const sde::Chain chain = testing::constant_chain(steps, A, 1, s);
  const nn::Network base(affine_steps(steps, 0));
  ControlProblem p = testing::scalar_problem(chain, base, quadratic_reward({target}, {kappa}));
  p.state_cost = [](int, const Var& x) { return affine(sum(square(x), 1), h / 2, 0.0); };
  double q = kappa, linear = kappa * target, c = -kappa * target * target / 2;
  for (int k = 0; k < steps; ++k) {
    const double w = 1 + q * s * s;
    c += -q * s * s / 2 + s * s * linear * linear / (2 * w);
    q = A * A * q / w + h, linear = A * linear / w;
  }
  const double optimum = c - q / 2;  // x_0 ~ N(0, 1)
  BackpropagationOptions o = plain_options(128);
  o.kl_weight = 1;
  o.learner.lr = {.peak = .05, .total = 300, .decay = nn::LearningRate::Decay::cosine, .final = .02};
  Backpropagation trainer(p, nn::Network(affine_steps(steps, 0, 0, true)), o);
  for (int n = 0; n < 300; ++n) trainer.step();
  BackpropagationOptions fresh = plain_options(20000);
  fresh.seed = 99, fresh.kl_weight = 1;
  BackpropagationMetrics m, before;
  Backpropagation(p, trainer.network(), fresh).gradient(m);
  Backpropagation(p, base, fresh).gradient(before);
  // Sampling x_0 leaves 3 standard errors of at most 1.2/sqrt(20000) = .025 in J; what training has left to gain is below that.
  EXPECT_NEAR(-m.loss, optimum, .03);
  EXPECT_LT(-before.loss, optimum - .3);
}

TEST(RelativeEntropy, MetaPredictsThePeakToTheByteAndThreadsDoNotMatter) {
  struct Outcome {
    memory::Usage peak;
    std::vector<double> parameters;
  };
  const auto run = [](Device device, int which) {
    Outcome out;
    const memory::PeakScope scope;
    {
      const nn::Network base = mlp(1, DType::f32, device);
      ControlProblem p{.chain = sde::euler_maruyama({}, sde::uniform_grid(6)), .base = field_of(base), .sample_shape = {2},
                       .reward = linear_reward({1.0, -1.0})};
      p.device = device;
      BackpropagationOptions o = plain_options(200);
      if (which == 0) o.kl_weight = 1, o.adjoint.method = sde::AdjointMethod::binomial, o.adjoint.slots = 2;
      if (which == 1) o.detached_inputs = true, o.trained_steps = 2, o.stop_from = .5, o.stop_to = 1;
      if (which == 2) o.truncation = BackpropagationOptions::Truncation::last, o.renoisings = 2, o.micro_batch = 90;
      if (which == 3) o.kl_weight = 1, o.keep_activations = true;
      Backpropagation trainer(std::move(p), nn::clone(base), o);
      for (int i = 0; i < 3; ++i) trainer.step();
      if (device == Device::cpu) out.parameters = numbers(nn::parameters(trainer.network()));
    }
    out.peak = scope.peak();
    return out;
  };
  for (int which = 0; which < 4; ++which) {
    std::vector<double> parameters;
    for (const int n : {1, 2}) {
      set_threads(n);
      const Outcome cpu = run(Device::cpu, which), meta = run(Device::meta, which);
      EXPECT_EQ(cpu.peak, meta.peak) << which << "\n" << to_string(cpu.peak) << "\n" << to_string(meta.peak);
      if (n == 2) {
        EXPECT_EQ(cpu.parameters, parameters) << which;
      }
      parameters = cpu.parameters;
    }
  }
  set_threads(1);
}

}  // namespace
}  // namespace costate::finetune
