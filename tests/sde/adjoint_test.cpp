// Adjoints of processes: replayed runs have the bits of stored ones, all of them are the gradient, and those that are not
// exact are as close as their method says.
#include <costate/autograd/ops.h>
#include <costate/sde/adjoint/adjoint.h>
#include <costate/sde/chain_process.h>
#include <costate/sde/exponential.h>
#include <costate/sde/sampler.h>
#include <costate/sde/sde_process.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

namespace costate::sde {
namespace {

// A small tanh network with the time as an input.
struct Model {
  Tensor w1, w2;
  Var call(const Var& x, const Var& t, const Var& a, const Var& b) const {
    const Var time = reshape(t, {-1, 1});
    return matmul(tanh(matmul(concat({&x, &time}, 1), a)), b);
  }
  ParametricField field() const {
    return {[this](const Var& x, const Var& t, const Tensor&) { return call(x, t, Var(w1), Var(w2)); },
            [this](Tape& tape, std::vector<Var>& watched) -> Field {
              const Var a = tape.watch(w1), b = tape.watch(w2);
              watched = {a, b};
              return [this, a, b](const Var& x, const Var& t, const Tensor&) { return call(x, t, a, b); };
            }};
  }
};
Model model_from(std::uint64_t seed, DType dtype = DType::f64) {
  Model m{Tensor::empty({3, 8}, dtype), Tensor::empty({8, 2}, dtype)};
  random_normal(m.w1, seed, Stream::user, 0, 0);
  random_normal(m.w2, seed + 1, Stream::user, 0, 0);
  return m;
}
Model model(DType dtype = DType::f64) { return model_from(1, dtype); }

// Largest difference, relative to the largest element of b.
double distance(const Tensor& a, const Tensor& b) {
  const auto u = a.to_doubles(), v = b.to_doubles();
  double largest = 0, worst = 0;
  for (std::size_t i = 0; i < v.size(); ++i) {
    largest = std::max(largest, std::abs(v[i]));
    worst = std::max(worst, std::abs(u[i] - v[i]));
  }
  return worst / largest;
}
double distance(const Gradient& a, const Gradient& b) {
  double worst = a.initial.defined() ? distance(a.initial, b.initial) : 0;
  for (std::size_t i = 0; i < b.parameters.size(); ++i) worst = std::max(worst, distance(a.parameters[i], b.parameters[i]));
  return worst;
}
bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0;
}
bool same_bits(const Gradient& a, const Gradient& b) {
  bool same = same_bits(a.x, b.x) && same_bits(a.initial, b.initial) && a.parameters.size() == b.parameters.size();
  for (std::size_t i = 0; same && i < a.parameters.size(); ++i) same = same_bits(a.parameters[i], b.parameters[i]);
  return same && a.running_cost == b.running_cost;
}
Tensor twice(const Tensor& x) { return affine(Var(x), 2, 0).value(); }

// The model as the drift of an equation, with the noise asked for: diagonal noise is a function of the state with the model's
// first weight in it.
ParametricSde equation(const Model& m, Diffusion::Kind kind, Calculus calculus = Calculus::stratonovich) {
  const auto of = [&m, kind, calculus](const Field& drift, const Var& w) {
    Sde sde;
    sde.calculus = calculus;
    sde.drift = drift;
    sde.diffusion.kind = kind;
    sde.diffusion.sigma = [](double t) { return 0.3 + 0.2 * t; };
    sde.diffusion.matrix = [dtype = m.w1.dtype()](double t) {
      return axpby(1, Var(Tensor::full({2, 3}, 0.2, dtype)), t, Var(Tensor::full({2, 3}, 0.1, dtype)));
    };
    sde.diffusion.noise_dim = 3;
    sde.diffusion.diagonal = [w](const Var& x, const Var&, const Tensor&) {
      return affine(tanh(x * narrow(reshape(w, {24, 1}), 0, 0, 1)), 0.2, 0.4);
    };
    return sde;
  };
  return {of(m.field().frozen, Var(m.w1)), [of, &m](Tape& tape, std::vector<Var>& watched) {
            const Field drift = m.field().watch(tape, watched);
            return of(drift, watched[0]);
          }};
}

struct Case {
  std::string name;
  Process process;
};
// A process of every kind: chains, and every solver with each kind of noise that it takes.
std::vector<Case> processes(const Model& m, int steps) {
  std::vector<Case> all;
  const NoiseKey key{7, 3};
  all.push_back({"exact_memoryless", chain_process(m.field(), exact_memoryless({}, uniform_grid(steps)), Tensor(), key)});
  all.push_back({"euler_ode", chain_process(m.field(), euler_ode({}, uniform_grid(steps)), Tensor(), key)});
  all.push_back({"dpmpp_2m", chain_process(m.field(), dpmpp_2m({}, uniform_grid(steps)), Tensor(), key)});
  using Kind = Diffusion::Kind;
  for (const Solver& s : solvers())
    for (const Kind kind : {Kind::none, Kind::additive, Kind::matrix, Kind::diagonal}) {
      const ParametricSde e = equation(m, kind, s.calculus);
      if (!refusal(s, e.frozen).empty()) continue;
      all.push_back({std::string(s.name) + ", " + std::string(name(kind)),
                     sde_process(e, s, uniform_grid(steps), BrownianPath(uniform_grid(steps), key))});
    }
  return all;
}

// What a process says of its calls is what they do: evaluations of the drift are counted as they happen.
TEST(Adjoint, TheWorkOfACallIsWhatItEvaluates) {
  const Model m = model();
  const Tensor x0 = affine(Var(initial_noise({2}, 5, {7, 0}, DType::f64)), .5, 0).value(), costate = twice(x0);
  int evaluations = 0, unsteps = 0;
  const auto counted = [&](const Field& drift) -> Field {
    return [&evaluations, drift](const Var& x, const Var& t, const Tensor& labels) { return ++evaluations, drift(x, t, labels); };
  };
  const auto expect = [&](const std::string& call, const CallWork& said, const auto& body) {
    evaluations = 0;
    body();
    EXPECT_EQ(evaluations, said.evaluations) << call;
  };
  for (const Solver& solver : solvers()) {
    ParametricSde e = equation(m, Diffusion::Kind::none, solver.calculus);
    e.frozen.drift = counted(e.frozen.drift);
    e.watch = [watch = e.watch, counted](Tape& tape, std::vector<Var>& watched) {
      Sde sde = watch(tape, watched);
      sde.drift = counted(sde.drift);
      return sde;
    };
    if (!refusal(solver, e.frozen).empty()) continue;
    const std::string of = " of " + std::string(solver.name);
    const Process p = sde_process(e, solver, uniform_grid(4), BrownianPath(uniform_grid(4), {7, 3}));
    State state{x0};
    if (p.start) expect("start" + of, p.start_work, [&] { state = p.start(x0); });
    State next, a;
    expect("step" + of, p.step_work, [&] { next = p.step(1, state); });
    for (const Tensor& t : next) a.push_back(twice(t));
    expect("pullback" + of, p.pullback_work, [&] { p.pullback(1, state, a); });
    if (p.pull_start) expect("pull_start" + of, p.pull_start_work, [&] { p.pull_start(x0, a); });
    if (p.unstep) expect("unstep" + of, p.unstep_work, [&] { p.unstep(1, next); }), ++unsteps;
    if (p.increment) expect("increment" + of, p.increment_work, [&] { p.increment(1, true, x0, costate); });
  }
  EXPECT_GE(unsteps, 1);
}

TEST(Adjoint, EveryScheduleHasTheBitsOfStoreAllOnEveryProcess) {
  const Model m = model(DType::f32);
  const Tensor x0 = initial_noise({2}, 5, {7, 0});
  const std::vector<Case> all = processes(m, 13);
  ASSERT_GE(all.size(), 15u);
  for (const Case& c : all) {
    const Gradient stored = gradient(c.process, x0, twice);
    EXPECT_EQ(stored.work.recomputed, 0);
    for (const AdjointMethod method : adjoint_methods()) {
      if (!bitwise_exact(method)) continue;
      for (int a = 0; a <= 15; ++a)
        for (int slots = 0; slots <= (method == AdjointMethod::two_level ? 3 : 0); ++slots) {
          AdjointOptions o;
          o.method = method;
          const bool keeps = method == AdjointMethod::binomial || method == AdjointMethod::binomial_online;
          (keeps ? o.slots : o.segment) = a;
          if (method == AdjointMethod::two_level) o.slots = slots;
          if (method == AdjointMethod::store_all) o.segment = 0;
          const Gradient g = gradient(c.process, x0, twice, o);
          ASSERT_TRUE(same_bits(g, stored)) << c.name << ", " << name(method) << " " << a << " " << slots;
        }
    }
  }
}

// The gradient of |x_K|^2 along a direction of x_0, and along one of the parameters, against differences at h = 1e-5 in f64:
// h^2 and rounding leave 1e-9.
TEST(Adjoint, GradientsAreThoseOfFiniteDifferences) {
  constexpr int steps = 9;
  constexpr double h = 1e-5;
  const Model m = model(), direction = model_from(5);
  const auto moved = [&](double by) {
    return Model{axpby(1, Var(m.w1), by, Var(direction.w1)).value(), axpby(1, Var(m.w2), by, Var(direction.w2)).value()};
  };
  const Model up = moved(h), down = moved(-h);
  const std::vector<Case> all = processes(m, steps), above = processes(up, steps), below = processes(down, steps);
  const Tensor x0 = initial_noise({2}, 3, {7, 0}, DType::f64), towards = initial_noise({2}, 3, {8, 0}, DType::f64);
  const auto inner = [](const Tensor& a, const Tensor& b) {
    const auto u = a.to_doubles(), v = b.to_doubles();
    return std::inner_product(u.begin(), u.end(), v.begin(), 0.0);
  };
  const auto end = [&](const Process& p, double by) {
    const Tensor x = gradient(p, axpby(1, Var(x0), by, Var(towards)).value(), twice).x;
    return inner(x, x);
  };
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Gradient g = gradient(all[i].process, x0, twice);
    const double by_state = (end(all[i].process, h) - end(all[i].process, -h)) / (2 * h),
                 by_parameters = (end(above[i].process, 0) - end(below[i].process, 0)) / (2 * h);
    EXPECT_NEAR(inner(g.initial, towards), by_state, 1e-7 * std::abs(by_state)) << all[i].name;
    EXPECT_NEAR(inner(g.parameters[0], direction.w1) + inner(g.parameters[1], direction.w2), by_parameters,
                1e-7 * std::abs(by_parameters))
        << all[i].name;
  }
}

