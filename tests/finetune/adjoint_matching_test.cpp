// Adjoint matching against closed forms: no test here looks at a network that was merely trained for a while.
#include <costate/autograd/ops.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/finetune/evaluate/estimate.h>
#include <costate/sde/girsanov.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/problem/analytic_field.h>
#include <costate/finetune/problem/linear_gaussian.h>
#include <costate/finetune/problem/mixture_tilt.h>
#include <costate/sde/exponential.h>
#include <costate/tensor/parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace costate::finetune {
namespace {

using sde::uniform_grid;
using Options = ValueGradientOptions;

// A closed-form velocity plus a perturbation theta_k (a vector a step) + W x: the "network" whose right parameters are 0
// when the closed form is the optimum.
struct Perturbed {
  sde::Field velocity;
  int steps = 1;
  Var shift;   // (steps + 1, dim)
  Var linear;  // (dim, dim)
  Var operator()(const Var& x, const Var& t, const Tensor& labels) const {
    std::vector<std::int32_t> step;
    if (t.value().is_meta()) step.resize(static_cast<std::size_t>(t.numel()));
    else
      for (const float v : t.value().values<float>()) step.push_back(static_cast<std::int32_t>(std::lround(v * static_cast<float>(steps))));
    const Var moved = add(velocity(x, t, labels), gather_rows(shift, Tensor::from(step, t.shape(), t.device())));
    return add(moved, matmul(x, linear));
  }
  void visit(const nn::Visitor& v) {
    v("shift", shift);
    v("linear", linear);
  }
};
Perturbed perturbed(const sde::Field& velocity, int steps, std::int64_t dim) {
  const memory::TagScope scope(memory::Tag::parameters);
  return {velocity, steps, Var(Tensor::zeros({steps + 1, dim})), Var(Tensor::zeros({dim, dim}))};
}

std::shared_ptr<const GaussianMixture> standard_normal() {
  return std::make_shared<GaussianMixture>(GaussianMixture::isotropic(1, {1.0}, {0.0}, 1.0));
}

// Costates along given states down to a_0, without a control problem around them.
void lean_adjoint(const sde::Field& field, const sde::Chain& chain, const std::function<Tensor(int)>& state,
                  const Tensor& labels, const Tensor& terminal, const CostateVisitor& visit) {
  const ControlProblem problem{chain, field, {}, {}};
  lean_costates({problem, {}, {}, state, labels, 0, true, {}}, terminal, visit);
}

TEST(AdjointMatching, TheGradientVanishesAtTheClosedFormOptimum) {
  // Three components in the plane, an anisotropic quadratic reward. At v* the gradient with respect to any perturbation has
  // mean zero up to O(h): with K = 400 that bias is below one standard error of 16 x 256 trajectories, and each component
  // must lie within 3 of them (there are 4 parameters of W and 2 sums over steps).
  const auto base = std::make_shared<GaussianMixture>(
      GaussianMixture::isotropic(2, {0.4, 0.35, 0.25}, {-1.5, 0, 1.5, 0.5, 0.3, 1.8}, 0.4));
  const QuadraticReward reward{{}, {1.0, -0.5}, {0.5, 0.1, 0.1, 0.3}};
  const auto target = std::make_shared<GaussianMixture>(MixtureTilt(*base, reward).target());
  const int steps = 400;
  const sde::Chain chain = sde::exact_memoryless({}, uniform_grid(steps));
  Options options;
  options.batch = 256;
  options.loss_space = Options::LossSpace::velocity;  // weights that let no single step dominate the variance
  const auto statistics = [&](const sde::Field& start) {
    std::vector<std::vector<double>> draws;
    for (std::uint64_t batch = 0; batch < 16; ++batch) {
      options.seed = batch;
      ValueGradientRegression am({chain, velocity_field(base, {}), {2}, quadratic_reward(reward.nu, reward.Q)},
                                 perturbed(start, steps, 2), options);
      ValueGradientMetrics metrics;
      const Gradients g = am.gradient(metrics);
      auto d = g.parameters[1].to_doubles();
      const auto shift = g.parameters[0].to_doubles();
      double sum[2] = {};
      for (std::size_t i = 0; i < shift.size(); ++i) sum[i % 2] += shift[i];
      d.insert(d.end(), sum, sum + 2);
      draws.push_back(d);
    }
    std::vector<Estimate> all;
    for (std::size_t i = 0; i < draws[0].size(); ++i) {
      std::vector<double> column;
      for (const auto& d : draws) column.push_back(d[i]);
      all.push_back(mean_estimate(column));
    }
    return all;
  };
  for (const Estimate& e : statistics(velocity_field(target, {}))) EXPECT_LT(std::abs(e.value), 3 * e.standard_error);
  // The test can tell: at the base some component is many standard errors away.
  double largest = 0;
  for (const Estimate& e : statistics(velocity_field(base, {}))) largest = std::max(largest, std::abs(e.value) / e.standard_error);
  EXPECT_GT(largest, 20);
}

TEST(AdjointMatching, TheLeanAdjointOfAGaussianIsItsClosedForm) {
  // Base N(m, s^2) in each of 3 coordinates, linear reward: a(t) = -c alpha s^2 / (alpha^2 s^2 + beta^2), deterministic.
  // Euler-Maruyama is first order: the error at t = 1/2 must halve with h (slope within 0.15 of 1).
  const double s = 0.6;
  const std::vector<double> c{1.0, -0.5, 2.0};
  const auto base = std::make_shared<GaussianMixture>(GaussianMixture::isotropic(3, {1.0}, {0.3, -1.0, 0.0}, s));
  const sde::Field field = velocity_field(base, {});
  const auto error = [&](int steps) {
    const sde::Chain chain = sde::euler_maruyama({}, uniform_grid(steps), sde::Offset::denominator);
    std::vector<Tensor> states;
    const Tensor x0 = sde::initial_noise({3}, 4, {1, 0}, DType::f64);
    sde::rollout(field, chain, x0, Tensor(), {1, 0}, [&](int, const Tensor& x, const Tensor&) { states.push_back(x); });
    Tensor a = Tensor::from(std::vector<double>{-c[0], -c[1], -c[2]}, {1, 3});
    a = broadcast_to(Var(a), {4, 3}).value();
    double worst = 0;
    lean_adjoint(field, chain, [&](int k) { return states[k]; }, Tensor(), a,
                      [&](int k, const Tensor&, const Tensor&, const Tensor& a_k) {
                        if (2 * k != steps) return;
                        const auto v = a_k.values<double>();
                        for (int i = 0; i < 12; ++i) {
                          const GaussianLinear exact{0, s * s, c[i % 3]};
                          worst = std::max(worst, std::abs(v[i] - exact.lean_adjoint({}, 0.5)));
                        }
                      });
    return worst;
  };
  const double e1 = error(100), e2 = error(200), e3 = error(400);
  EXPECT_NEAR(std::log2(e1 / e2), 1.0, 0.15);
  EXPECT_NEAR(std::log2(e2 / e3), 1.0, 0.15);
  EXPECT_LT(e3, 0.02);
}

TEST(AdjointMatching, TheLeanAdjointOfALinearDriftIsTheTransposedExponential) {
  // dX = M X dt + dB with a non-symmetric M: a(0) = e^{M^T} grad g. A Jacobian used untransposed fails here and nowhere
  // else: the two exponentials differ by more than 0.5, the discretisation by less than 0.02.
  const std::vector<double> m{-0.3, 1.2, 0.0, -0.8, 0.1, 0.5, 0.4, -0.2, -0.6}, gradient{1.0, -2.0, 0.5};
  const Tensor matrix = Tensor::from(m, {3, 3});
  const sde::Field field = [&](const Var& x, const Var&, const Tensor&) { return matmul(x, Var(matrix), false, true); };
  const auto exact = linear_lean_adjoint(3, m, 1.0, gradient);
  std::vector<double> mt(9);
  for (int i = 0; i < 9; ++i) mt[i] = m[(i % 3) * 3 + i / 3];
  const auto transposed = linear_lean_adjoint(3, mt, 1.0, gradient);
  const auto error = [&](int steps, const std::vector<double>& reference) {
    sde::Chain chain = sde::euler_ode({}, uniform_grid(steps));
    const double h = 1.0 / steps;
    for (int k = 0; k < steps; ++k) chain.A[k] = 1, chain.C[k] = h, chain.std[k] = std::sqrt(h);
    const Tensor x = Tensor::zeros({2, 3}, DType::f64);
    const Tensor terminal = broadcast_to(Var(Tensor::from(gradient, {1, 3})), {2, 3}).value();
    double worst = 0;
    lean_adjoint(field, chain, [&](int) { return x; }, Tensor(), terminal,
                      [&](int k, const Tensor&, const Tensor&, const Tensor& a) {
                        if (k == 0)
                          for (int i = 0; i < 6; ++i) worst = std::max(worst, std::abs(a.values<double>()[i] - reference[i % 3]));
                      });
    return worst;
  };
  EXPECT_NEAR(std::log2(error(100, exact) / error(200, exact)), 1.0, 0.1);
  EXPECT_LT(error(200, exact), 0.02);
  EXPECT_GT(error(200, transposed), 0.5);
}

// Adjoint matching on N(0, 1) with r = x and a table of one shift a step: the costate is deterministic, so that training
// converges to the fixed point of the pairing without sampling noise.
struct Shifts {
  double sde_mean, ode_mean;
};
Shifts train_shifts(const sde::Chain& chain, Options::Pairing pairing) {
  const sde::Field base = velocity_field(standard_normal(), {});
  Options options;
  options.batch = 8;
  options.pairing = pairing;
  options.loss_space = Options::LossSpace::velocity;
  options.learner.clip_norm = 0;
  options.learner.lr = {.peak = 0.2, .warmup = 0, .total = 400, .decay = nn::LearningRate::Decay::cosine};
  Perturbed model = perturbed(base, chain.steps(), 1);
  model.linear = Var();  // shifts alone: the optimum of a linear reward is a shift
  struct ShiftOnly {
    Perturbed p;
    Var operator()(const Var& x, const Var& t, const Tensor& l) const {
      std::vector<std::int32_t> step;
      for (const float v : t.value().values<float>()) step.push_back(static_cast<std::int32_t>(std::lround(v * static_cast<float>(p.steps))));
      return add(p.velocity(x, t, l), gather_rows(p.shift, Tensor::from(step, t.shape())));
    }
    void visit(const nn::Visitor& v) { v("shift", p.shift); }
  };
  ValueGradientRegression am({chain, base, {1}, linear_reward({1.0})}, ShiftOnly{model}, options);
  for (int i = 0; i < 400; ++i) am.step();
  // The means of the tuned chains by antithetic pairs x_0, -x_0 are exact here (the base mean is 0, the model a shift), so
  // that a single noiseless path from 0 gives them.
  const sde::Field tuned = field_of(am.network());
  const auto mean = [&](sde::Chain c) {
    std::fill(c.std.begin(), c.std.end(), 0.0);
    return sde::rollout(tuned, c, Tensor::zeros({1, 1}), Tensor(), {}).item();
  };
  return {mean(chain), mean(sde::euler_ode(chain.schedule, chain.t))};
}

TEST(AdjointMatching, PairingsSettleWhereTheyShould) {
  // Against the fixed points by linear recursion (linear_gaussian.h); 2e-3 is what 400 updates leave.
  const sde::Chain chain = sde::euler_maruyama({}, uniform_grid(40));
  const GaussianLinear problem{0, 1, 1};
  for (const bool next : {true, false}) {
    const LinearFixedPoint exact = linear_fixed_point(chain, problem, next);
    const Shifts s = train_shifts(chain, next ? Options::Pairing::next : Options::Pairing::same);
    EXPECT_NEAR(s.sde_mean, exact.sde_mean, 2e-3) << next;
    EXPECT_NEAR(s.ode_mean, exact.ode_mean, 2e-3) << next;
  }
  // `next` keeps the tilt (1 up to O(h): 1.075 with the paper's offsets at K = 40), `same` loses some of it; `alg1` behaves
  // like `next`.
  const Shifts next = train_shifts(chain, Options::Pairing::next), same = train_shifts(chain, Options::Pairing::same),
               alg1 = train_shifts(chain, Options::Pairing::alg1);
  EXPECT_NEAR(next.sde_mean, 1.0, 0.08);
  EXPECT_LT(same.ode_mean, next.ode_mean - 0.04);
  EXPECT_NEAR(alg1.ode_mean, next.ode_mean, 0.06);
}

TEST(AdjointMatching, ConstantNoiseHasItsKnownBias) {
  // sigma = 1 is not memoryless: on N(0, 1) with r = x the mean shift is 1 - exp(-pi/2) = 0.792 by the stochastic chain and
  // 0.617 after conversion to the velocity (and 1 for both under the memoryless law). h = 1/200 leaves less than 0.01.
  const Shifts biased = train_shifts(sde::euler_maruyama_constant({}, uniform_grid(200), 1.0), Options::Pairing::next);
  EXPECT_NEAR(biased.sde_mean, 0.792, 0.01);
  EXPECT_NEAR(biased.ode_mean, 0.617, 0.01);
  const Shifts right = train_shifts(sde::euler_maruyama({}, uniform_grid(200), sde::Offset::denominator), Options::Pairing::next);
  EXPECT_NEAR(right.sde_mean, 1.0, 0.02);
  EXPECT_NEAR(right.ode_mean, 1.0, 0.02);
}

// ---------------------------------------------------------------------------------------------- the machinery

ValueGradientRegression small_trainer(Options options, Device device = Device::cpu, Reward reward = linear_reward({1.0, 0.5})) {
  nn::Init init(3, DType::f32, device);
  nn::MlpOptions mlp;
  mlp.hidden = 32, mlp.depth = 2, mlp.time_frequencies = 3;
  nn::VelocityMlp network = nn::make_velocity_mlp(mlp, init);
  network.output = nn::make_linear(init, 32, 2);
  options.batch = options.batch == 256 ? 150 : options.batch;
  ControlProblem problem{sde::exact_memoryless({}, uniform_grid(12)), field_of(network), {2}, std::move(reward)};
  problem.device = device;
  return {std::move(problem), network, options};
}
std::vector<double> all_parameters(const nn::Network& network) {
  std::vector<double> v;
  for (const Tensor& t : nn::parameters(network)) {
    const auto d = t.to_doubles();
    v.insert(v.end(), d.begin(), d.end());
  }
  return v;
}

TEST(AdjointMatching, BitsDoNotDependOnThreads) {
  for (const bool keep : {false, true}) {
    std::vector<double> reference;
    for (const int n : {1, 2, 3}) {
      set_threads(n);
      ValueGradientRegression am = small_trainer(
          {.early_steps = 3, .late_steps = 4, .keep_activations = keep, .denoised_endpoint = true});
      for (int i = 0; i < 3; ++i) am.step();
      const auto v = all_parameters(am.network());
      if (reference.empty()) reference = v;
      EXPECT_EQ(v, reference) << n << " threads";
    }
  }
  set_threads(1);
}

TEST(AdjointMatching, TheBaseIsNotTouchedAndTheFirstControlIsZero) {
  ValueGradientRegression am = small_trainer({});
  const auto before = all_parameters(am.network());
  ValueGradientMetrics first;
  am.gradient(first);
  EXPECT_EQ(first.control_cost, 0);  // tuned = base: the same bits
  for (int i = 0; i < 5; ++i) am.step();
  ValueGradientMetrics later;
  am.gradient(later);
  EXPECT_GT(later.control_cost, 0);
  EXPECT_NE(all_parameters(am.network()), before);
}

TEST(AdjointMatching, MicroBatchesGiveTheSameGradient) {
  ValueGradientMetrics m1, m2;
  const Gradients whole = small_trainer({}).gradient(m1), parts = small_trainer({.micro_batch = 40}).gradient(m2);
  EXPECT_NEAR(m1.reward, m2.reward, 1e-6);
  for (std::size_t i = 0; i < whole.parameters.size(); ++i) {
    const auto a = whole.parameters[i].to_doubles(), b = parts.parameters[i].to_doubles();
    double largest = 0;
    for (const double v : a) largest = std::max(largest, std::abs(v));
    for (std::size_t j = 0; j < a.size(); ++j) EXPECT_NEAR(a[j], b[j], 2e-5 * largest);  // f32 sums in another order
  }
}

TEST(AdjointMatching, KeptActivationsGiveTheGradientOfRecomputedOnes) {
  for (const Options& o : {Options{}, Options{.early_steps = 3, .late_steps = 4, .loss_clip = 2, .denoised_endpoint = true}}) {
    ValueGradientMetrics again, kept;
    Options keeping = o;
    keeping.keep_activations = true;
    const Gradients a = small_trainer(o).gradient(again), b = small_trainer(keeping).gradient(kept);
    EXPECT_NEAR(kept.loss, again.loss, 1e-5 * again.loss);
    EXPECT_EQ(kept.reward, again.reward);
    EXPECT_EQ(kept.clipped, again.clipped);
    for (std::size_t i = 0; i < a.parameters.size(); ++i) {
      const auto x = a.parameters[i].to_doubles(), y = b.parameters[i].to_doubles();
      double largest = 0;
      for (const double v : x) largest = std::max(largest, std::abs(v));
      for (std::size_t j = 0; j < x.size(); ++j) EXPECT_NEAR(x[j], y[j], 2e-5 * largest);  // f32 sums in other chunks
    }
  }
}

TEST(AdjointMatching, TheSubsetOfStepsIsUnbiased) {
  // Over many iterations the mean of the control cost from 3 + 4 of 11 steps is that of all steps.
  Options options{.learner = {.lr = {.peak = 3e-3}}};
  ValueGradientRegression all = small_trainer(options);
  options.early_steps = 3, options.late_steps = 4;
  for (int i = 0; i < 10; ++i) all.step();
  ValueGradientMetrics full;
  all.gradient(full);
  // The same network, its steps drawn by 200 seeds' first iterations on other trajectories: compare within 4 standard
  // errors of the 200 draws.
  std::vector<double> draws;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Options o = options;
    o.batch = 64, o.seed = 1000 + seed;
    nn::Init init(3);
    nn::MlpOptions mlp;
    mlp.hidden = 32, mlp.depth = 2, mlp.time_frequencies = 3;
    nn::VelocityMlp base = nn::make_velocity_mlp(mlp, init);
    base.output = nn::make_linear(init, 32, 2);
    ValueGradientRegression subset({sde::exact_memoryless({}, uniform_grid(12)), field_of(base), {2}, linear_reward({1.0, 0.5})},
                                   all.network(), o);
    ValueGradientMetrics m;
    subset.gradient(m);
    draws.push_back(m.control_cost);
  }
  const Estimate e = mean_estimate(draws);
  EXPECT_NEAR(e.value, full.control_cost, 4 * e.standard_error + 0.1 * full.control_cost);
}

