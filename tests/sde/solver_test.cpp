// Solvers: what a step computes, orders without noise, reversibility, derivatives, refusals, and the equations of a path.
#include <costate/autograd/check.h>
#include <costate/sde/sampler.h>
#include <costate/sde/step.h>
#include <gtest/gtest.h>

#include "sde/problems.h"

namespace costate::sde {
namespace {

std::vector<double> values(const Tensor& t) { return t.to_doubles(); }
std::vector<double> values(const Var& v) { return v.value().to_doubles(); }

void expect_near(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance) << i;
}

// A small equation of every kind, (rows, 2), with drift that depends on time and couples the elements.
Sde equation(Diffusion::Kind kind, Calculus calculus) {
  Sde sde;
  sde.calculus = calculus;
  const Tensor a = Tensor::from(std::vector<double>{-0.4, 1.1, -0.9, 0.2}, {2, 2});
  sde.drift = [a](const Var& x, const Var& t, const Tensor&) {
    return sin(matmul(x, Var(a), false, true)) + reshape(t, {-1, 1});
  };
  const Tensor s = Tensor::from(std::vector<double>{0.5, 0.1, -0.2, 0.3, 0.4, 0.2}, {2, 3});
  if (kind == Diffusion::Kind::additive) sde.diffusion = Diffusion::of([](double t) { return 0.4 + t; });
  if (kind == Diffusion::Kind::matrix)
    sde.diffusion = Diffusion::of_matrix([s](double t) { return affine(Var(s), 1 + t, 0); }, 3);
  if (kind == Diffusion::Kind::diagonal)
    sde.diffusion = Diffusion::of_elements([](const Var& x, const Var& t, const Tensor&) {
      return affine(cos(x), 0.3, 0.5) * (reshape(t, {-1, 1}) + 1);
    });
  return sde;
}
constexpr Diffusion::Kind kKinds[] = {Diffusion::Kind::none, Diffusion::Kind::additive, Diffusion::Kind::matrix,
                                      Diffusion::Kind::diagonal};

TEST(Solver, EulerMaruyamaSharesTheNoiseOfChains) {
  const std::vector<double> grid = {0, 0.25, 0.4, 1};
  const NoiseKey key{11, 5};
  Tensor x = initial_noise({3}, 4, key, DType::f64);
  const Tensor end = solve(ornstein_uhlenbeck().sde, solver("euler_maruyama"), grid, x, {}, BrownianPath(grid, key));
  for (int k = 0; k < 3; ++k) {
    const double h = grid[static_cast<std::size_t>(k) + 1] - grid[static_cast<std::size_t>(k)];
    x = axpby(1 - h, Var(x), 0.8 * std::sqrt(h), Var(step_noise(k, x, key))).value();
  }
  expect_near(values(end), values(x), 1e-15);
}

// dX = -t X^2 dt: X = x/(1 + x t^2/2), root mean square over several x. Slopes over four step sizes; 0.1 is for the next power
// of h.
TEST(Solver, OrdersWithoutNoise) {
  Sde sde;
  sde.drift = [](const Var& x, const Var& t, const Tensor&) { return -(t * square(x)); };
  const std::vector<double> x0 = {1, 2, 0.5, -0.5, 1.5};
  for (const Solver& s : solvers()) {
    std::vector<double> errors;
    for (const int steps : {32, 64, 128, 256}) {
      const auto x = values(solve(sde, s, uniform_grid(steps), Tensor::from(x0, {5}), {}, BrownianPath({0, 1}, NoiseKey{})));
      double squares = 0;
      for (std::size_t i = 0; i < 5; ++i) squares += std::pow(x[i] - x0[i] / (1 + x0[i] / 2), 2);
      errors.push_back(std::sqrt(squares));
    }
    EXPECT_NEAR(slope_of(errors), s.ode_order, 0.1) << s.name;
  }
}

// Backwards by algebra over 1000 steps, up to rounding: the drift's slope is at most 1.5, so that no mode grows much.
TEST(Solver, UnstepInvertsStep) {
  for (const Solver& s : solvers()) {
    EXPECT_EQ(s.reversible, s.unstep != nullptr) << s.name;
    if (!s.reversible) continue;
    for (const Diffusion::Kind kind : kKinds) {
      const Sde sde = equation(kind, s.calculus);
      const auto grid = uniform_grid(1000);
      const BrownianPath path(grid, {4, 0});
      const Tensor x0 = initial_noise({2}, 3, {5, 0}, DType::f64);
      std::vector<SolverState> states = {start(s, sde, Var(x0), 0, {})};
      const auto noise = [&](StepInterval i) { return step_increment(s, sde, path, i, x0); };
      for (std::size_t k = 0; k < 1000; ++k) {
        const StepInterval i{grid[k], grid[k + 1]};
        states.push_back(s.step(sde, states.back(), i, noise(i), {}));
      }
      SolverState back = states.back();
      for (std::size_t k = 1000; k-- > 0;) {
        const StepInterval i{grid[k], grid[k + 1]};
        back = s.unstep(sde, back, i, noise(i), {});
        for (std::size_t part = 0; part < back.size(); ++part) expect_near(values(back[part]), values(states[k][part]), 1e-12);
      }
    }
  }
}

// Its modes on dX = a X dt are multiplied by q +- sqrt(q^2 + 1), q = a h: trace 2 q and determinant -1 of the map of (x, z).
TEST(Solver, ModesOfTheReversibleMethod) {
  const double a = -3, h = 0.1, q = a * h;
  Sde sde;
  sde.drift = [a](const Var& x, const Var&, const Tensor&) { return affine(x, a, 0); };
  const Var x(Tensor::from(std::vector<double>{1, 0}, {2})), z(Tensor::from(std::vector<double>{0, 1}, {2}));
  const SolverState next = solver("reversible_heun").step(sde, {x, z, affine(z, a, 0)}, {0, h}, {}, {});
  const auto of_x = values(next[0]), of_z = values(next[1]);
  EXPECT_NEAR(of_x[0] + of_z[1], 2 * q, 1e-15);
  EXPECT_NEAR(of_x[0] * of_z[1] - of_x[1] * of_z[0], -1, 1e-15);
}

// A step can be recorded and pulled back: two steps of every solver on every kind of noise against central differences.
TEST(Solver, StepsAreDifferentiable) {
  for (const Solver& s : solvers())
    for (const Diffusion::Kind kind : kKinds) {
      const Sde sde = equation(kind, s.calculus);
      if (!refusal(s, sde).empty()) continue;
      const BrownianPath path({0, 0.3, 0.5}, {4, 0});
      const Tensor x0 = initial_noise({2}, 3, {5, 0}, DType::f64);
      const auto f = [&](std::span<const Var> x) {
        SolverState state = start(s, sde, x[0], 0, {});
        for (const StepInterval i : {StepInterval{0, 0.3}, StepInterval{0.3, 0.5}})
          state = s.step(sde, state, i, step_increment(s, sde, path, i, x0), {});
        return sum(square(state[0]));
      };
      EXPECT_EQ(check_gradients(f, std::vector<Tensor>{x0}, 1), "") << s.name << " " << name(kind);
    }
}

// How often a step evaluates drift and diagonal sigma is what its row says.
TEST(Solver, EvaluationsAreCounted) {
  for (const Solver& s : solvers()) {
    int drifts = 0, diffusions = 0;
    const bool diagonal = s.strong_order_diagonal > 0;
    Sde sde = equation(diagonal ? Diffusion::Kind::diagonal : Diffusion::Kind::none, s.calculus);
    const auto counted = [](Field f, int& count) {
      return [f = std::move(f), &count](const Var& x, const Var& t, const Tensor& labels) { return ++count, f(x, t, labels); };
    };
    sde.drift = counted(sde.drift, drifts);
    if (diagonal) sde.diffusion.diagonal = counted(sde.diffusion.diagonal, diffusions);
    const auto run = [&](int steps) {
      drifts = diffusions = 0;
      solve(sde, s, uniform_grid(steps), Tensor::full({1, 2}, 0.3, DType::f64), {}, BrownianPath({0, 1}, NoiseKey{}));
    };
    run(3);
    const int drifts_of_3 = drifts, diffusions_of_3 = diffusions;
    run(7);
    EXPECT_EQ(drifts - drifts_of_3, 4 * s.drift_evaluations) << s.name;
    if (!diagonal) continue;
    EXPECT_EQ(diffusions - diffusions_of_3, 4 * s.diffusion_evaluations) << s.name;
  }
}

TEST(Solver, RowsAreIndependentOfTheSplitOfTheBatch) {
  for (const Solver& s : solvers())
    for (const Diffusion::Kind kind : kKinds) {
      const Sde sde = equation(kind, s.calculus);
      if (!refusal(s, sde).empty()) continue;
      const BrownianPath path(uniform_grid(4), {4, 0});
      const Tensor x0 = initial_noise({2}, 9, {5, 0}, DType::f64);
      const Tensor all = solve(sde, s, uniform_grid(8), x0, {}, path);
      const Tensor part = solve(sde, s, uniform_grid(8), x0.slice(4, 3), {}, path.from(4));
      EXPECT_EQ(values(all.slice(4, 3)), values(part)) << s.name;
    }
}

// Which equations a solver takes: by kind of noise, the first letter for an Ito equation, the second for Stratonovich's.
TEST(Solver, RefusalTable) {
  struct Row {
    const char *name, *none, *additive, *matrix, *diagonal;
  };
  for (const Row& row : {Row{"euler_maruyama", "++", "++", "++", "+-"}, Row{"milstein", "++", "++", "++", "+-"},
                         Row{"heun", "++", "++", "++", "-+"}, Row{"sra1", "++", "++", "++", "--"},
                         Row{"reversible_heun", "++", "++", "++", "-+"}, Row{"midpoint", "++", "--", "--", "--"},
                         Row{"rk4", "++", "--", "--", "--"}}) {
    const char* cells[] = {row.none, row.additive, row.matrix, row.diagonal};
    for (const Diffusion::Kind kind : kKinds)
      for (const Calculus calculus : {Calculus::ito, Calculus::stratonovich}) {
        const Sde sde = equation(kind, calculus);
        const std::string why = refusal(solver(row.name), sde);
        EXPECT_EQ(why.empty(), cells[static_cast<int>(kind)][static_cast<int>(calculus)] == '+') << row.name << " " << why;
        if (why.empty()) continue;
        // The sentence names a solver that takes the equation.
        std::string_view rest = std::string_view(why).substr(why.find(": take ") + 7);
        EXPECT_EQ(refusal(solver(rest.substr(0, rest.find(' '))), sde), "") << why;
      }
  }
  EXPECT_EQ(refusal(solver("rk4"), equation(Diffusion::Kind::additive, Calculus::ito)),
            "rk4 solves equations without noise, but this one has additive noise: take sra1 or heun");
  EXPECT_EQ(refusal(solver("sra1"), equation(Diffusion::Kind::diagonal, Calculus::ito)),
            "sra1 needs noise that does not depend on the state, but this equation has diagonal noise: take milstein or "
            "euler_maruyama");
  EXPECT_EQ(refusal(solver("heun"), equation(Diffusion::Kind::diagonal, Calculus::ito)),
            "heun converges to the Stratonovich solution, but this equation with diagonal noise is meant in the Ito sense: "
            "take milstein or euler_maruyama, or convert the drift (b_Ito = b_Stratonovich + sigma sigma'/2)");
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::argument);
    return e.what();
  }
  return "no error";
}

