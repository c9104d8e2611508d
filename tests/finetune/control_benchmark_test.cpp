#include <costate/autograd/check.h>
#include <costate/finetune/evaluate/control_error.h>
#include <costate/finetune/problem/control_benchmark.h>
#include <costate/tensor/error.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <array>
#include <cmath>

namespace costate::finetune {
namespace {

using Matrix = Eigen::Matrix<double, 3, 3, Eigen::RowMajor>;
std::vector<double> values(const Matrix& m) { return {m.data(), m.data() + 9}; }

Tensor points(std::int64_t rows, std::int64_t dim, std::uint64_t seed = 3) {
  const Tensor x = Tensor::empty({rows, dim}, DType::f64);
  random_normal(x, seed, Stream::user, 0, 0);
  return x;
}

// base + `offset` in every coordinate.
sde::Field offset_field(const sde::Field& base, double offset) {
  return [base, offset](const Var& x, const Var& t, const Tensor& labels) { return base(x, t, labels) + offset; };
}

TEST(ControlBenchmark, PublishedSizes) {
  struct Case {
    const char* name;
    int dim, steps, batch;
  };
  const Case cases[] = {{"quadratic_ou_easy", 20, 50, 128}, {"quadratic_ou_hard", 20, 50, 128}, {"linear_ou", 10, 100, 64},
                        {"double_well", 10, 200, 128}, {"molecular_dynamics", 1, 150, 64}};
  ASSERT_EQ(control_benchmark_names().size(), std::size(cases));
  for (std::size_t i = 0; i < std::size(cases); ++i) {
    EXPECT_EQ(control_benchmark_names()[i], cases[i].name);
    const ControlBenchmark b = control_benchmark(cases[i].name);
    EXPECT_EQ(b.dim, cases[i].dim);
    EXPECT_EQ(b.steps(), cases[i].steps);
    EXPECT_EQ(b.published.steps, cases[i].steps);
    EXPECT_EQ(b.published.batch, cases[i].batch);
    EXPECT_EQ(static_cast<int>(b.x0.size()), b.dim);
    EXPECT_EQ(b.chain.t.front(), 0);
    EXPECT_EQ(b.chain.t.back(), 1);
    EXPECT_EQ(b.chain.A[3], 1);
    EXPECT_DOUBLE_EQ(b.chain.std[3] * b.chain.std[3], b.chain.C[3]) << b.name;
    EXPECT_EQ(b.pathwise, !b.running) << b.name;
  }
  // What is drawn is a function of the seed; the steps change nothing of the problem.
  EXPECT_EQ(control_benchmark("linear_ou", {10, 4}).optimal_cost, control_benchmark("linear_ou", {30, 4}).optimal_cost);
  EXPECT_NE(control_benchmark("linear_ou", {10, 4}).optimal_cost, control_benchmark("linear_ou", {10, 5}).optimal_cost);
}

// The change of coordinates y = sigma^{-1} x, on a problem without any symmetry: drifts, costs and the optimal control at y are
// those of x = sigma y.
TEST(ControlBenchmark, IsotropicCoordinatesKeepControlsAndCosts) {
  Matrix A, sigma, P, Q;
  A << -1, 0.5, 0.2, 0.1, -0.8, 0.9, -0.6, 0, -1.2;
  sigma << 1, 0.3, -0.2, 0.4, 0.9, 0, 0.1, -0.5, 1.3;
  P << 1, 0.2, 0, 0.2, 0.7, -0.1, 0, -0.1, 0.4;
  Q << 0.3, 0, 0.1, 0, 0.6, 0.2, 0.1, 0.2, 0.5;
  const Eigen::Vector3d w(0.4, -0.7, 0.2), x0(1, -0.5, 0.3);
  const QuadraticControlProblem problem{3, values(A), values(sigma), values(P), values(Q), {w[0], w[1], w[2]}};
  const QuadraticControl exact(problem);
  const ControlBenchmark b = quadratic_benchmark("general", problem, {x0.data(), 3}, 10);
  const Tensor y = points(5, 3), t = Tensor::full({5}, 0.3, DType::f64);
  const auto drift = b.base(Var(y), Var(t), Tensor()).value().to_doubles(), cost = b.state_cost(3, Var(y)).value().to_doubles(),
             reward = b.reward(y).to_doubles(), control = b.optimal_control(0.3, y).to_doubles();
  for (int r = 0; r < 5; ++r) {
    const Eigen::Vector3d at(y.values<double>().data() + 3 * r), x = sigma * at, expected = sigma.inverse() * A * x;
    Eigen::Vector3d u;
    exact.control(0.3, 1, x.data(), u.data());
    for (int i = 0; i < 3; ++i) {
      EXPECT_NEAR(drift[static_cast<std::size_t>(3 * r + i)], expected[i], 1e-12);
      EXPECT_NEAR(control[static_cast<std::size_t>(3 * r + i)], u[i], 1e-9);
    }
    EXPECT_NEAR(cost[static_cast<std::size_t>(r)], 0.1 * x.dot(P * x), 1e-12);
    EXPECT_NEAR(reward[static_cast<std::size_t>(r)], -x.dot(Q * x) - w.dot(x), 1e-12);
  }
  EXPECT_NEAR(b.optimal_cost, exact.value({x0.data(), 3}, 0), 1e-9);
  EXPECT_NEAR((sigma * Eigen::Vector3d(b.x0.data()) - x0).norm(), 0, 1e-12);
}

// Drifts, running costs and rewards are differentiable, and twice: what lean and full adjoints need.
TEST(ControlBenchmark, DerivativesOfTheParts) {
  for (const auto name : control_benchmark_names()) {
    const ControlBenchmark b = control_benchmark(name, {10, 1});
    const Tensor x = points(2, b.dim), t = Tensor::full({2}, 0.4, DType::f64);
    const auto check = [&](const std::function<Var(const Var&)>& f) {
      EXPECT_EQ(check_gradients([&](std::span<const Var> in) { return f(in[0]); }, {&x, 1}, 2), "") << name;
    };
    check([&](const Var& v) { return b.base(v, Var(t), Tensor()); });
    check(b.reward.value);
    if (b.state_cost) check([&](const Var& v) { return b.state_cost(0, v); });
  }
}

// The double well's parts by hand, where x^2 - 1 = 3: b = -4 kappa 2 3 = -24 kappa, g = 9 sum nu = 9 (3 3 + 7).
TEST(ControlBenchmark, DoubleWellByHand) {
  const ControlBenchmark b = control_benchmark("double_well", {10});
  const Tensor x = Tensor::full({1, 10}, 2, DType::f64), t = Tensor::full({1}, 0, DType::f64);
  const auto drift = b.base(Var(x), Var(t), Tensor()).value().to_doubles();
  EXPECT_EQ(drift[2], -120);
  EXPECT_EQ(drift[3], -24);
  EXPECT_EQ(b.reward(x).item(), -144);
  EXPECT_EQ(b.optimal_control(0.5, Tensor::zeros({1, 10}, DType::f32)).dtype(), DType::f32);
}

// The optimal control of continuous time costs what the chain's own optimum costs, up to O(h^2) of the objective, and no less:
// one number by simulation, the other by a recursion that knows neither fields nor networks. The certificate's standard error
// is far below that of the cost, whose mean it has: its variance vanishes only at the optimum.
TEST(ControlBenchmark, OptimalControlsReachTheOptimalCosts) {
  struct Case {
    const char* name;
    int steps;
    double second_order;  // allowed beyond four standard errors
  };
  for (const Case& c : {Case{"quadratic_ou_easy", 100, 1e-3}, Case{"quadratic_ou_hard", 100, 0.02},
                        Case{"linear_ou", 100, 1e-4}, Case{"double_well", 400, 5e-3}}) {
    const ControlBenchmark b = control_benchmark(c.name, {c.steps});
    const ControlObjective o = control_objective(b, optimal_field(b), 500, {7});
    ASSERT_TRUE(b.chain_optimal_cost) << c.name;
    EXPECT_NEAR(o.certificate.value, *b.chain_optimal_cost, c.second_order + 4 * o.certificate.standard_error) << c.name;
    EXPECT_LT(o.certificate.standard_error, o.cost.standard_error / 3) << c.name;
    EXPECT_NEAR(o.certificate.value, o.cost.value, 4 * o.cost.standard_error) << c.name;
    const ControlObjective zero = control_objective(b, b.base, 500, {7});
    EXPECT_GT(zero.cost.value, o.certificate.value + 0.1) << c.name;
    EXPECT_EQ(zero.cost.value, zero.certificate.value) << c.name;
  }
}

// The chain's optimum tends to that of continuous time, as O(h).
TEST(ControlBenchmark, ChainsTendToContinuousTime) {
  for (const char* name : {"quadratic_ou_easy", "quadratic_ou_hard", "linear_ou", "double_well"}) {
    const ControlBenchmark coarse = control_benchmark(name, {200}), fine = control_benchmark(name, {400});
    EXPECT_NEAR((*coarse.chain_optimal_cost - coarse.optimal_cost) / (*fine.chain_optimal_cost - fine.optimal_cost), 2, 0.15)
        << name;
  }
  // Long Euler steps leap across the wells' walls: nothing is said about such chains.
  EXPECT_FALSE(control_benchmark("double_well", {99}).chain_optimal_cost);
  EXPECT_TRUE(control_benchmark("double_well", {100}).chain_optimal_cost);
  EXPECT_FALSE(control_benchmark("molecular_dynamics", {29}).chain_optimal_cost);
  EXPECT_TRUE(control_benchmark("molecular_dynamics", {30}).chain_optimal_cost);
}

// A row that passes 0 stays there: a control of 200 moves by 4/3 in the first step of 1/150, and the cost is that of this step.
TEST(ControlBenchmark, StoppedRowsStay) {
  const ControlBenchmark b = control_benchmark("molecular_dynamics");
  const ControlObjective fast = control_objective(b, offset_field(b.base, 200), 100, {1}, DType::f64);
  EXPECT_NEAR(fast.cost.value, (200.0 * 200 / 2 + 1) / 150, 1e-9);
  EXPECT_NEAR(fast.cost.standard_error, 0, 1e-9);
  const ControlObjective held = control_objective(b, offset_field(b.base, -200), 100, {1}, DType::f64);
  EXPECT_NEAR(held.cost.value, 200.0 * 200 / 2 + 1, 1e-6);  // nobody leaves the well
}

// Stopping is seen at the times of the grid only: the simulation of rows that stop costs what the dynamic programme of the
// stopped chain says, which is well above the optimum in continuous time.
TEST(ControlBenchmark, MolecularDynamicsStopsAtTheTimesOfTheGrid) {
  const ControlBenchmark b = control_benchmark("molecular_dynamics");
  const ControlObjective o = control_objective(b, optimal_field(b), 3000, {7});
  ASSERT_TRUE(b.chain_optimal_cost);
  EXPECT_GT(*b.chain_optimal_cost, b.optimal_cost + 0.01);
  // Allowed beyond four standard errors: what the control of continuous time is worse than the chain's.
  EXPECT_NEAR(o.certificate.value, *b.chain_optimal_cost, 4 * o.certificate.standard_error + 5e-4);
  EXPECT_LT(o.certificate.standard_error, 1.5e-3);
}

// The error of u = 0 is 1, of u* 0, and of u* plus a number in each of d coordinates its square times d, exactly.
TEST(ControlBenchmark, ControlErrors) {
  for (const auto name : control_benchmark_names()) {
    const ControlBenchmark b = control_benchmark(name, {25});
    EXPECT_NEAR(control_error(b, b.base, 70, {5}, DType::f64).relative(), 1, 1e-12) << name;
    EXPECT_NEAR(control_error(b, optimal_field(b), 70, {5}, DType::f64).relative(), 0, 1e-20) << name;
    if (b.running) continue;
    const ControlErrorEstimate e = control_error(b, offset_field(optimal_field(b), 0.1), 70, {5}, DType::f64);
    EXPECT_NEAR(e.error.value, 0.01 * b.dim, 1e-10) << name;
    EXPECT_NEAR(e.error.standard_error, 0, 1e-10) << name;
  }
  // E int |u*|^2 against the moment equations of the Riccati solution, and the closed form of the linear problem's control.
  const ControlBenchmark b = control_benchmark("quadratic_ou_easy", {200});
  const ControlErrorEstimate e = control_error(b, b.base, 500, {5});
  double square = 0;
  for (double x : b.x0) square += x * x;
  std::vector<double> identity(400, 0.0), P(400, 0.0), Q(400, 0.0), A(400, 0.0);
  for (std::size_t i = 0; i < 20; ++i) identity[21 * i] = 1, A[21 * i] = P[21 * i] = 0.2, Q[21 * i] = 0.1;
  const double energy = QuadraticControl({20, A, identity, P, Q}).optimal_cost(b.x0).energy;
  EXPECT_NEAR(e.optimal.value, energy, 4 * e.optimal.standard_error + 0.01);
  EXPECT_NEAR(square, 5, 3.5);  // 20 draws of N(0, 1/4): 5 with standard deviation 1.6
}

TEST(ControlBenchmark, SameBitsForAnyNumberOfThreads) {
  const ControlBenchmark b = control_benchmark("molecular_dynamics", {20});
  double cost[2], error[2];
  for (int i = 0; i < 2; ++i) {
    set_threads(1 + i);
    cost[i] = control_objective(b, optimal_field(b), 150, {5}).cost.value;
    error[i] = control_error(b, offset_field(b.base, 0.3), 150, {5}).error.value;
  }
  set_threads(1);
  EXPECT_EQ(cost[0], cost[1]);
  EXPECT_EQ(error[0], error[1]);
}

TEST(ControlBenchmark, Refusals) {
  try {
    control_benchmark("double_wel");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("did you mean \"double_well\""), std::string::npos) << e.what();
  }
  EXPECT_THROW(control_benchmark("linear_ou", {-1}), Error);
  const ControlBenchmark b = control_benchmark("double_well", {10});
  EXPECT_THROW(b.base(Var(points(3, 4)), Var(Tensor::zeros({3})), Tensor()), Error);
  EXPECT_THROW(b.optimal_control(0.5, points(3, 4)), Error);
  EXPECT_THROW(b.optimal_control(1.5, points(3, 10)), Error);
  EXPECT_THROW(control_error(b, b.base, 0, {1}), Error);
  Tape tape;
  EXPECT_THROW(optimal_field(b)(tape.watch(points(3, 10)), Var(Tensor::zeros({3}, DType::f64)), Tensor()), Error);
  QuadraticControlProblem longer{1, {0}, {1}, {1}, {1}};
  longer.horizon = 2;
  const double x0 = 0;
  EXPECT_THROW(quadratic_benchmark("longer", longer, {&x0, 1}, 10), Error);
}

}  // namespace
}  // namespace costate::finetune