TEST(AdjointMatching, ClippingIsCountedAndCutsTheGradient) {
  ValueGradientMetrics none, all;
  small_trainer({.loss_clip = 1e9}).gradient(none);
  const Gradients g = small_trainer({.loss_clip = 1e-12}).gradient(all);
  EXPECT_EQ(none.clipped, 0);
  EXPECT_EQ(all.clipped, 1);
  EXPECT_EQ(nn::gradient_norm(g.parameters), 0);
}

TEST(AdjointMatching, MetaPredictsThePeakToTheByte) {
  for (const int n : {1, 2}) {
    set_threads(n);
    for (const Options& o : {Options{}, Options{.micro_batch = 40, .early_steps = 2, .late_steps = 3, .loss_clip = 2},
                             Options{.denoised_endpoint = true, .learner = {.ema_decay = 0.9}},
                             Options{.early_steps = 3, .late_steps = 4, .keep_activations = true}}) {
      memory::Usage peak[2];
      for (const Device device : {Device::cpu, Device::meta}) {
        const memory::PeakScope scope;
        {
          ValueGradientRegression am = small_trainer(o, device);
          for (int i = 0; i < 3; ++i) am.step();
        }
        peak[device == Device::meta] = scope.peak();
      }
      EXPECT_EQ(peak[0].total, peak[1].total) << to_string(peak[0]) << " / " << to_string(peak[1]);
      EXPECT_EQ(peak[0], peak[1]);
    }
  }
  set_threads(1);
}