TEST(Adjoint, TheWorkIsPredicted) {
  const Model m = model(DType::f32);
  const Tensor x0 = initial_noise({2}, 2, {7, 0});
  for (const Case& c : processes(m, 11))
    for (const AdjointMethod method : adjoint_methods())
      for (const int segment : {0, 4}) {
        AdjointOptions o;
        o.method = method, o.segment = segment;
        if (!refusal(c.process, o).empty()) continue;
        const Work w = gradient(c.process, x0, twice, o).work, p = predicted_work(c.process, o);
        EXPECT_EQ(w.evaluations, p.evaluations) << c.name << ", " << name(method);
        EXPECT_EQ(w.pullbacks, p.pullbacks) << c.name << ", " << name(method);
        EXPECT_EQ(w.recomputed, p.recomputed) << c.name << ", " << name(method);
      }
}

TEST(Adjoint, ReversibleAndForwardAreTheDiscreteGradientUpToRounding) {
  const Model m = model();
  const Tensor x0 = initial_noise({2}, 5, {7, 0}, DType::f64);
  int reversible = 0, forward = 0;
  for (const Case& c : processes(m, 100)) {
    const Gradient stored = gradient(c.process, x0, twice);
    AdjointOptions o;
    o.method = AdjointMethod::reversible;
    if (refusal(c.process, o).empty()) {
      EXPECT_LT(distance(gradient(c.process, x0, twice, o), stored), 1e-10) << c.name;
      ++reversible;
    }
    o.method = AdjointMethod::forward;
    if (refusal(c.process, o).empty()) {
      EXPECT_LT(distance(gradient(c.process, x0, twice, o), stored), 1e-11) << c.name;
      ++forward;
    }
  }
  EXPECT_EQ(reversible, 4);
  EXPECT_GE(forward, 10);
}