TEST(Solver, Errors) {
  EXPECT_EQ(error_of([] { solver("miltsein"); }),
            "\"miltsein\" is not a solver; there are euler_maruyama, milstein, heun, sra1, reversible_heun, midpoint, rk4; did "
            "you mean \"milstein\"?");
  const BrownianPath path({0, 1}, NoiseKey{});
  const Tensor x0 = Tensor::full({1, 2}, 0, DType::f64);
  const Sde matrix = equation(Diffusion::Kind::matrix, Calculus::ito);
  EXPECT_EQ(error_of([&] { solve(matrix, solver("rk4"), {0, 1}, x0, {}, path); }),
            "solve: rk4 solves equations without noise, but this one has matrix noise: take sra1 or heun");
  EXPECT_EQ(error_of([&] { solve(matrix, solver("heun"), {0}, x0, {}, path); }),
            "solve: the grid has 1 times, but one step needs 2");
  EXPECT_EQ(error_of([&] { solve(matrix, solver("heun"), {0, 0}, x0, {}, path); }),
            "solve: the grid must increase, but time 1 is 0 after 0");
  EXPECT_EQ(error_of([&] { solve(matrix, solver("heun"), {0, 1}, Tensor::full({2}, 0, DType::f64), {}, path); }),
            "sde: matrix noise drives states of shape (rows, dim), but these have shape (2,)");
  Sde narrow = matrix;
  narrow.diffusion.noise_dim = 2;
  EXPECT_EQ(error_of([&] { solve(narrow, solver("heun"), {0, 1}, x0, {}, path); }),
            "sde: the diffusion matrix has shape (2, 3) where states of shape (1, 2) and noise of dimension 2 expect (2, 2)");
  EXPECT_EQ(error_of([&] { solve({}, solver("heun"), {0, 1}, x0, {}, path); }), "solve: the equation has no drift");
  Sde half;
  half.drift = matrix.drift;
  half.diffusion.kind = Diffusion::Kind::additive;
  EXPECT_EQ(error_of([&] { solve(half, solver("heun"), {0, 1}, x0, {}, path); }),
            "solve: the equation has additive noise, but no function for it");
  const Solver& sra1 = solver("sra1");
  EXPECT_EQ(error_of([&] { sra1.step(matrix, {Var(x0)}, {0, 1}, {Tensor::full({1, 3}, 0, DType::f64), {}}, {}); }),
            "sra1: the increment comes without its area, which this solver reads");
}