TEST(AdjointMatching, ABadRewardStopsBeforeTheUpdate) {
  int calls = 0;
  ValueGradientRegression am = small_trainer({}, Device::cpu,
                                     callback_reward("moody", [&](auto x, auto rows, auto value, auto gradient) {
                                       for (std::size_t i = 0; i < x.size(); ++i) gradient[i] = 1;
                                       for (std::int64_t i = 0; i < rows; ++i) value[i] = 0;
                                       if (++calls == 2) gradient[3] = NAN;
                                     }));
  am.step();
  const auto before = all_parameters(am.network());
  try {
    am.step();
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::numerical);
    EXPECT_NE(std::string(e.what()).find("'moody': the value or gradient of 1 of 150 samples"), std::string::npos) << e.what();
  }
  EXPECT_EQ(all_parameters(am.network()), before);
  am.step();
}

// A trajectory whose reward is skipped is not there: the update is that of the others, whose loss is a mean over all.
TEST(AdjointMatching, SkippedTrajectoriesAreLeftOut) {
  constexpr std::int64_t batch = 150;
  const auto trainer = [&](bool fails, bool clipped) {
    Reward r = callback_reward("moody", [fails](auto x, auto rows, auto value, auto gradient) {
      for (std::size_t i = 0; i < x.size(); ++i) gradient[i] = 1;
      for (std::int64_t i = 0; i < rows; ++i) value[i] = 3;
      // Without the fault the same rows have a gradient that is told apart from the others'.
      for (const std::int64_t bad : {std::int64_t{3}, rows - 1})
        if (bad < rows) (fails ? value[bad] : gradient[2 * bad]) = fails ? NAN : 1e3f;
    });
    r.on_failure = Reward::Policy::skip;
    return small_trainer({.batch = batch, .loss_clip = clipped ? 1e9 : 0.0}, Device::cpu, r);
  };
  for (const bool clipped : {false, true}) {
    ValueGradientRegression am = trainer(true, clipped), other = trainer(false, clipped);
    const Metrics m = am.step(), all = other.step();
    EXPECT_EQ(m["failed"], 2);
    EXPECT_NEAR(m["reward"], 3, 1e-6) << "the mean of those that are left";
    EXPECT_LT(m["loss"], all["loss"] / 100) << "without the two large costates";
    EXPECT_GT(m["loss"], 0);
  }
}