TEST(Adjoint, StoreAllIsTheGradientOfTheWholeChain) {
  // One tape over all steps, in f64: equal up to the order of sums, 1e-12 relative.
  const Model m = model();
  const Chain chain = euler_maruyama({}, uniform_grid(9));
  const Tensor x0 = initial_noise({2}, 3, {4, 0}, DType::f64);
  const auto g = gradient(chain_process(m.field(), chain, Tensor(), {4, 0}), x0,
                          [](const Tensor& x) { return affine(Var(x), 2, 0).value(); });
  Tape tape;
  std::vector<Var> watched;
  const Field f = m.field().watch(tape, watched);
  const Var start = tape.watch(x0);
  Var x = start;
  for (int k = 0; k < 9; ++k) {
    const Tensor t = step_time(chain, k, x0);
    x = chain_step(chain.A[k], x, chain.C[k], f(x, Var(t), Tensor()), chain.std[k], Var(step_noise(k, x0, {4, 0})));
  }
  watched.push_back(start);
  const auto direct = tape.vjp(sum(square(x)), watched);
  EXPECT_EQ(x.value().to_doubles(), g.x.to_doubles());
  EXPECT_LT(distance(g.parameters[0], direct[0]), 1e-12);
  EXPECT_LT(distance(g.parameters[1], direct[1]), 1e-12);
  EXPECT_LT(distance(g.initial, direct[2]), 1e-12);
}