// The equations of a path are what the chains of chain.h discretise: Euler's steps on the same noise agree up to rounding, for
// every prediction, with per-row times taken one by one as well.
TEST(PathEquations, EulerStepsAreTheChains) {
  const Schedule cosine{PathFamily::vp_cosine};
  std::vector<double> grid;
  for (int k = 0; k <= 8; ++k) grid.push_back(0.1 + 0.1 * k);
  const NoiseKey key{21, 0};
  const Tensor x0 = initial_noise({3}, 5, key, DType::f64);
  const ParametricField field{[](const Var& x, const Var& t, const Tensor&) { return sin(x) * reshape(t, {-1, 1}); }, {}};
  const BrownianPath path(grid, key);
  for (const Parametrisation p : {Parametrisation::velocity, Parametrisation::epsilon, Parametrisation::x1,
                                  Parametrisation::score, Parametrisation::v_prediction}) {
    const Tensor flow = solve(probability_flow(field, cosine, p).frozen, solver("euler_maruyama"), grid, x0, {}, path);
    expect_near(values(flow), values(rollout(field.frozen, euler_ode(cosine, grid, p), x0, {}, key)), 1e-12);
    const Sde sde = generative_sde(field, cosine, p, [](double) { return 0.6; }).frozen;
    const Tensor sampled = solve(sde, solver("euler_maruyama"), grid, x0, {}, path);
    expect_near(values(sampled), values(rollout(field.frozen, euler_maruyama_constant(cosine, grid, 0.6, p), x0, {}, key)), 1e-12);

    std::vector<double> times = {0.1, 0.5, 0.5, 0.7, 0.9};
    const Var together = sde.drift(Var(x0), Var(Tensor::from(times, {5})), {});
    for (std::int64_t i = 0; i < 5; ++i) {
      const Tensor t = Tensor::full({1}, times[static_cast<std::size_t>(i)], DType::f64);
      expect_near(values(sde.drift(Var(x0.slice(i, 1)), Var(t), {})), values(together.value().slice(i, 1)), 1e-13);
    }
  }
}

