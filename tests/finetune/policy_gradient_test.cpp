// Policy gradients against closed forms: gradients on Gaussian chains, stationary points of linear-quadratic problems.
#include <costate/finetune/problem/linear_gaussian.h>
#include <costate/sde/diffusion.h>
#include <costate/sde/grid.h>
#include <costate/tensor/parallel.h>

#include "finetune/policy_gradient_support.h"

namespace costate::finetune {
namespace {

using namespace testing;
using Options = PolicyGradientOptions;
using Loss = Options::Loss;
using Divergence = Options::Divergence;

Options plain(Loss loss, Baseline baseline, Divergence divergence) {
  Options o;
  o.loss = loss, o.advantage.baseline = baseline, o.divergence = divergence;
  return o;
}

// x' = 0.9 x + theta_k + 0.3 e, ten steps from N(0, 1), r = -(x - 3/2)^2/2, theta_k = 0.05.
ControlProblem ten_steps() {
  ControlProblem p = plain_chain(10, 0.9, 1.0, 0.3, quadratic_reward({1.5}, {1.0}));
  p.initial = {};
  return p;
}

TEST(PolicyGradient, ScoreFunctionOnAGaussianChain) {
  // dJ/dtheta_k = -(E x_T - 1.5) 0.9^{9-k}. The deviation of one path's estimate is known from quadrature: 4.5 to 4.9
  // without a baseline, 3.2 to 3.5 with the mean; 13 % is three standard errors of a deviation from 256 batches.
  const ControlProblem problem = ten_steps();
  const AffinePolicy policy = affine_policy(problem, std::vector<double>(10, 0.05));
  double end = 0;
  for (int k = 0; k < 10; ++k) end = 0.9 * end + 0.05;
  const std::vector<std::size_t> some{0, 3, 6, 9};
  const double exact[] = {0.45496, 0.62409, 0.85609, 1.17434};
  double deviation[2][4];
  for (const Baseline b : {Baseline::none, Baseline::batch}) {
    const Columns g = gradients(problem, policy, plain(Loss::score_function, b, Divergence::none), 256, some);
    for (std::size_t j = 0; j < 4; ++j) {
      EXPECT_NEAR(exact[j], -(end - 1.5) * std::pow(0.9, 9 - static_cast<double>(some[j])), 1e-5);
      EXPECT_NEAR(-g.mean(j), exact[j], 3 * g.error(j)) << j;
      deviation[b == Baseline::batch][j] = 16 * g.deviation(j);  // batches of 256
    }
  }
  for (int j = 0; j < 4; ++j) {
    EXPECT_GT(deviation[0][j], 4.5 * 0.87);
    EXPECT_LT(deviation[0][j], 4.9 * 1.13);
    EXPECT_GT(deviation[1][j], 3.2 * 0.87);
    EXPECT_LT(deviation[1][j], 3.5 * 1.13);
    EXPECT_LT(deviation[1][j], 0.85 * deviation[0][j]);
  }
}

TEST(PolicyGradient, BaselinesLeaveTheMeanAlone) {
  // The group, label and value baselines against the exact gradient, 3 standard errors. The critic is that of the first
  // iteration: any function of the state will do. Labels without enough returns take the batch's mean, a share 1/256 short.
  const ControlProblem problem = ten_steps();
  const AffinePolicy policy = affine_policy(problem, std::vector<double>(10, 0.05));
  const double exact[] = {0.45496, 0.62409, 0.85609, 1.17434};
  for (const Baseline b : {Baseline::group, Baseline::label, Baseline::value}) {
    Options o = plain(Loss::score_function, b, Divergence::none);
    if (b == Baseline::group) o.advantage.group_size = 4;
    const Columns g = gradients(problem, policy, o, 96, {0, 3, 6, 9});
    for (std::size_t j = 0; j < 4; ++j)
      EXPECT_NEAR(-g.mean(j), exact[j] * (b == Baseline::label ? 255.0 / 256 : 1.0), 3 * g.error(j)) << j;
  }
}

// Of a reward that is 100 everywhere nothing is left to learn. A critic is calibrated to the mean of the first returns before it is
// asked, and takes it off; what is left is the output of its network, about 1 before it has learnt.
TEST(PolicyGradient, ACriticTakesAConstantRewardOff) {
  ControlProblem problem = ten_steps();
  problem.reward = {.name = "constant", .black_box = [](const Tensor& x) { return Tensor::full({x.extent(0)}, 100.0); }};
  const AffinePolicy policy = affine_policy(problem, std::vector<double>(10, 0.05));
  const auto largest = [&](Baseline b) {
    PolicyGradient pg("test", problem, policy, plain(Loss::score_function, b, Divergence::none));
    double most = 0;
    for (const double v : flat(pg.gradient(pg.sample()))) most = std::max(most, std::abs(v));
    return most;
  };
  const double without = largest(Baseline::none);
  EXPECT_GT(without, 1);
  EXPECT_LT(largest(Baseline::value), 0.05 * without);
}

TEST(PolicyGradient, AtTheirOwnPathsRatiosAreScoreFunctions) {
  // delta_k = 0 has the same bits whatever the chunk, for this policy: all three surrogates have one gradient, to the bit.
  const ControlProblem problem = ten_steps();
  const AffinePolicy policy = affine_policy(problem, std::vector<double>(10, 0.05), std::vector<double>(10, -0.1));
  std::vector<double> reference;
  for (const Loss loss : {Loss::score_function, Loss::clipped_ratio, Loss::clamped_ratio}) {
    PolicyGradient pg("test", problem, policy, plain(loss, Baseline::batch, Divergence::in_return));
    const auto g = flat(pg.gradient(pg.sample()));
    if (reference.empty()) reference = g;
    EXPECT_EQ(g, reference);
  }
}

TEST(PolicyGradient, MeanLogRatioIsMeanControlCost) {
  // E sum log p_u/p = E sum |u|^2/2 for a control that depends on the state: 3 standard errors of their difference.
  const ControlProblem problem = ten_steps();
  PolicyGradient pg("test", problem, affine_policy(problem, std::vector<double>(10, 0.05), std::vector<double>(10, 0.2)),
                    [] {
                      Options o = plain(Loss::log_variance, Baseline::none, Divergence::none);
                      o.batch = 4000;
                      return o;
                    }());
  const PathBatch b = pg.sample();
  const std::vector<double> ratio = b.path_log_ratio();
  Columns difference;
  double cost = 0;
  for (std::size_t i = 0; i < ratio.size(); ++i) {
    double c = 0;
    for (const auto& row : b.control_cost) c += row[i];
    difference.rows.push_back({ratio[i] - c});
    cost += c / static_cast<double>(ratio.size());
  }
  EXPECT_NEAR(difference.mean(0), 0, 3 * difference.error(0));
  EXPECT_GT(cost, 30 * difference.error(0));  // the test can tell
}

// The linear-quadratic problem: data N(0.5, 0.8), r = -(x - 2)^2/2, exact predictions, a DDPM of 50 steps with the variance of
// the posterior. Values are quadratic and policies affine, so that stationary points are recursions.
struct LinearQuadratic {
  ControlProblem problem;
  std::vector<double> J, h;  // base mean of step k: J x + h
};
LinearQuadratic linear_quadratic(int steps) {
  const sde::Schedule schedule = sde::diffusion_schedule(sde::BetaLaw::linear, 1000);
  const sde::Chain chain = sde::ddim(schedule, sde::uniform_grid(steps), 1.0, sde::Parametrisation::epsilon);
  LinearQuadratic lq{{.chain = chain, .base = {}, .sample_shape = {1}, .reward = quadratic_reward({2.0}, {1.0})}, {}, {}};
  std::vector<double> slope, intercept;
  for (int k = 0; k < steps; ++k) {
    const auto m = sde::gaussian_prediction(chain.prediction, schedule.at(chain.t[k]), 0.5, 0.8);
    slope.push_back(m.slope), intercept.push_back(m.intercept);
    lq.J.push_back(chain.A[k] + chain.C[k] * m.slope), lq.h.push_back(chain.C[k] * m.intercept);
  }
  const AffinePolicy exact{[](const Var& x, const Var&, const Tensor&) { return affine(x, 0.0, 0.0); }, table(intercept),
                           table(slope)};
  lq.problem.base = [exact](const Var& x, const Var& t, const Tensor& l) { return exact(x, t, l); };
  return lq;
}
// Controls d_k = p_k x + q_k that make every d_k stationary, V = Q x^2/2 + b x of the next state known: with the divergence of
// later steps in V (the optimum of J), or with V the expected reward alone.
struct Stationary {
  std::vector<double> p, q;
  double mean = 0, variance = 1, cost = 0;  // terminal law and path divergence
};
Stationary stationary(const LinearQuadratic& lq, bool divergence_in_value) {
  const sde::Chain& chain = lq.problem.chain;
  const int steps = chain.steps();
  Stationary s{std::vector<double>(steps), std::vector<double>(steps)};
  double Q = -1, b = 2;
  for (int k = steps - 1; k >= 0; --k) {
    const double J = lq.J[k], h = lq.h[k], v = chain.std[k] * chain.std[k], kappa = v * Q;
    // d = v (Q (m + d) + b): the first-order condition of E V(m + d + std e) - d^2/(2 v), m = J x + h.
    s.p[k] = kappa * J / (1 - kappa), s.q[k] = v * (Q * h + b) / (1 - kappa);
    const double slope = J + s.p[k], shift = h + s.q[k];  // of the tuned mean
    // V = Q (slope x + shift)^2/2 + b (slope x + shift) [- (p x + q)^2/(2 v)]
    const double weight = divergence_in_value && v > 0 ? 1 / v : 0;
    const double next = Q * slope * slope - weight * s.p[k] * s.p[k];
    b = Q * slope * shift + b * slope - weight * s.p[k] * s.q[k];
    Q = next;
  }
  for (int k = 0; k < steps; ++k) {
    const double v = chain.std[k] * chain.std[k];
    const double mean = s.p[k] * s.mean + s.q[k];
    if (v > 0) s.cost += (mean * mean + s.p[k] * s.p[k] * s.variance) / (2 * v);
    s.mean = (lq.J[k] + s.p[k]) * s.mean + lq.h[k] + s.q[k];
    s.variance = (lq.J[k] + s.p[k]) * (lq.J[k] + s.p[k]) * s.variance + v;
  }
  return s;
}

TEST(PolicyGradient, DivergenceInTheReturnAndInTheLossHaveStationaryPointsOfTheirOwn) {
  const LinearQuadratic lq = linear_quadratic(50);
  const Stationary optimum = stationary(lq, true), short_sighted = stationary(lq, false);
  EXPECT_NEAR(optimum.mean, 1.107, 2e-3);
  EXPECT_NEAR(optimum.cost, 0.326, 1e-3);
  EXPECT_NEAR(short_sighted.mean, 1.026, 2e-3);
  EXPECT_NEAR(short_sighted.cost, 0.252, 1e-3);
  const sde::Chain& chain = lq.problem.chain;
  const auto policy = [&](const Stationary& s) {
    std::vector<double> shift, slope;
    for (int k = 0; k < chain.steps(); ++k) shift.push_back(s.q[k] / chain.C[k]), slope.push_back(s.p[k] / chain.C[k]);
    return affine_policy(lq.problem, shift, slope);
  };
  // At its own stationary point the mean over 24 batches of each of the 98 components is some standard errors from 0: their
  // mean square is near 1 (components are correlated: 1.6 is far out). At the other's point it is not.
  for (const Divergence d : {Divergence::in_return, Divergence::in_return_and_loss, Divergence::in_loss}) {
    const bool loss_only = d == Divergence::in_loss;
    const auto chi = [&](const Stationary& s) {
      Options o = plain(Loss::score_function, Baseline::batch, d);
      o.batch = 256;
      Columns g = gradients(lq.problem, policy(s), o, 24);
      // The last step has no noise and no gradient.
      for (auto& row : g.rows) row.erase(row.begin() + 99), row.erase(row.begin() + 49);
      return g.chi_square();
    };
    const double own = chi(loss_only ? short_sighted : optimum), other = chi(loss_only ? optimum : short_sighted);
    EXPECT_LT(own, 1.6) << static_cast<int>(d);
    EXPECT_GT(other, 2.2) << static_cast<int>(d);
  }
}

// N(0, 1) data, r = x, memoryless steps: the optimum is a shift, exactly.
struct GaussianTilt {
  ControlProblem problem;
  std::vector<double> optimum;  // shifts of the prediction
};
GaussianTilt gaussian_tilt(int steps) {
  const sde::Chain chain = sde::exact_memoryless({}, sde::uniform_grid(steps));
  GaussianTilt g{{.chain = chain, .base = {}, .sample_shape = {1}, .reward = linear_reward({1.0})}, {}};
  std::vector<double> slope, intercept;
  for (int k = 0; k < steps; ++k) {
    const auto m = sde::gaussian_prediction(chain.prediction, chain.schedule.at(chain.t[k]), 0, 1);
    slope.push_back(m.slope), intercept.push_back(m.intercept);
  }
  const AffinePolicy exact{[](const Var& x, const Var&, const Tensor&) { return affine(x, 0.0, 0.0); }, table(intercept),
                           table(slope)};
  g.problem.base = [exact](const Var& x, const Var& t, const Tensor& l) { return exact(x, t, l); };
  const auto a = chain_lean_adjoint(chain, {0, 1, 1});
  for (int k = 0; k < steps; ++k) g.optimum.push_back(-chain.std[k] * chain.std[k] * a[k + 1] / chain.C[k]);
  return g;
}

TEST(PolicyGradient, LossesOfPathsVanishAtTheOptimumPathByPath) {
  // G is the same number on every path, so that coefficients, not only their mean, vanish: f32 sums leave 1e-5.
  const GaussianTilt g = gaussian_tilt(12);
  const nn::Network base = affine_policy(g.problem, std::vector<double>(12, 0.0)), best = affine_policy(g.problem, g.optimum);
  for (const Loss loss : {Loss::log_variance, Loss::trajectory_balance, Loss::variance}) {
    PolicyGradient far("test", g.problem, base, plain(loss, Baseline::none, Divergence::none));
    PolicyGradient at("test", g.problem, best, plain(loss, Baseline::none, Divergence::none));
    double away = 0, near = 0;
    for (const double v : flat(far.gradient(far.sample()))) away = std::max(away, std::abs(v));
    for (const double v : flat(at.gradient(at.sample()))) near = std::max(near, std::abs(v));
    EXPECT_LT(near, 1e-5 * away) << static_cast<int>(loss);
    const PathBatch b = at.sample();
    const auto S = b.path_score(), L = b.path_log_ratio();
    for (std::size_t i = 0; i < S.size(); ++i) EXPECT_NEAR(S[i] - L[i], S[0] - L[0], 2e-6);
  }
  // log Z of the chain's own base law, a normal one: variance/2.
  PolicyGradient at("test", g.problem, best, plain(Loss::log_variance, Baseline::none, Divergence::none));
  const Metrics m = at.step();
  EXPECT_NEAR(m["log_z"], sde::gaussian_law(g.problem.chain, 0, 1).variance / 2, 1e-5);
  EXPECT_NEAR(m["ess"], 1.0, 1e-6);
}

TEST(PolicyGradient, TheLearnedLogZAndLouderPathsFindTheSameOptimum) {
  // Trajectory balance learns from paths with 1.3 times the noise: 250 updates bring the control within 3 % of the optimum
  // (root mean square over steps, against that of the optimum) and log Z within 0.02 of its value.
  const GaussianTilt g = gaussian_tilt(6);
  Options o = plain(Loss::trajectory_balance, Baseline::none, Divergence::none);
  o.log_z = Options::LogZ::learned, o.log_z_lr = 0.02, o.noise_scale = 1.3;
  o.learner.lr = {.peak = 0.05, .total = 250, .decay = nn::LearningRate::Decay::cosine};
  PolicyGradient pg("test", g.problem, affine_policy(g.problem, std::vector<double>(6, 0.0)), o);
  for (int i = 0; i < 250; ++i) pg.step();
  const auto shift = all_parameters(pg.network());
  double error = 0, size = 0;
  for (int k = 0; k < 5; ++k) {
    const double scale = g.problem.chain.C[k] / g.problem.chain.std[k];
    error += std::pow(scale * (shift[k] - g.optimum[k]), 2), size += std::pow(scale * g.optimum[k], 2);
  }
  EXPECT_LT(std::sqrt(error / size), 0.03);
  EXPECT_NEAR(pg.log_z(), sde::gaussian_law(g.problem.chain, 0, 1).variance / 2, 0.02);
}

TEST(PolicyGradient, AWindowOfLateStepsHasItsOwnOptimum) {
  // Steps from i on, starting from samples that were noised again to level i: the mean moves by Var(x_T | x_i), which on the
  // chain is sum_{k >= i} (std_k prod_{j > k} J_j)^2, and does not reach the variance 1 of the whole tilt. Policies are
  // shifts; 300 updates leave 0.03.
  const int steps = 10, first = 5;
  const GaussianTilt g = gaussian_tilt(steps);
  Options o = plain(Loss::score_function, Baseline::group, Divergence::in_return_and_loss);
  o.batch = 512, o.advantage.group_size = 8;
  o.window.kind = WindowOptions::Kind::clusters, o.window.siblings = true, o.window.iterations = 300;
  o.window.clusters = {{first, first, 300}};
  o.learner.lr = {.peak = 0.05, .total = 300, .decay = nn::LearningRate::Decay::cosine};
  PolicyGradient pg("test", g.problem, affine_policy(g.problem, std::vector<double>(steps, 0.0)), o);
  for (int i = 0; i < 300; ++i) pg.step();
  const auto shift = all_parameters(pg.network());
  // Products of the base's Jacobians from behind: what a shift of step k does to the mean of x_T, and Var(x_T | x_first).
  const auto walk = [](const GaussianTilt& t, const std::vector<double>& by, int from) {
    double moved = 0, variance = 0, product = 1;
    const sde::Chain& c = t.problem.chain;
    for (int k = c.steps() - 1; k >= from; --k) {
      moved += c.C[k] * by[k] * product, variance += std::pow(c.std[k] * product, 2);
      product *= c.A[k] + c.C[k] * sde::gaussian_prediction(c.prediction, c.schedule.at(c.t[k]), 0, 1).slope;
    }
    return std::pair(moved, variance);
  };
  const auto [moved, variance] = walk(g, shift, first);
  EXPECT_NEAR(moved, variance, 0.03);
  for (int k = 0; k < first; ++k) EXPECT_EQ(shift[k], 0.0);  // never trained
  // The continuum's number is beta^2/(alpha^2 + beta^2) = 1/2 at t = 1/2, to which chains converge at first order.
  const double fine = walk(gaussian_tilt(400), gaussian_tilt(400).optimum, 200).second;
  EXPECT_NEAR(fine, 0.5, 0.01);
}

}  // namespace
}  // namespace costate::finetune
