#include <costate/finetune/problem/linear_gaussian.h>
#include <costate/finetune/problem/quadratic_control.h>
#include <costate/tensor/error.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <cmath>

namespace costate::finetune {
namespace {

std::vector<double> scaled_identity(int dim, double scale) {
  std::vector<double> m(static_cast<std::size_t>(dim * dim), 0.0);
  for (int i = 0; i < dim; ++i) m[static_cast<std::size_t>(i * dim + i)] = scale;
  return m;
}

// Matrices without any symmetry: A and sigma are random, P and Q random and positive.
QuadraticControlProblem general_problem() {
  const int d = 3;
  const Philox noise{11, Stream::user};
  const auto draw = [&](std::uint32_t i, double scale) {
    Eigen::Matrix3d m;
    for (int r = 0; r < d; ++r)
      for (int c = 0; c < d; ++c) m(r, c) = scale * noise.normal(0, i, static_cast<std::uint32_t>(r * d + c));
    return m;
  };
  const auto rows = [](const Eigen::Matrix3d& m) {
    std::vector<double> v;
    for (int r = 0; r < 3; ++r)
      for (int c = 0; c < 3; ++c) v.push_back(m(r, c));
    return v;
  };
  const auto square = [](const Eigen::Matrix3d& m) {
    return Eigen::Matrix3d((m * m.transpose()).selfadjointView<Eigen::Lower>());
  };
  return {d, rows(draw(0, 0.5)), rows(Eigen::Matrix3d::Identity() + draw(1, 0.3)), rows(square(draw(2, 0.6))),
          rows(square(draw(3, 0.5))), {0.4, -0.3, 0.9}, 0.8};
}

// The quadratic Ornstein-Uhlenbeck problem of arXiv 2312.02027 in its easy setting, where everything is a multiple of the
// identity. The four numbers are from an independent scalar integration, given to the digits compared.
TEST(QuadraticControl, EasyOrnsteinUhlenbeck) {
  const int d = 20;
  const QuadraticControl control(
      {d, scaled_identity(d, 0.2), scaled_identity(d, 1), scaled_identity(d, 0.2), scaled_identity(d, 0.1)});
  const std::vector<double> x0(d, 0.5);  // |x0|^2 = 5
  EXPECT_NEAR(control.at(0).F[0], 0.2925539, 5e-8);
  EXPECT_NEAR(control.value(x0, 0), 5.5182, 5e-5);
  EXPECT_NEAR(control.zero_cost(x0).total(), 6.7302, 5e-5);
  EXPECT_NEAR(control.optimal_cost(x0).energy, 1.8332, 5e-5);
  EXPECT_EQ(control.at(1).F[0], 0.1);
  EXPECT_EQ(control.at(0.3).F[1], 0);
}

// The scalar equation F' = -2 a F + 2 F^2 - P separates: F runs between the roots r+- of 2 F^2 - 2 a F - P = 0 with
// (F - r+)/(F - r-) = ((Q - r+)/(Q - r-)) e^{-2 (r+ - r-) (T - t)}.
TEST(QuadraticControl, ScalarRiccatiInClosedForm) {
  for (const auto& [a, P, Q] : {std::array{0.2, 0.2, 0.1}, std::array{1.0, 1.0, 0.5}, std::array{-1.5, 0.3, 2.0}}) {
    const QuadraticControl control({1, {a}, {1}, {P}, {Q}});
    const double root = std::sqrt(a * a + 2 * P), high = (a + root) / 2, low = (a - root) / 2;
    for (double t : {0.0, 0.123456, 0.5, 0.98765, 1.0}) {
      const double ratio = (Q - high) / (Q - low) * std::exp(-2 * (high - low) * (1 - t));
      EXPECT_NEAR(control.at(t).F[0], (high - low * ratio) / (1 - ratio), 1e-10) << a << " " << t;
    }
  }
}

// F from the linear Hamiltonian system: with S = 2 F, (X, Y)' = [[A, -D], [-2 P, -A^T]] (X, Y) from (I, 2 Q) at T gives S = Y
// X^{-1}: an exact solution by one matrix exponential that shares nothing with the integration.
TEST(QuadraticControl, GeneralRiccatiByTheHamiltonianExponential) {
  const QuadraticControlProblem p = general_problem();
  using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto map = [](const std::vector<double>& v) { return Eigen::Map<const Matrix>(v.data(), 3, 3); };
  const double t = 0.2345;
  Matrix h(6, 6);
  h << map(p.A), -map(p.sigma) * map(p.sigma).transpose(), -2 * map(p.P), -map(p.A).transpose();
  h *= t - p.horizon;
  const std::vector<double> e = matrix_exponential(6, std::span(h.data(), 36));
  const Matrix exponential = Eigen::Map<const Matrix>(e.data(), 6, 6);
  const Matrix X = exponential.topLeftCorner(3, 3) + exponential.topRightCorner(3, 3) * 2 * map(p.Q);
  const Matrix Y = exponential.bottomLeftCorner(3, 3) + exponential.bottomRightCorner(3, 3) * 2 * map(p.Q);
  const QuadraticControl control(p);
  EXPECT_LT((Y * X.inverse() / 2 - map(control.at(t).F)).cwiseAbs().maxCoeff(), 1e-10);
}

// The order of the method, between grid points as well: 16 times smaller errors for twice the steps.
TEST(QuadraticControl, FourthOrder) {
  const QuadraticControlProblem p = general_problem();
  const std::vector<double> x = {0.3, -1, 0.7};
  const double exact = QuadraticControl(p, 4096).value(x, 0.11);
  const double coarse = QuadraticControl(p, 16).value(x, 0.11) - exact, fine = QuadraticControl(p, 32).value(x, 0.11) - exact;
  EXPECT_GT(std::abs(coarse / fine), 10);
  EXPECT_LT(std::abs(fine), 1e-5);
}

// Two independent integrations meet: V backwards, the moments under u* forwards. No control costs
// more.
TEST(QuadraticControl, ValueIsTheCostOfTheOptimum) {
  const QuadraticControl control(general_problem());
  const std::vector<double> x0 = {0.7, -0.4, 1.1};
  EXPECT_NEAR(control.optimal_cost(x0).total(), control.value(x0, 0), 1e-9);
  EXPECT_GT(control.zero_cost(x0).total(), control.value(x0, 0) + 0.01);
}

// u* = -sigma^T grad V, by central differences of the value (exact for a quadratic).
TEST(QuadraticControl, ControlIsTheGradientOfTheValue) {
  const QuadraticControlProblem p = general_problem();
  const QuadraticControl control(p);
  std::vector<double> x = {0.7, -0.4, 1.1}, u(3), gradient(3);
  control.control(0.3, 1, x.data(), u.data());
  for (std::size_t i = 0; i < 3; ++i) {
    std::vector<double> up = x, down = x;
    up[i] += 0.5, down[i] -= 0.5;
    gradient[i] = control.value(up, 0.3) - control.value(down, 0.3);
  }
  for (std::size_t i = 0; i < 3; ++i) {
    double expected = 0;
    for (std::size_t j = 0; j < 3; ++j) expected -= p.sigma[3 * j + i] * gradient[j];
    EXPECT_NEAR(u[i], expected, 1e-12);
  }
}

// Linear terminal costs: the closed form u* = -sigma^T e^{A^T (T - t)} w against the integration for a matrix A without
// symmetry, and the two numbers of A = -I, sigma = I, w = 1 in dimension 10: E int |u*|^2 = 10 (1 - e^{-2})/2, V = -half.
TEST(QuadraticControl, LinearOrnsteinUhlenbeck) {
  QuadraticControlProblem p = general_problem();
  std::fill(p.P.begin(), p.P.end(), 0.0), std::fill(p.Q.begin(), p.Q.end(), 0.0);
  const QuadraticControl control(p);
  for (double t : {0.0, 0.31, 0.8}) {
    const std::vector<double> x = {1, 2, -3}, exact = linear_control(p, t);
    std::vector<double> u(3);
    control.control(t, 1, x.data(), u.data());
    for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(u[i], exact[i], 1e-10);
  }
  const int d = 10;
  const QuadraticControlProblem plain{d, scaled_identity(d, -1), scaled_identity(d, 1), scaled_identity(d, 0),
                                      scaled_identity(d, 0), std::vector<double>(d, 1.0)};
  const std::vector<double> zero(d, 0.0);
  const QuadraticControl solved(plain);
  EXPECT_NEAR(solved.optimal_cost(zero).energy, 4.3233, 5e-5);
  EXPECT_NEAR(solved.value(zero, 0), -2.1617, 5e-5);
  EXPECT_NEAR(linear_control(plain, 0.25)[3], -std::exp(-0.75), 1e-14);
}

// The chain of Euler-Maruyama steps has an optimum of its own. Of a linear cost it is -(h/2) sum_k |sigma^T (1 + h A^T)^k w|^2;
// of any it tends to the value of continuous time, twice as close for half the step; and it does not depend on coordinates.
TEST(QuadraticControl, OptimalCostOfTheChain) {
  QuadraticControlProblem p = general_problem();
  const std::vector<double> x0 = {0.7, -0.4, 1.1};
  const double exact = QuadraticControl(p).value(x0, 0);
  const double a = chain_optimal_cost(p, x0, 400) - exact, b = chain_optimal_cost(p, x0, 800) - exact;
  EXPECT_NEAR(a / b, 2, 0.02);
  EXPECT_LT(std::abs(b), 5e-3);
  using Matrix = Eigen::Matrix<double, 3, 3, Eigen::RowMajor>;
  const Matrix sigma(p.sigma.data()), A(p.A.data());
  const Eigen::Vector3d x(x0.data()), y = sigma.inverse() * x;
  EXPECT_NEAR(chain_optimal_cost(isotropic(p), {y.data(), 3}, 30), chain_optimal_cost(p, x0, 30), 1e-12);
  std::fill(p.P.begin(), p.P.end(), 0.0), std::fill(p.Q.begin(), p.Q.end(), 0.0);
  const double h = p.horizon / 30;
  Eigen::Vector3d costate(p.w.data());
  double expected = 0;
  for (int k = 0; k < 30; ++k) {
    expected -= h / 2 * (sigma.transpose() * costate).squaredNorm();
    costate += h * A.transpose() * costate;
  }
  expected += costate.dot(x);
  EXPECT_NEAR(chain_optimal_cost(p, x0, 30), expected, 1e-12);
}

TEST(QuadraticControl, Refusals) {
  const QuadraticControlProblem good{1, {0}, {1}, {1}, {1}};
  QuadraticControlProblem p = good;
  p.sigma = {0};
  EXPECT_THROW(QuadraticControl{p}, Error);
  p = good, p.A = {1, 2};
  EXPECT_THROW(QuadraticControl{p}, Error);
  p = good, p.horizon = 0;
  EXPECT_THROW(QuadraticControl{p}, Error);
  EXPECT_THROW(QuadraticControl(good).at(1.5), Error);
  EXPECT_THROW(linear_control(good, 0), Error);
  QuadraticControlProblem skew{2, {0, 0, 0, 0}, {1, 0, 0, 1}, {0, 1, -1, 0}, {1, 0, 0, 1}};
  EXPECT_THROW(QuadraticControl{skew}, Error);
  EXPECT_THROW(chain_optimal_cost(good, std::vector<double>{0}, 0), Error);
  // A terminal reward x^2 within a horizon in which V would have to be infinite: F' = 2 F^2 from -1 blows up at T - 1/2.
  p = good, p.P = {0}, p.Q = {-1};
  try {
    const QuadraticControl c(p);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::numerical);
    EXPECT_NE(std::string(e.what()).find("infinite"), std::string::npos) << e.what();
  }
  EXPECT_THROW(chain_optimal_cost(p, std::vector<double>{0}, 50), Error);
}

}  // namespace
}  // namespace costate::finetune