// Data N(m, v) on the linear path with its exact velocity: whatever sigma(t), X(1) ~ N(m, v). 20,000 samples within 3 standard
// errors, after 64 steps of SRA1, whose bias is below 1e-3 of the deviation; sigma vanishes at t = 1, where the score of a
// velocity is singular, and is finite at t = 0.
TEST(PathEquations, EverySigmaHasTheMarginalsOfThePath) {
  const double m = 0.7, v = 0.3;
  const Schedule linear{PathFamily::linear};
  const ParametricField field{[=](const Var& x, const Var& t, const Tensor&) {
                                const AffineModel model =
                                    gaussian_prediction(Parametrisation::velocity, linear.at(t.value().to_doubles()[0]), m, v);
                                return affine(x, model.slope, model.intercept);
                              },
                              {}};
  const std::int64_t n = 20'000;
  const NoiseKey key{33, 0};
  const Tensor x0 = initial_noise({}, n, key, DType::f64);
  for (const auto& sigma : std::vector<std::function<double(double)>>{
           [](double) { return 0.0; }, [](double t) { return 1.5 * (1 - t); }, [](double t) { return std::sqrt(2 * (1 - t)); }}) {
    const auto x = values(solve(generative_sde(field, linear, Parametrisation::velocity, sigma).frozen, solver("sra1"),
                                uniform_grid(64), x0, {}, BrownianPath(uniform_grid(64), key)));
    double mean = 0, variance = 0;
    for (const double value : x) mean += value / static_cast<double>(n);
    for (const double value : x) variance += (value - mean) * (value - mean) / static_cast<double>(n);
    EXPECT_NEAR(mean, m, 3 * std::sqrt(v / static_cast<double>(n)));
    EXPECT_NEAR(variance, v, 3 * v * std::sqrt(2.0 / static_cast<double>(n)));
  }
}