double slope_of(const std::function<double(int steps)>& error, int coarse, int fine) {
  return std::log(error(coarse) / error(fine)) / std::log(static_cast<double>(fine) / coarse);
}

TEST(Adjoint, ContinuousAdjointsConvergeAtTheirOrder) {
  // Heun's method solves states and costates: order 2 without noise, strong order 1 with additive noise (a root mean square
  // over 2000 rows, whose slope moves by less than 0.1 between seeds).
  const Model m = model();
  const NoiseKey key{5, 0};
  for (const Diffusion::Kind kind : {Diffusion::Kind::none, Diffusion::Kind::additive}) {
    const bool noisy = kind != Diffusion::Kind::none;
    const Tensor x0 = initial_noise({2}, noisy ? 2000 : 8, key, DType::f64);
    const BrownianPath path(uniform_grid(512), key);
    const ParametricSde e = equation(m, kind);
    const Gradient exact = gradient(sde_process(e, solver("heun"), uniform_grid(512), path), x0, twice);
    for (const AdjointMethod method : {AdjointMethod::backsolve, AdjointMethod::interpolated}) {
      const auto error = [&](int steps) {
        AdjointOptions o;
        o.method = method;
        const Gradient g = gradient(sde_process(e, solver("heun"), uniform_grid(steps), path), x0, twice, o);
        const auto u = g.initial.to_doubles(), v = exact.initial.to_doubles();
        double square = 0;
        for (std::size_t i = 0; i < u.size(); ++i) square += (u[i] - v[i]) * (u[i] - v[i]);
        return std::sqrt(square / static_cast<double>(u.size()));
      };
      EXPECT_NEAR(slope_of(error, 8, 64), noisy ? 1.0 : 2.0, 0.2) << name(method) << ", " << name(kind);
    }
  }
}

TEST(Adjoint, InterpolatedFromFewerStatesIsNearTheSame) {
  // Hermite's cubic over four steps is closer to the path than Heun's method is.
  const Model m = model();
  const Tensor x0 = initial_noise({2}, 8, {5, 0}, DType::f64);
  const Process p = sde_process(equation(m, Diffusion::Kind::none), solver("heun"), uniform_grid(61),
                                BrownianPath(uniform_grid(61), {5, 0}));
  const Gradient exact = gradient(p, x0, twice);
  AdjointOptions o;
  o.method = AdjointMethod::interpolated;
  const double every = distance(gradient(p, x0, twice, o), exact);
  o.segment = 4;
  const double fourth = distance(gradient(p, x0, twice, o), exact);
  EXPECT_LT(every, 1e-2);
  EXPECT_LT(fourth, 2 * every);
}

