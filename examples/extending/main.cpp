// Extending Costate from outside: an operation, a reward made of it, a control problem, and an objective (weighted_paths.h).
// The optimum is known by quadrature. docs/extending.md explains each part.
#include <costate/autograd/check.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/problem/control_network.h>
#include <costate/finetune/training.h>
#include <costate/sde/sampler.h>

#include <cstdio>

#include "weighted_paths.h"

using namespace costate;

namespace {

// 1. An operation. Huber's function: x^2/2 near zero, |x| - 1/2 beyond 1. f and its derivative, for float and double.
template <class F>
Tensor mapped(const Tensor& x, const F& f) {
  Tensor y = Tensor::empty_like(x);
  const auto apply = [&]<class T>(T) {
    const auto from = x.values<T>();
    const auto to = y.mutate<T>();
    for (std::size_t i = 0; i < from.size(); ++i) to[i] = f(from[i]);
  };
  x.dtype() == DType::f64 ? apply(double{}) : apply(float{});
  return y;
}

Var huber(const Var& x) {
  const CustomRule rule{
      .name = "huber",
      .forward = [](std::span<const Tensor> in) {
        return mapped(in[0], [](auto v) { return std::abs(v) <= 1 ? v * v / 2 : std::abs(v) - decltype(v)(0.5); });
      },
      .vjp = [](const Tensor& cotangent, std::span<const Tensor> in, const Tensor&) {
        const Tensor slope = mapped(in[0], [](auto v) { return std::clamp<decltype(v)>(v, -1, 1); });
        return std::vector<Tensor>{mul(cotangent, slope).value()};
      }};
  return custom(rule, std::span<const Var>(&x, 1));
}

// 2. A reward of it: near 2 is good. Built from operations, so that its gradient follows.
finetune::Reward near_two() {
  return {.name = "near two", .value = [](const Var& x) { return -sum(huber(x - 2.0), 1); }};
}

// 3. A control problem: dX = (-X + u) dt + dB from X_0 = 0, in K Euler-Maruyama steps. The prediction is the drift.
constexpr int K = 20;
finetune::ControlProblem pulled_back() {
  const double h = 1.0 / K;
  sde::Chain chain;
  chain.noise = {sde::NoiseLaw::Kind::constant, 1};
  chain.step = sde::Step::euler_maruyama;
  chain.t = sde::uniform_grid(K);
  chain.A.assign(K, 1), chain.C.assign(K, h), chain.std.assign(K, std::sqrt(h));
  chain.description = "an Ornstein-Uhlenbeck process";
  finetune::ControlProblem problem{.chain = chain,
                                   .base = [](const Var& x, const Var&, const Tensor&) { return -x; },
                                   .sample_shape = {1},
                                   .reward = near_two()};
  problem.initial = [](std::int64_t rows, const sde::NoiseKey&) { return Tensor::zeros({rows, 1}); };
  return problem;
}

// The mean of X_K under the optimal law N(0, v) exp(r)/Z, by the trapezoidal rule.
double optimal_mean() {
  double v = 0, mass = 0, moment = 0;
  for (int k = 0; k < K; ++k) v += std::pow(1 - 1.0 / K, 2 * k) / K;
  for (double x = -8; x <= 8; x += 1e-3) {
    const double off = std::abs(x - 2), cost = off <= 1 ? off * off / 2 : off - 0.5;
    const double p = std::exp(-x * x / (2 * v) - cost);
    mass += p, moment += p * x;
  }
  return moment / mass;
}

}  // namespace

int main() {
  // The operation's rule against central differences.
  const Tensor points = Tensor::from(std::vector<double>{-3, -0.4, 0.3, 1.7}, {4});
  const std::string wrong = check_gradients([](std::span<const Var> in) { return huber(in[0]); }, {&points, 1});
  if (!wrong.empty()) return std::printf("%s\n", wrong.c_str()), 1;

  const finetune::ControlProblem problem = pulled_back();
  nn::Init init(/*seed=*/1);
  const nn::Network network = finetune::make_control_network(
      problem.base, {.dim = 1, .hidden = {32}, .activation = Activation::silu}, init);
  extending::WeightedPaths tuning(problem, network, 512, {.lr = {.peak = 1e-2}, .ema_decay = 0.95});
  finetune::train(tuning, 200, [](std::int64_t done, const finetune::Metrics& m) {
    if (done % 50 == 0) std::printf("%3d  loss %.3f  ess %.2f\n", static_cast<int>(done), m["loss"], m["ess"]);
  });

  const auto paths = simulate(finetune::field_of(tuning.average()), problem, 4000, {/*seed=*/2});
  const double tuned = mean(paths.terminal()).value().item(), best = optimal_mean();
  std::printf("mean of x: base 0, tuned %.3f, optimum %.3f\n", tuned, best);
  return std::abs(tuned - best) < 0.06 ? 0 : 1;
}