TEST(PathEquations, Errors) {
  const ParametricField field{[](const Var& x, const Var&, const Tensor&) { return x; }, {}};
  const Schedule linear{PathFamily::linear};
  const Tensor x0 = Tensor::full({1}, 0, DType::f64);
  const BrownianPath path({0, 1}, NoiseKey{});
  EXPECT_EQ(error_of([&] {
              solve(generative_sde(field, linear, Parametrisation::velocity, [](double) { return -1.0; }).frozen,
                    solver("euler_maruyama"), {0, 1}, x0, {}, path);
            }),
            "generative_sde: sigma(0) is -1; expected a finite number >= 0");
  EXPECT_NE(error_of([&] {
              solve(probability_flow(field, linear, Parametrisation::epsilon).frozen, solver("heun"), {0, 1}, x0, {}, path);
            }).find("alpha(t) = 0"),
            std::string::npos);
}

// The parameters of a network are recorded by watch, and the drift of the watched equation reaches them.
TEST(PathEquations, WatchReachesTheParameters) {
  const Tensor theta = Tensor::full({1}, 0.7, DType::f64);
  const auto make = [](const Var& w) { return [w](const Var& x, const Var&, const Tensor&) { return mul(x, w); }; };
  const ParametricField field{make(Var(theta)), [=](Tape& tape, std::vector<Var>& watched) -> Field {
                                watched.push_back(tape.watch(theta));
                                return make(watched.back());
                              }};
  const ParametricSde sde = probability_flow(field, Schedule{PathFamily::linear}, Parametrisation::velocity);
  Tape tape;
  std::vector<Var> watched;
  const Sde recorded = sde.watch(tape, watched);
  const Tensor x = Tensor::full({1}, 2, DType::f64);
  const Var next = solver("euler_maruyama").step(recorded, {Var(x)}, {0, 0.25}, {}, {})[0];
  EXPECT_DOUBLE_EQ(next.value().item(), 2 + 0.25 * 0.7 * 2);
  EXPECT_DOUBLE_EQ(tape.vjp(sum(next), watched[0]).item(), 0.25 * 2);
}

TEST(Solver, MetaDevice) {
  for (const Solver& s : solvers())
    for (const Diffusion::Kind kind : {Diffusion::Kind::none, Diffusion::Kind::additive}) {
      const ParametricField field{[](const Var& x, const Var&, const Tensor&) { return sin(x); }, {}};
      Sde sde = generative_sde(field, Schedule{PathFamily::linear}, Parametrisation::velocity, [](double) { return 0.5; }).frozen;
      if (kind == Diffusion::Kind::none) sde.diffusion = {};
      if (!refusal(s, sde).empty()) continue;
      const Tensor x0 = Tensor::empty({2, 3}, DType::f32, Device::meta);
      const Tensor x = solve(sde, s, uniform_grid(3), x0, {}, BrownianPath(uniform_grid(3), NoiseKey{}));
      EXPECT_TRUE(x.is_meta() && x.shape() == x0.shape());
    }
}

}  // namespace
}  // namespace costate::sde