TEST(Adjoint, BacksolveIsWrongWhereTheBackwardEquationIsUnstable) {
  // dx = -20 x dt, dy = theta x^2 dt from (1, 0): d y(1)/d theta = (1 - e^-40)/40. Solved backwards x grows, and Heun's
  // steps there and back do not undo each other: (1 - z + z^2/2)(1 + z + z^2/2) = 1 + z^4/4 a step, z = 20 h. With 50 steps
  // x_0 comes out 38 % too large and the gradient wrong by more than 10 %, while the discrete adjoint is within 2 %.
  const auto field = [](const Var& theta) -> Field {
    return [theta](const Var& state, const Var&, const Tensor&) {
      const Var x = narrow(state, 1, 0, 1), dx = affine(x, -20, 0), dy = square(x) * theta;
      return concat({&dx, &dy}, 1);
    };
  };
  const Tensor theta = Tensor::full({1}, 1, DType::f64);
  ParametricSde e;
  e.frozen.drift = field(Var(theta));
  e.watch = [&](Tape& tape, std::vector<Var>& watched) {
    watched.push_back(tape.watch(theta));
    Sde sde;
    sde.drift = field(watched.back());
    return sde;
  };
  const Tensor x0 = Tensor::from(std::vector<double>{1, 0}, {1, 2}), last = Tensor::from(std::vector<double>{0, 1}, {1, 2});
  const auto error = [&](AdjointMethod method) {
    AdjointOptions o;
    o.method = method;
    const Process p = sde_process(e, solver("heun"), uniform_grid(50), BrownianPath(uniform_grid(50), {}));
    return std::abs(40 * gradient(p, x0, [&](const Tensor&) { return last; }, o).parameters[0].item() - 1);
  };
  EXPECT_LT(error(AdjointMethod::binomial), 0.02);
  EXPECT_LT(error(AdjointMethod::interpolated), 0.1);
  EXPECT_GT(error(AdjointMethod::backsolve), 0.1);
  std::printf("relative errors: binomial %.3f, interpolated %.3f, backsolve %.3f\n", error(AdjointMethod::binomial),
              error(AdjointMethod::interpolated), error(AdjointMethod::backsolve));
}

TEST(Adjoint, RunningCostsAreDifferentiated) {
  // Against one tape over the whole chain: control cost, state cost and terminal cost together, in f64.
  const Model m = model(), base = model_from(11);
  const Chain chain = exact_memoryless({}, uniform_grid(9));
  const NoiseKey key{4, 0};
  const Tensor x0 = initial_noise({2}, 3, key, DType::f64);
  RunningCost running;
  running.state = [](int k, const Var& x) { return affine(sum(square(x)), 0.1 * (k + 1), 0); };
  running.base = base.field().frozen;
  const Process p = chain_process(m.field(), chain, Tensor(), key, running);
  const Gradient g = gradient(p, x0, twice);
  Tape tape;
  std::vector<Var> watched;
  const Field f = m.field().watch(tape, watched);
  const Var start = tape.watch(x0);
  Var x = start, total;
  for (int k = 0; k < 9; ++k) {
    const Var t(step_time(chain, k, x0)), prediction = f(x, t, Tensor());
    Var cost = running.state(k, x);
    if (chain.std[k] > 0) {
      const Var u = affine(prediction - running.base(x, t, Tensor()), chain.C[k] / chain.std[k], 0);
      cost = cost + affine(sum(square(u)), 0.5, 0);
    }
    total = total.defined() ? total + cost : cost;
    x = chain_step(chain.A[k], x, chain.C[k], prediction, chain.std[k], Var(step_noise(k, x0, key)));
  }
  watched.push_back(start);
  const auto direct = tape.vjp(total + sum(square(x)), watched);
  EXPECT_NEAR(g.running_cost / total.value().item(), 1, 1e-12);
  for (int i = 0; i < 2; ++i) EXPECT_LT(distance(g.parameters[i], direct[i]), 1e-12);
  EXPECT_LT(distance(g.initial, direct[2]), 1e-12);
  AdjointOptions o;
  o.method = AdjointMethod::binomial, o.slots = 3;
  EXPECT_TRUE(same_bits(gradient(p, x0, twice, o), g));
  o = {};
  o.method = AdjointMethod::forward;
  EXPECT_NE(refusal(p, o).find("running costs"), std::string::npos);
}