TEST(AdjointMatching, BlackBoxesAreRefusedInWords) {
  try {
    small_trainer({}, Device::cpu, black_box_reward("box", [](auto, auto, auto) {}));
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("it takes gradients of the reward 'box', which has values only"), std::string::npos) << e.what();
  }
}

TEST(AdjointMatching, BadOptionsAreRefusedInWords) {
  nn::Init init(1);
  const nn::Network network = nn::make_velocity_mlp({}, init);
  const auto make = [&](const sde::Chain& chain, const Options& o) {
    ValueGradientRegression am({chain, field_of(network), {2}, linear_reward({1, 0})}, network, o);
  };
  const sde::Chain exact = sde::exact_memoryless({}, uniform_grid(10));
  EXPECT_THROW(make(exact, {.batch = 0}), Error);
  EXPECT_THROW(make(exact, {.micro_batch = -1}), Error);
  EXPECT_THROW(make(exact, {.early_steps = 1}), Error);
  EXPECT_THROW(make(exact, {.early_steps = 5, .late_steps = 5}), Error);  // 9 steps have noise
  EXPECT_THROW(make(exact, {.pairing = Options::Pairing::alg1}), Error);
  EXPECT_THROW(make(exact, {.loss_clip = -1}), Error);
  EXPECT_THROW(make(sde::euler_ode({}, uniform_grid(10)), {}), Error);
  // alg1 is written for sigma^2 = 2 eta.
  EXPECT_THROW(make(sde::flow_sde({}, uniform_grid(10)), {.pairing = Options::Pairing::alg1}), Error);
  // A multistep chain has no step whose mean depends on one state alone: every loop over single steps says so.
  const sde::Chain multistep = sde::dpmpp_2m({}, uniform_grid(20));
  const auto refuses = [](const char* who, const auto& f) {
    try {
      f();
      ADD_FAILURE() << who << " took a multistep chain";
    } catch (const Error& e) {
      const std::string words = e.what();
      EXPECT_TRUE(words.starts_with(who) && words.find("multistep") != std::string::npos) << words;
    }
  };
  refuses("adjoint matching", [&] { make(multistep, {}); });
  refuses("sample_paths", [&] {
    sample_paths(field_of(network), field_of(network), multistep, {2}, 4, {}, {});
  });
  refuses("chain_lean_adjoint", [&] { chain_lean_adjoint(multistep, {}); });
}

}  // namespace
}  // namespace costate::finetune
