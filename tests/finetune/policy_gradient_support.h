// Policies that are tables, for chains whose optima are known.
#pragma once
#include <costate/autograd/ops.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/policy_gradient/policy_gradient.h>
#include <gtest/gtest.h>

#include <cmath>

namespace costate::finetune::testing {

// prediction = base(x, t) + shift_k + slope_k x in one dimension, k the step of a uniform grid that starts at t.
struct AffinePolicy {
  sde::Field base;
  Var shift, slope;  // (K, 1); slope may be undefined

  Var operator()(const Var& x, const Var& t, const Tensor& labels) const {
    std::vector<std::int32_t> step(static_cast<std::size_t>(t.numel()));
    if (!t.value().is_meta())
      for (std::size_t i = 0; i < step.size(); ++i)
        step[i] = static_cast<std::int32_t>(std::lround(t.value().values<float>()[i] * static_cast<float>(shift.extent(0))));
    const Tensor index = Tensor::from(step, t.shape(), t.device());
    const Var moved = add(base(x, t, labels), gather_rows(shift, index));
    return slope.defined() ? multiply_add(x, gather_rows(slope, index), moved) : moved;
  }
  void visit(const nn::Visitor& v) {
    v("shift", shift);
    v("slope", slope);
  }
};

inline Var table(const std::vector<double>& values) {
  std::vector<float> v(values.begin(), values.end());
  return Var(Tensor::from(v, {static_cast<std::int64_t>(v.size()), 1}));
}
inline AffinePolicy affine_policy(const ControlProblem& problem, const std::vector<double>& shift,
                                  const std::vector<double>& slope = {}) {
  return {problem.base, table(shift), slope.empty() ? Var() : table(slope)};
}

// x' = A x + C prediction + std e, base prediction 0, x_0 = 0: closed forms by hand.
inline ControlProblem plain_chain(int steps, double A, double C, double std, Reward reward) {
  sde::Chain chain = sde::euler_ode({}, sde::uniform_grid(steps));
  for (int k = 0; k < steps; ++k) chain.A[k] = A, chain.C[k] = C, chain.std[k] = std;
  ControlProblem p{.chain = chain,
                   .base = [](const Var& x, const Var&, const Tensor&) { return affine(x, 0.0, 0.0); },
                   .sample_shape = {1},
                   .reward = std::move(reward)};
  p.initial = [](std::int64_t rows, const sde::NoiseKey&) { return Tensor::zeros({rows, 1}); };
  return p;
}

// Columns of numbers drawn batch by batch, as means with standard errors.
struct Columns {
  std::vector<std::vector<double>> rows{};
  double mean(std::size_t j) const {
    double s = 0;
    for (const auto& r : rows) s += r[j];
    return s / static_cast<double>(rows.size());
  }
  double deviation(std::size_t j) const {  // of one row
    double s = 0;
    for (const auto& r : rows) s += (r[j] - mean(j)) * (r[j] - mean(j));
    return std::sqrt(s / static_cast<double>(rows.size() - 1));
  }
  double error(std::size_t j) const { return deviation(j) / std::sqrt(static_cast<double>(rows.size())); }
  // Mean square over columns of mean/error: about 1 when all true means are 0.
  double chi_square() const {
    double s = 0;
    for (std::size_t j = 0; j < rows[0].size(); ++j) s += mean(j) * mean(j) / (error(j) * error(j));
    return s / static_cast<double>(rows[0].size());
  }
};

inline std::vector<double> flat(const Gradients& g) {
  std::vector<double> all;
  for (const Tensor& t : g.parameters) {
    const auto d = t.to_doubles();
    all.insert(all.end(), d.begin(), d.end());
  }
  return all;
}
inline std::vector<double> all_parameters(const nn::Network& network) { return flat({0, nn::parameters(network)}); }

// Gradients of `batches` independent batches.
inline Columns gradients(const ControlProblem& problem, const nn::Network& policy, PolicyGradientOptions options, int batches,
                         const std::vector<std::size_t>& keep = {}) {
  Columns out;
  for (int i = 0; i < batches; ++i) {
    options.seed = static_cast<std::uint64_t>(1000 + i);
    PolicyGradient pg("test", problem, nn::clone(policy), options);
    const auto g = flat(pg.gradient(pg.sample()));
    std::vector<double> row;
    for (const std::size_t j : keep) row.push_back(g[j]);
    out.rows.push_back(keep.empty() ? g : row);
  }
  return out;
}

}  // namespace costate::finetune::testing