TEST(Adjoint, TheCostateOfEachStepCanBeSeen) {
  const Model m = model();
  const Chain chain = exact_memoryless({}, uniform_grid(6));
  const Tensor x0 = initial_noise({2}, 3, {4, 0}, DType::f64);
  std::vector<int> seen;
  AdjointOptions o;
  Tensor last;
  o.visit = [&](int k, const Tensor&, const Tensor& a) {
    seen.push_back(k);
    if (k == 5) last = a;
  };
  const Gradient g = gradient(chain_process(m.field(), chain, Tensor(), {4, 0}), x0, twice, o);
  EXPECT_EQ(seen, (std::vector<int>{5, 4, 3, 2, 1, 0}));
  EXPECT_EQ(last.to_doubles(), twice(g.x).to_doubles());
}

TEST(Adjoint, RefusalsNameAnAlternative) {
  const Model m = model();
  const NoiseKey key{7, 3};
  const auto grid = uniform_grid(4);
  const auto of = [&](std::string_view solver_name, Diffusion::Kind kind, Calculus calculus) {
    return sde_process(equation(m, kind, calculus), solver(solver_name), grid, BrownianPath(grid, key));
  };
  using Kind = Diffusion::Kind;
  const Process chain = chain_process(m.field(), exact_memoryless({}, grid), Tensor(), key);
  const Process heun = of("heun", Kind::additive, Calculus::stratonovich);
  const Process ito = of("milstein", Kind::diagonal, Calculus::ito);
  const Process undone = of("reversible_heun", Kind::additive, Calculus::stratonovich);
  Process many = chain, more = chain, bare = chain, costly = chain, costly_heun = heun, empty = chain;
  many.parameter_shapes = {Shape{1024}}, more.parameter_shapes = {Shape{1025}}, bare.parameter_shapes = {};
  costly.has_running_cost = costly_heun.has_running_cost = true;
  empty.steps = 0;
  struct Row {
    const Process* process;
    AdjointMethod method;
    int segment, slots;
    std::string expected;  // a part of the sentence; empty: allowed
  };
  using M = AdjointMethod;
  const std::vector<Row> table{
      {&chain, M::store_all, 0, 0, ""},
      {&chain, M::reversible, 0, 0, "reversible_heun"},
      {&chain, M::backsolve, 0, 0, "binomial"},
      {&chain, M::interpolated, 0, 0, "binomial"},
      {&chain, M::forward, 0, 0, ""},
      {&heun, M::reversible, 0, 0, "reversible_heun"},
      {&heun, M::backsolve, 0, 0, ""},
      {&heun, M::interpolated, 1, 0, ""},
      {&heun, M::interpolated, 3, 0, "segments"},
      {&ito, M::backsolve, 0, 0, "Stratonovich"},
      {&ito, M::binomial, 0, 3, ""},
      {&undone, M::reversible, 0, 0, ""},
      {&undone, M::forward, 0, 0, "binomial"},
      {&chain, M::binomial, 2, 0, "segments"},
      {&chain, M::segments, 0, 2, "binomial"},
      {&chain, M::two_level, -1, 0, "at least 1"},
      {&chain, M::binomial, 0, -1, "at least 1"},
      {&empty, M::store_all, 0, 0, "no steps"},
      {&chain, M::store_all, 0, 1, "keeps no chosen number"},
      {&chain, M::binomial_online, 0, 2, ""},
      {&chain, M::two_level, 2, 2, ""},
      {&chain, M::segments, 2, 0, ""},
      {&chain, M::store_all, 1, 0, "has no segments"},
      {&heun, M::backsolve, 1, 0, "has no segments"},
      {&many, M::forward, 0, 0, ""},
      {&more, M::forward, 0, 0, "at most 1024"},
      {&bare, M::forward, 0, 0, "no parameters"},
      {&costly, M::forward, 0, 0, "running costs"},
      {&costly, M::store_all, 0, 0, ""},
      {&costly_heun, M::backsolve, 0, 0, "running costs"},
      {&costly_heun, M::interpolated, 1, 0, "running costs"},
  };
  for (const Row& r : table) {
    AdjointOptions o;
    o.method = r.method, o.segment = r.segment, o.slots = r.slots;
    const std::string why = refusal(*r.process, o);
    EXPECT_EQ(why.empty(), r.expected.empty()) << name(r.method) << ": " << why;
    EXPECT_NE(why.find(r.expected), std::string::npos) << why;
    if (!r.expected.empty()) {
      EXPECT_THROW(gradient(*r.process, initial_noise({2}, 2, key, DType::f64), twice, o), Error);
    }
  }
  EXPECT_EQ(adjoint_method("binomial"), M::binomial);
  EXPECT_THROW(adjoint_method("binomal"), Error);
}

