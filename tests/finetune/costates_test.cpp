// The costates of value-gradient regression: the full one against backpropagation, the continuous one against the full, and
// the unbiasedness of those with path weights, whatever the policy.
#include <costate/autograd/ops.h>
#include <costate/finetune/evaluate/estimate.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/regression/policy_iteration.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/nn/mlp.h>
#include <costate/sde/adjoint/adjoint.h>
#include <costate/sde/chain_process.h>
#include <costate/sde/sampler.h>
#include <gtest/gtest.h>

#include <cmath>

#include "backpropagation_support.h"

namespace costate::finetune {
namespace {

using sde::uniform_grid;
using Options = ValueGradientOptions;
using Costate = Options::Costate;

nn::VelocityMlp network(std::uint64_t seed, DType dtype) {
  nn::Init init(seed, dtype);
  nn::MlpOptions mlp;
  mlp.hidden = 12, mlp.depth = 2, mlp.time_frequencies = 2;
  nn::VelocityMlp n = nn::make_velocity_mlp(mlp, init);
  n.output = nn::make_linear(init, 12, 2);
  return n;
}

struct Backpropagated {
  ControlProblem problem;
  nn::Network tuned;
  Tensor x0;
  std::vector<Tensor> states;
  std::function<Tensor(const Tensor&)> terminal;  // -lambda grad r
};
Backpropagated small_problem(const sde::Chain& chain) {
  Backpropagated p{{chain, field_of(network(1, DType::f64)), {2}, quadratic_reward({0.5, -1}, {1, 0.3, 0.3, 0.7})},
                   network(2, DType::f64), sde::initial_noise({2}, 7, {3, 0}, DType::f64), {}, {}};
  p.problem.reward_multiplier = 1.5;
  p.problem.state_cost = [](int k, const Var& x) { return affine(sum(square(x), 1), 0.01 * (k + 1), 0.0); };
  p.states.push_back(sde::rollout(field_of(p.tuned), chain, p.x0, {}, {3, 0},
                                  [&](int, const Tensor& x, const Tensor&) { p.states.push_back(x); }));
  p.terminal = [reward = p.problem.reward](const Tensor& x) {
    return affine(Var(reward.value_and_gradient(x).gradient), -1.5, 0.0).value();
  };
  return p;
}
using Law = void (*)(const CostateInputs&, Tensor, const CostateVisitor&);
// The gradient of sum_k |u_k + std_k a_{k+1}|^2/2 with respect to the tuned network, paths and costates held.
std::vector<double> regression_gradient(const Backpropagated& p, Law law) {
  const sde::Chain& chain = p.problem.chain;
  const std::vector<double> ones(static_cast<std::size_t>(chain.steps()), 1.0);
  std::vector<Tensor> a(ones.size()), base(ones.size());
  const CostateInputs in{p.problem, field_of(p.tuned), ones, [&](int k) { return p.states[static_cast<std::size_t>(k)]; },
                         {},        0,                 false, [](int) { return true; }};
  law(in, p.terminal(p.states.back()), [&](int k, const Tensor& prediction, const Tensor& next, const Tensor&) {
    base[static_cast<std::size_t>(k)] = prediction, a[static_cast<std::size_t>(k)] = next;
  });
  Tape tape;
  std::vector<Var> watched;
  const nn::Network tuned = nn::watch(p.tuned, tape, watched);
  Var loss(Tensor::scalar(0, DType::f64));
  for (int k = 0; k < chain.steps(); ++k) {
    if (chain.std[k] == 0) continue;
    const Tensor& x = p.states[static_cast<std::size_t>(k)];
    const Var prediction = tuned(Var(x), Var(sde::step_time(chain, k, x)), {});
    const Var residual = matching_residual(chain.C[k] / chain.std[k], prediction, Var(base[static_cast<std::size_t>(k)]),
                                           chain.std[k], Var(a[static_cast<std::size_t>(k)]));
    loss = add(loss, affine(sum(square(residual)), 0.5, 0.0));
  }
  std::vector<double> all;
  for (const Tensor& g : std::move(tape).vjp(loss, watched)) {
    const auto v = g.to_doubles();
    all.insert(all.end(), v.begin(), v.end());
  }
  return all;
}
double relative_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0, worst = 0;
  for (const double v : b) largest = std::max(largest, std::abs(v));
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst / largest;
}

TEST(Costates, TheFullOneHasTheGradientOfBackpropagation) {
  // To rounding: the same sums in another order. With a state cost; steps without noise, whose mean backpropagation would
  // move as well, have no control and are not in these chains.
  for (const sde::Chain& chain :
       {sde::euler_maruyama({}, uniform_grid(9)), sde::euler_maruyama_constant({}, uniform_grid(9), 0.7)}) {
    const Backpropagated p = small_problem(chain);
    const sde::ParametricField field = parametric_field_of(p.tuned);
    const sde::RunningCost cost{[&](int k, const Var& x) { return sum(p.problem.state_cost(k, x)); }, p.problem.base};
    const sde::Gradient g =
        sde::gradient(sde::chain_process(field, chain, {}, {3, 0}, cost), p.x0, [&](const Tensor& x) { return p.terminal(x); });
    std::vector<double> exact;
    for (const Tensor& t : g.parameters) {
      const auto v = t.to_doubles();
      exact.insert(exact.end(), v.begin(), v.end());
    }
    EXPECT_LT(relative_difference(regression_gradient(p, full_costates), exact), 1e-10);
    EXPECT_GT(relative_difference(regression_gradient(p, lean_costates), exact), 0.01);  // another gradient, away from u*
  }
}

TEST(Costates, TheContinuousOneIsFirstOrder) {
  // Its gradient approaches that of the discrete adjoint with slope 1 in h, for dX = prediction dt + 0.7 dB, whose
  // coefficients are smooth up to the ends.
  const auto error = [&](int steps) {
    sde::Chain chain = sde::euler_ode({}, uniform_grid(steps));
    for (int k = 0; k < steps; ++k) chain.std[k] = 0.7 * std::sqrt(1.0 / steps);
    Backpropagated p = small_problem(chain);
    p.problem.state_cost = [steps](int, const Var& x) { return affine(sum(square(x), 1), 0.1 / steps, 0.0); };
    return relative_difference(regression_gradient(p, continuous_costates), regression_gradient(p, full_costates));
  };
  const double e1 = error(40), e2 = error(80), e3 = error(160);
  EXPECT_NEAR(std::log2(e1 / e3), 2.0, 0.5) << e1 << ' ' << e2 << ' ' << e3;  // paths differ from one grid to another
  EXPECT_LT(e3, 0.05);
}

TEST(Costates, StepsBelowTheFirstAreNotPulledBack) {
  const Backpropagated p = small_problem(sde::exact_memoryless({}, uniform_grid(9)));
  const std::vector<double> ones(9, 1.0);
  for (const Law law : {&lean_costates, &full_costates, &continuous_costates})
    for (const bool at_first : {false, true}) {
      const auto run = [&](int first, bool at) {
        std::vector<std::vector<double>> seen(18);
        const CostateInputs in{p.problem, field_of(p.tuned), ones, [&](int k) { return p.states[static_cast<std::size_t>(k)]; },
                               {}, first, at, [](int) { return true; }};
        law(in, p.terminal(p.states.back()), [&](int k, const Tensor& prediction, const Tensor& next, const Tensor& a) {
          if (k >= first && k < 8) { EXPECT_TRUE(prediction.defined()) << k; }
          if (next.defined()) seen[static_cast<std::size_t>(k)] = next.to_doubles();
          if (a.defined()) seen[static_cast<std::size_t>(9 + k)] = a.to_doubles();
        });
        return seen;
      };
      const auto all = run(0, true), some = run(4, at_first);
      for (int k = 0; k < 9; ++k) {
        EXPECT_EQ(some[static_cast<std::size_t>(k)], k >= 4 ? all[static_cast<std::size_t>(k)] : std::vector<double>()) << k;
        if (k > 4 || (k == 4 && at_first)) {
          EXPECT_EQ(some[static_cast<std::size_t>(9 + k)], all[static_cast<std::size_t>(9 + k)]) << k;
        }
      }
    }
}

// ---------------------------------------------------------------------------------------------- linear-quadratic problems

// base(x, t) = J_k x + h_k and a perturbation theta_k + W_k x a step, as one "network": the affine policy that a linear-
// quadratic problem needs. Predictions are mean shifts: A = 0, C = 1.
struct AffineNetwork {
  int steps = 1, dim = 1;
  Var matrix;  // (steps, dim * dim), row-major: x -> M x
  Var shift;   // (steps, dim)
  Var operator()(const Var& x, const Var& t, const Tensor&) const {
    std::vector<std::int32_t> step;
    if (t.value().is_meta()) step.resize(static_cast<std::size_t>(t.numel()));
    else
      for (const double v : t.value().to_doubles()) step.push_back(static_cast<std::int32_t>(std::lround(v * steps)));
    const Tensor index = Tensor::from(step, t.shape(), t.device());
    const Var m = reshape(gather_rows(matrix, index), {x.extent(0), dim, dim});
    return add(reshape(matmul(m, reshape(x, {x.extent(0), dim, 1})), {x.extent(0), dim}), gather_rows(shift, index));
  }
  void visit(const nn::Visitor& v) {
    v("matrix", matrix);
    v("shift", shift);
  }
};
AffineNetwork affine_network(const AffineChain& chain, const std::vector<AffineMap>* shift = nullptr) {
  const auto steps = static_cast<int>(chain.mean.size());
  std::vector<float> M, m;
  for (std::size_t k = 0; k < chain.mean.size(); ++k) {
    for (std::size_t i = 0; i < chain.mean[k].M.size(); ++i)
      M.push_back(static_cast<float>(chain.mean[k].M[i] + (shift ? (*shift)[k].M[i] : 0)));
    for (std::size_t i = 0; i < chain.mean[k].m.size(); ++i)
      m.push_back(static_cast<float>(chain.mean[k].m[i] + (shift ? (*shift)[k].m[i] : 0)));
  }
  return {steps, chain.dim, Var(Tensor::from(M, {steps, chain.dim * chain.dim})), Var(Tensor::from(m, {steps, chain.dim}))};
}

// A plane with rotation and noise, a quadratic reward and state cost, from a point: no generative model at all.
struct LinearQuadratic {
  AffineChain chain;
  AffinePolicy optimum;
  ControlProblem problem;
};
LinearQuadratic linear_quadratic(int steps) {
  const double h = 1.0 / steps;
  LinearQuadratic p;
  p.chain.dim = 2;
  for (int k = 0; k < steps; ++k) {
    p.chain.mean.push_back({{1 - 0.3 * h, 1.2 * h, -0.8 * h, 1 + 0.1 * h}, {0.2 * h, 0}});
    p.chain.std.push_back(std::sqrt(h));
  }
  // r = c.x - (x - v)^T P (x - v)/2; f_k = h |x|^2/4.
  const std::vector<double> P{0.8, 0.3, 0.3, 0.5}, v{0.4, -0.2};
  const Quadratic reward{{-0.8, -0.3, -0.3, -0.5}, {0.8 * 0.4 - 0.3 * 0.2 + 0.6, 0.3 * 0.4 - 0.5 * 0.2 - 0.3}, 0};
  const std::vector<Quadratic> costs(static_cast<std::size_t>(steps), Quadratic{{h / 2, 0, 0, h / 2}, {0, 0}, 0});
  p.optimum = iterate_policy(p.chain, reward, {}, costs);
  sde::Chain chain = sde::euler_ode({}, uniform_grid(steps));
  for (int k = 0; k < steps; ++k) chain.A[k] = 0, chain.C[k] = 1, chain.std[k] = std::sqrt(h);
  p.problem.chain = chain;
  p.problem.base = field_of(affine_network(p.chain));
  p.problem.sample_shape = {2};
  p.problem.reward = quadratic_reward(v, P, {0.6, -0.3});
  p.problem.state_cost = [h](int, const Var& x) { return affine(sum(square(x), 1), h / 4, 0.0); };
  p.problem.initial = [](std::int64_t rows, const sde::NoiseKey&) {
    return broadcast_to(Var(Tensor::from(std::vector<float>{0.5f, 1.0f}, {1, 2})), {rows, 2}).value().clone();
  };
  return p;
}
// Means over seeds of the gradient at `policy`, summed over steps: 4 of the matrices and 2 of the shifts.
std::vector<Estimate> mean_gradient(const LinearQuadratic& p, const nn::Network& policy, Options options, int seeds) {
  std::vector<std::vector<double>> columns(6);
  for (int seed = 0; seed < seeds; ++seed) {
    options.seed = static_cast<std::uint64_t>(seed);
    ValueGradientMetrics metrics;
    const Gradients g = ValueGradientRegression(p.problem, policy, options).gradient(metrics);
    const auto M = g.parameters[0].to_doubles(), m = g.parameters[1].to_doubles();
    std::vector<double> sums(6);
    for (std::size_t i = 0; i < M.size(); ++i) sums[i % 4] += M[i];
    for (std::size_t i = 0; i < m.size(); ++i) sums[4 + i % 2] += m[i];
    for (std::size_t i = 0; i < 6; ++i) columns[i].push_back(sums[i]);
  }
  std::vector<Estimate> out;
  for (const auto& c : columns) out.push_back(mean_estimate(c));
  return out;
}
struct Case {
  const char* name;
  Options options;
};
std::vector<Case> unbiased_cases() {
  Options lean, full, weighted, constant, learned, sticking;
  full.costate = sticking.costate = Costate::full;
  sticking.sticking_the_landing = true;
  weighted.path_weights = true;
  constant.costate = learned.costate = Costate::reparametrised;
  constant.path_weights = learned.path_weights = true;
  constant.reparametrisation.learned = false;
  learned.reparametrisation.scale = 1, learned.reparametrisation.hidden = 16;  // far from 1: any matrices will do
  return {{"lean", lean}, {"full", full}, {"lean, weighted", weighted}, {"M = 1", constant}, {"learnt M", learned},
          {"full, sticking", sticking}};
}

TEST(Costates, TheGradientVanishesAtTheDiscreteOptimum) {
  // The policy of the Riccati recursion is the exact optimum of the discrete problem (under path weights, too: its control is
  // the mean noise under the optimal law), so that nothing but sampling is left: 3 standard errors of 24 batches of 256,
  // 5 for the 30 numbers of all cases together.
  const LinearQuadratic p = linear_quadratic(12);
  const nn::Network optimum = affine_network(p.chain, &p.optimum.shift), base = affine_network(p.chain);
  for (Case& c : unbiased_cases()) {
    double away = 0;
    c.options.batch = 256;
    for (const Estimate& e : mean_gradient(p, optimum, c.options, 24))
      EXPECT_LT(std::abs(e.value), 4 * e.standard_error) << c.name << ": " << e.value << " +- " << e.standard_error;
    for (const Estimate& e : mean_gradient(p, base, c.options, 6)) away = std::max(away, std::abs(e.value) / e.standard_error);
    EXPECT_GT(away, 8) << c.name;  // the test can tell
  }
}

TEST(Costates, StickingTheLandingTakesTheVarianceAtTheOptimum) {
  // The loss of a step at the optimum is the variance of std_k a_{k+1} given x_k: O(h), and O(h^2) when the costate is the
  // gradient of the value along the path, one more order from the quadrature of the noise.
  const auto loss = [](int steps, bool sticking) {
    const LinearQuadratic p = linear_quadratic(steps);
    Options o;
    o.costate = Costate::full, o.batch = 256, o.sticking_the_landing = sticking;
    ValueGradientMetrics metrics;
    ValueGradientRegression(p.problem, affine_network(p.chain, &p.optimum.shift), o).gradient(metrics);
    return metrics.loss * steps;
  };
  EXPECT_GT(loss(96, false), 0.7 * loss(12, false));
  EXPECT_LT(loss(96, true), 0.2 * loss(12, true)) << loss(12, true);
  EXPECT_LT(loss(96, true), 0.05 * loss(96, false));
}

TEST(Costates, UnderPathWeightsAllHaveTheSameMean) {
  // Away from the optimum the three agree in the mean of the gradient too, where the unweighted lean one does not: E over the
  // optimal law of (u - u*) du/dtheta. The running mean of one batch is a ratio estimate, biased by O(1/batch): 1 % here.
  const LinearQuadratic p = linear_quadratic(12);
  const nn::Network base = affine_network(p.chain);
  std::vector<Case> cases = unbiased_cases();
  for (Case& c : cases) c.options.batch = 768;
  const auto reference = mean_gradient(p, base, cases[2].options, 12),
             unweighted = mean_gradient(p, base, cases[0].options, 12);
  double differs = 0;
  for (const std::size_t i : {3, 4}) {
    const auto other = mean_gradient(p, base, cases[i].options, 12);
    for (std::size_t j = 0; j < 6; ++j)
      EXPECT_NEAR(other[j].value, reference[j].value,
                  4 * std::hypot(other[j].standard_error, reference[j].standard_error) + 0.01 * std::abs(reference[j].value))
          << cases[i].name;
  }
  for (std::size_t j = 0; j < 6; ++j)
    differs = std::max(differs, std::abs(unweighted[j].value - reference[j].value) /
                                    std::hypot(unweighted[j].standard_error, reference[j].standard_error));
  EXPECT_GT(differs, 6);
}

TEST(Costates, LearntMatricesLowerTheResidual) {
  // At the optimum the loss is the variance of the target; learning the matrices lowers it (M_j = d x_j/d x_k would leave
  // that of the lean adjoint), and moves gamma and N.
  const LinearQuadratic p = linear_quadratic(12);
  Options o = unbiased_cases()[4].options;
  o.batch = 128, o.reparametrisation.scale = 0.3, o.reparametrisation.learner.lr.peak = 1e-2;
  o.learner.lr.peak = 1e-12;  // the policy stays
  ValueGradientRegression socm(p.problem, affine_network(p.chain, &p.optimum.shift), o);
  double first = 0, last = 0;
  for (int i = 0; i < 120; ++i) {
    const Metrics m = socm.step();
    if (i < 10) first += m["loss"] / 10;
    if (i >= 110) last += m["loss"] / 10;
  }
  EXPECT_LT(last, 0.6 * first) << first << " -> " << last;
  EXPECT_GT(socm.last().ess, 0.9);  // at the optimum all paths count alike, but for the family's fixed variance
}

// A constant drift: a_k = A a_{k+1} from a_K = -lambda b on, whatever the path; the matrices of M = 1 are the identity, and its
// costates hold b and the noise.
TEST(Costates, TheReportedNormIsThatOfTheLargest) {
  constexpr int steps = 6;
  const nn::Network net(testing::affine_steps(steps, 0.1));
  for (const double A : {0.9, 1.2}) {
    const ControlProblem p = testing::scalar_problem(testing::constant_chain(steps, A, 1, 0.3), net, linear_reward({2.0}), 0.5);
    const auto norm = [&](Costate costate, bool path_weights) {
      Options o{.costate = costate, .batch = 8, .path_weights = path_weights};
      o.reparametrisation.learned = false;
      return ValueGradientRegression(p, net, o).step()["costate_norm"];
    };
    const double exact = std::max(1.0, std::pow(A, steps - 1));
    for (const Costate costate : {Costate::lean, Costate::full}) EXPECT_NEAR(norm(costate, false), exact, 1e-5);
    const double with_noise = norm(Costate::reparametrised, true);  // that of the last step is b alone
    EXPECT_GE(with_noise, 1 - 1e-6);
    EXPECT_LT(with_noise, 2 * exact);
  }
}

TEST(Costates, WhatCannotBeIsRefusedInWords) {
  const LinearQuadratic p = linear_quadratic(6);
  const nn::Network base = affine_network(p.chain);
  const auto refuses = [&](const char* part, Options o, const ControlProblem& problem) {
    try {
      ValueGradientRegression trainer(problem, base, o);
      ADD_FAILURE() << "no error about " << part;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
  };
  Options o = unbiased_cases()[4].options;
  ControlProblem problem = p.problem;
  problem.chain.std[2] = 0;
  refuses("only the last steps may be without", o, problem);
  problem = p.problem;
  problem.sample_shape = {65};
  refuses("at most 64", o, problem);
  Options bare = o;
  bare.path_weights = false;
  refuses("it needs path weights", bare, p.problem);
  Options lean;
  lean.sticking_the_landing = true;
  refuses("the variance from the full costate", lean, p.problem);
  Options full = o;
  full.costate = Costate::full;
  refuses("lean and reparametrised", full, p.problem);
  Options cut = o;
  cut.micro_batch = 8;
  refuses("micro_batch must be 0", cut, p.problem);
  Options weights = o;
  weights.kl_weights = {2};
  refuses("kl_weights must be 1", weights, p.problem);
  Options pairing;
  pairing.costate = Costate::value, pairing.pairing = Options::Pairing::same;
  refuses("`next` only", pairing, p.problem);
  Options numbers;
  numbers.kl_weights = {1, 1};
  refuses("expected none, one, or one a step, 6", numbers, p.problem);
}

}  // namespace
}  // namespace costate::finetune
