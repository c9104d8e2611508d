// Gradients over a batch: the same bits for any number of threads, and the gradient of one call on all rows.
#include <costate/autograd/ops.h>
#include <costate/sde/adjoint/batch.h>
#include <costate/sde/chain_process.h>
#include <costate/sde/sampler.h>
#include <costate/sde/sde_process.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace costate::sde {
namespace {

constexpr std::int64_t batch = 150;  // chunks of 48, 48, 48 and 6 rows
constexpr int steps = 13;
const NoiseKey key{7, 3};

// tanh(x W) in f64, with W (2, 2).
struct Drift {
  Tensor weight = Tensor::from(std::vector<double>{-0.8, 0.5, 0.3, -1.1}, {2, 2});
  static Field of(const Var& w) {
    return [w](const Var& x, const Var&, const Tensor&) { return tanh(matmul(x, w)); };
  }
  ParametricField field() const {
    return {of(Var(weight)), [w = weight](Tape& tape, std::vector<Var>& watched) {
              watched.push_back(tape.watch(w));
              return of(watched.back());
            }};
  }
  ParametricSde equation() const {
    const auto with = [](Field drift) {
      Sde sde;
      sde.calculus = Calculus::stratonovich;
      sde.drift = std::move(drift);
      sde.diffusion = Diffusion::of([](double t) { return 0.3 + 0.2 * t; });
      return sde;
    };
    const ParametricField f = field();
    return {with(f.frozen), [f, with](Tape& tape, std::vector<Var>& watched) { return with(f.watch(tape, watched)); }};
  }
};

using ProcessOf = std::function<Process(std::int64_t first, std::int64_t rows)>;
ProcessOf solved(std::string_view name) {
  return [name](std::int64_t first, std::int64_t) {
    const std::vector<double> grid = uniform_grid(steps);
    return sde_process(Drift().equation(), solver(name), grid, BrownianPath(grid, key).from(first));
  };
}
// grad g depends on the row: g = (1 + row/100) |x|^2/2.
Tensor terminal(std::int64_t first, const Tensor& x) {
  std::vector<double> factor;
  for (std::int64_t i = 0; i < x.extent(0); ++i) factor.push_back(1 + static_cast<double>(first + i) / 100);
  return mul(Var(x), Var(Tensor::from(factor, {x.extent(0), 1}))).value();
}
Tensor whole(const Tensor& x) { return terminal(0, x); }

bool same_bits(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0;
}
bool same_bits(const Gradient& a, const Gradient& b) {
  bool same = same_bits(a.x, b.x) && same_bits(a.initial, b.initial) && a.parameters.size() == b.parameters.size();
  for (std::size_t i = 0; same && i < a.parameters.size(); ++i) same = same_bits(a.parameters[i], b.parameters[i]);
  return same && a.running_cost == b.running_cost;
}
double distance(const Tensor& a, const Tensor& b) {
  if (!a.defined() && !b.defined()) return 0;
  const auto u = a.to_doubles(), v = b.to_doubles();
  double largest = 0, worst = 0;
  for (std::size_t i = 0; i < v.size(); ++i)
    largest = std::max(largest, std::abs(v[i])), worst = std::max(worst, std::abs(u[i] - v[i]));
  return worst / largest;
}

struct Row {
  std::string_view solver;
  AdjointMethod method;
};
constexpr Row rows[] = {
    {"euler_maruyama", AdjointMethod::store_all}, {"euler_maruyama", AdjointMethod::segments},
    {"euler_maruyama", AdjointMethod::binomial},  {"euler_maruyama", AdjointMethod::two_level},
    {"euler_maruyama", AdjointMethod::forward},   {"reversible_heun", AdjointMethod::reversible},
    {"heun", AdjointMethod::backsolve},           {"heun", AdjointMethod::interpolated},
};

TEST(BatchGradient, HasTheSameBitsForAnyNumberOfThreads) {
  const Tensor x0 = initial_noise({2}, batch, key, DType::f64);
  for (const Row& r : rows) {
    AdjointOptions o;
    o.method = r.method;
    const Gradient one = batch_gradient(x0, solved(r.solver), terminal, o);
    for (const int n : {2, 3, 5}) {
      set_threads(n);
      const Gradient g = batch_gradient(x0, solved(r.solver), terminal, o);
      set_threads(1);
      EXPECT_TRUE(same_bits(g, one)) << name(r.method) << ", " << n << " threads";
    }
    if (bitwise_exact(r.method)) {
      EXPECT_TRUE(same_bits(one, batch_gradient(x0, solved(r.solver), terminal))) << name(r.method);
    }
  }
}

TEST(BatchGradient, IsThatOfOneCallUpToTheOrderOfSums) {
  // Sums over 150 rows and 13 steps in f64: 1e-13 relative to the largest element.
  const Tensor x0 = initial_noise({2}, batch, key, DType::f64);
  for (const Row& r : rows) {
    AdjointOptions o;
    o.method = r.method;
    const Gradient g = batch_gradient(x0, solved(r.solver), terminal, o);
    const Gradient one = gradient(solved(r.solver)(0, batch), x0, whole, o);
    EXPECT_LT(distance(g.x, one.x), 1e-13) << name(r.method);
    EXPECT_LT(distance(g.initial, one.initial), 1e-13) << name(r.method);
    ASSERT_EQ(g.parameters.size(), 1u);
    EXPECT_LT(distance(g.parameters[0], one.parameters[0]), 1e-13) << name(r.method);
    EXPECT_EQ(g.work.evaluations, one.work.evaluations) << name(r.method);
    EXPECT_EQ(g.work.pullbacks, one.work.pullbacks) << name(r.method);
    EXPECT_EQ(g.work.recomputed, one.work.recomputed) << name(r.method);
    EXPECT_EQ(g.work.offloaded_bytes, one.work.offloaded_bytes) << name(r.method);
  }
}

TEST(BatchGradient, AddsRunningCosts) {
  RunningCost running;
  running.state = [](int, const Var& x) { return affine(sum(square(x)), 0.1, 0); };
  const ProcessOf of = [&](std::int64_t first, std::int64_t) {
    return chain_process(Drift().field(), exact_memoryless({}, uniform_grid(steps)), Tensor(), key.from(first), running);
  };
  const Tensor x0 = initial_noise({2}, batch, key, DType::f64);
  const Gradient g = batch_gradient(x0, of, terminal), one = gradient(of(0, batch), x0, whole);
  EXPECT_GT(one.running_cost, 1);
  EXPECT_NEAR(g.running_cost / one.running_cost, 1, 1e-13);
  EXPECT_LT(distance(g.initial, one.initial), 1e-13);
  EXPECT_LT(distance(g.parameters[0], one.parameters[0]), 1e-13);
}

TEST(BatchGradient, RefusalsSayWhatWasFound) {
  const Tensor x0 = initial_noise({2}, batch, key, DType::f64);
  const auto sentence_of = [&](const Tensor& x, const ProcessOf& of, const AdjointOptions& o) -> std::string {
    try {
      batch_gradient(x, of, terminal, o);
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::argument);
      return e.what();
    }
    return "";
  };
  const ProcessOf euler = solved("euler_maruyama");
  AdjointOptions o;
  o.method = AdjointMethod::reversible;
  EXPECT_NE(sentence_of(x0, euler, o).find("reversible_heun"), std::string::npos);
  o = {};
  o.visit = [](int, const Tensor&, const Tensor&) {};
  EXPECT_NE(sentence_of(x0, euler, o).find("order"), std::string::npos);
  EXPECT_NE(sentence_of(Tensor(), euler, {}).find("undefined"), std::string::npos);
  EXPECT_NE(sentence_of(Tensor::zeros({0, 2}, DType::f64), euler, {}).find("(0, 2)"), std::string::npos);
  const ProcessOf uneven = [&](std::int64_t first, std::int64_t count) {
    Process p = euler(first, count);
    p.steps -= first == 96;
    return p;
  };
  EXPECT_NE(sentence_of(x0, uneven, {}).find("rows from 96 has 12 steps"), std::string::npos);
}

}  // namespace
}  // namespace costate::sde