TEST(Adjoint, MemoryIsThatOfTheKeptStates) {
  // What is live beside a step, in states: K for store_all, the slots for binomial plans, one or two without any.
  const Model m = model(DType::f32);
  const Chain chain = exact_memoryless({}, uniform_grid(100));
  const Tensor x0 = initial_noise({2}, 64, {7, 0});  // 512 bytes, eight granules of the ledger
  const Process p = chain_process(m.field(), chain, Tensor(), {7, 0});
  const auto kept = [&](AdjointMethod method, int segment, int slots) {
    AdjointOptions o;
    o.method = method, o.segment = segment, o.slots = slots;
    const memory::PeakScope scope;
    gradient(p, x0, twice, o);
    return scope.peak().by_tag[static_cast<int>(memory::Tag::trajectory)] / x0.bytes();
  };
  EXPECT_EQ(kept(AdjointMethod::store_all, 0, 0), 99);  // x_99 is current and not kept
  EXPECT_EQ(kept(AdjointMethod::segments, 10, 0), 9 + 9);
  EXPECT_EQ(kept(AdjointMethod::binomial, 0, 5), 5);
  EXPECT_EQ(kept(AdjointMethod::two_level, 0, 3), 3 + 1);  // a state comes from disk before it is in its slot
}

TEST(Adjoint, OffloadedStatesAreCountedAndAnUnusableFolderIsNamed) {
  const Model m = model(DType::f32);
  const Process p = chain_process(m.field(), exact_memoryless({}, uniform_grid(20)), Tensor(), {7, 0});
  const Tensor x0 = initial_noise({2}, 8, {7, 0});
  AdjointOptions o;
  o.method = AdjointMethod::two_level, o.segment = 6, o.slots = 2;
  EXPECT_EQ(gradient(p, x0, twice, o).work.offloaded_bytes, 3 * x0.bytes());
  o.scratch = "/no/such/folder";
  try {
    gradient(p, x0, twice, o);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("/no/such/folder"), std::string::npos);
    EXPECT_EQ(e.fault(), Fault::io);
  }
}

TEST(Adjoint, NoiseDoesNotDependOnTheSplitOfTheBatch) {
  const Model m = model(DType::f32);
  const Chain chain = exact_memoryless({}, uniform_grid(7));
  const Tensor all = sample(m.field().frozen, chain, {2}, 100, Tensor(), {3, 50});
  const Tensor x0 = initial_noise({2}, 10, {3, 80});
  const Tensor part = rollout(m.field().frozen, chain, x0, Tensor(), {3, 80});
  EXPECT_EQ(all.slice(30, 10).to_doubles(), part.to_doubles());
}

}  // namespace
}  // namespace costate::sde
