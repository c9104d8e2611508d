// Scalar chains with networks whose gradients are known by hand.
#pragma once
#include <costate/autograd/ops.h>
#include <costate/finetune/backpropagation/backpropagation.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/rollout.h>

#include <cmath>

namespace costate::finetune::testing {

// N(x, t_k) = theta_k + slope_k x + fixed x, where step k is known by t_k = k / steps: one number, or two, a step.
struct AffineSteps {
  std::vector<Var> theta, slope;  // (1,) each; slope may be empty
  double fixed = 0;
  Var operator()(const Var& x, const Var& t, const Tensor&) const {
    const auto k = static_cast<std::size_t>(std::lround(t.value().to_doubles()[0] * static_cast<double>(theta.size())));
    Var out = add(affine(x, fixed, 0.0), theta[k]);
    return slope.empty() ? out : add(out, mul(x, slope[k]));
  }
  void visit(const nn::Visitor& v) {
    for (std::size_t k = 0; k < theta.size(); ++k) v("theta." + std::to_string(k), theta[k]);
    for (std::size_t k = 0; k < slope.size(); ++k) v("slope." + std::to_string(k), slope[k]);
  }
};
inline AffineSteps affine_steps(int steps, double theta, double fixed = 0, bool slopes = false) {
  AffineSteps net;
  net.fixed = fixed;
  for (int k = 0; k < steps; ++k) net.theta.emplace_back(Tensor::full({1}, theta));
  for (int k = 0; slopes && k < steps; ++k) net.slope.emplace_back(Tensor::full({1}, 0.0));
  return net;
}

inline sde::Chain constant_chain(int steps, double A, double C, double std) {
  sde::Chain chain;
  for (int k = 0; k <= steps; ++k) chain.t.push_back(static_cast<double>(k) / steps);
  const auto n = static_cast<std::size_t>(steps);
  chain.A.assign(n, A), chain.C.assign(n, C), chain.std.assign(n, std);
  chain.description = "a chain of constant steps";
  return chain;
}

inline ControlProblem scalar_problem(sde::Chain chain, const nn::Network& base, Reward reward, double multiplier = 1) {
  return {.chain = std::move(chain), .base = field_of(base), .sample_shape = {1}, .reward = std::move(reward),
          .reward_multiplier = multiplier};
}

// Options without clipping and averages, whose one update is far from any limit.
inline BackpropagationOptions plain_options(std::int64_t batch) {
  BackpropagationOptions o;
  o.batch = batch, o.seed = 7;
  o.learner.clip_norm = 0, o.learner.ema_decay = 0;
  return o;
}

inline std::vector<double> numbers(const std::vector<Tensor>& tensors) {
  std::vector<double> out;
  for (const Tensor& t : tensors)
    for (const double v : t.to_doubles()) out.push_back(v);
  return out;
}

inline double mean(const std::vector<double>& v) {
  double s = 0;
  for (const double e : v) s += e;
  return s / static_cast<double>(v.size());
}

}  // namespace costate::finetune::testing
