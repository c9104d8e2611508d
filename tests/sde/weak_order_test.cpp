// Weak orders of convergence, measured without sampling: |E[f(X_K)] - E[f(X(1))]| for f(x) = x and x^2 of what the solvers
// compute, by quadrature over their noise. Slopes therefore have no statistical error; 0.15 is for the next power of h.
#include <gtest/gtest.h>

#include <Eigen/Sparse>
#include <unsupported/Eigen/KroneckerProduct>
#include <algorithm>

#include "sde/problems.h"

namespace costate::sde {
namespace {

// Nodes and weights of E[g(Z)], Z ~ N(0, 1): eigenvalues of the Jacobi matrix of Hermite's polynomials (Golub and Welsch).
struct Quadrature {
  std::vector<double> node, weight;
  explicit Quadrature(int n) {
    MatrixXd J = MatrixXd::Zero(n, n);
    for (int i = 1; i < n; ++i) J(i, i - 1) = J(i - 1, i) = std::sqrt(i);
    const Eigen::SelfAdjointEigenSolver<MatrixXd> eigen(J);
    for (int i = 0; i < n; ++i) {
      node.push_back(eigen.eigenvalues()(i));
      weight.push_back(eigen.eigenvectors()(0, i) * eigen.eigenvectors()(0, i));
    }
  }
};

MatrixXd exponential(const MatrixXd& A) {
  MatrixXd sum = MatrixXd::Zero(A.rows(), A.rows()), term = MatrixXd::Identity(A.rows(), A.rows());
  for (int n = 1; n < 60; ++n) sum += term, term = term * A / n;
  return sum;
}

void expect_order(const Solver& s, const char* what, const std::vector<double>& errors, double order) {
  EXPECT_NEAR(slope_of(errors), order, 0.15) << s.name << " on " << what;
}

// X(1) as a linear function of the noise: dX = A X dt + (1 + t) S dB from ones. Rows of one run are the responses to the unit
// of each increment w_k and area H_k, with row 0 without noise; hence mean and covariance of X_K exactly, and those of X(1)
// are e^A x0 and int e^{A(1-t)} (1+t)^2 S S^T e^{A^T(1-t)} dt.
struct Moments {
  MatrixXd mean, second;
};
Moments moments(const Solver& solver, const MatrixXd& A, const MatrixXd& S, int steps) {
  const auto dim = A.rows(), noise_dim = S.cols();
  const auto tensor = [](const MatrixXd& m) {
    const MatrixXd t = m.transpose();
    return Tensor::from(std::span<const double>(t.data(), static_cast<std::size_t>(t.size())), {m.rows(), m.cols()});
  };
  Sde sde;
  sde.drift = [a = tensor(A)](const Var& x, const Var&, const Tensor&) { return matmul(x, Var(a), false, true); };
  sde.diffusion = Diffusion::of_matrix([s = tensor(S)](double t) { return affine(Var(s), 1 + t, 0); }, noise_dim);
  const std::int64_t half = steps * noise_dim, rows = 1 + 2 * half;
  const double h = 1.0 / steps;
  SolverState state = start(solver, sde, Var(Tensor::full({rows, dim}, 1, DType::f64)), 0, {});
  for (int k = 0; k < steps; ++k) {
    Increment i{Tensor::zeros({rows, noise_dim}, DType::f64), Tensor::zeros({rows, noise_dim}, DType::f64)};
    for (std::int64_t j = 0; j < noise_dim; ++j) {
      const std::int64_t row = 1 + k * noise_dim + j;
      i.w.mutate<double>()[static_cast<std::size_t>(row * noise_dim + j)] = std::sqrt(h);
      i.area.mutate<double>()[static_cast<std::size_t>((row + half) * noise_dim + j)] = std::sqrt(h / 12);
    }
    state = solver.step(sde, state, {k * h, (k + 1) * h}, i, {});
  }
  const auto x = state[0].value().to_doubles();
  const Eigen::Map<const Eigen::Matrix<double, -1, -1, Eigen::RowMajor>> all(x.data(), rows, dim);
  const MatrixXd mean = all.row(0).transpose(), response = all.bottomRows(rows - 1).rowwise() - all.row(0);
  return {mean, mean * mean.transpose() + response.transpose() * response};
}
Moments moments(const MatrixXd& A, const MatrixXd& S) {
  const MatrixXd mean = exponential(A) * MatrixXd::Ones(A.rows(), 1);
  MatrixXd covariance = MatrixXd::Zero(A.rows(), A.rows());
  const int pieces = 400;  // Simpson's rule: error of order 1e-11
  for (int i = 0; i <= pieces; ++i) {
    const double t = static_cast<double>(i) / pieces, weight = (i == 0 || i == pieces ? 1.0 : i % 2 ? 4.0 : 2.0) / (3 * pieces);
    const MatrixXd E = exponential(A * (1 - t)) * S * (1 + t);
    covariance += weight * E * E.transpose();
  }
  return {mean, mean * mean.transpose() + covariance};
}

TEST(WeakOrder, AdditiveNoiseOnLinearDrift) {
  MatrixXd A(2, 2), S(2, 3);
  A << -0.5, 1, -2, -1;
  S << 0.6, 0.2, 0, -0.3, 0.4, 0.5;
  const MatrixXd one = MatrixXd::Constant(1, 1, 1);
  struct Case {
    const char* name;
    MatrixXd A, S;
  };
  for (const Case& c : {Case{"Ornstein-Uhlenbeck", -one, 0.5 * one}, Case{"shear", A, S}}) {
    const Moments exact = moments(c.A, c.S);
    for (const Solver& s : solvers()) {
      if (!s.matrix_noise) continue;
      std::vector<double> mean, second;
      for (const int steps : {16, 32, 64, 128}) {
        const Moments m = moments(s, c.A, c.S, steps);
        mean.push_back((m.mean - exact.mean).norm()), second.push_back((m.second - exact.second).norm());
      }
      expect_order(s, c.name, mean, s.weak_order_additive);
      expect_order(s, c.name, second, s.weak_order_additive);
    }
  }
}

// Geometric Brownian motion: a step is linear in the state, (x) or for the reversible method (x, z), with a random matrix M.
// E[X_K] = (E[M]^K x0)_x and E[X_K^2] = (E[M (x) M]^K x0 (x) x0)_xx; M is a polynomial in w, for which 8 nodes are exact.
struct Geometric {
  const Solver& solver;
  double m, s;
  Sde sde{};
  int dim;

  Geometric(const Solver& of, double drift, double noise) : solver(of), m(drift), s(noise), dim(of.reversible ? 2 : 1) {
    sde.calculus = solver.calculus;
    sde.drift = [drift](const Var& x, const Var&, const Tensor&) { return affine(x, drift, 0); };
    sde.diffusion = Diffusion::of_elements([noise](const Var& x, const Var&, const Tensor&) { return affine(x, noise, 0); });
  }
  // M of a step of length h with increment w: its columns are the images of unit states.
  MatrixXd matrix(double h, double w) const {
    MatrixXd M(dim, dim);
    for (int unit = 0; unit < dim; ++unit) {
      const auto value = [](double v) { return Var(Tensor::full({1}, v, DType::f64)); };
      SolverState state = {value(unit == 0)};
      if (dim == 2) state = {value(unit == 0), value(unit == 1), value(m * unit), value(s * unit)};
      state = solver.step(sde, state, {0, h}, {Tensor::full({1}, w, DType::f64), {}}, {});
      for (int i = 0; i < dim; ++i) M(i, unit) = state[static_cast<std::size_t>(i)].value().item();
    }
    return M;
  }
  // E[X(1)] and E[X(1)^2] from 1.
  std::array<double, 2> expectation(int steps) const {
    const Quadrature q(8);
    const double h = 1.0 / steps;
    MatrixXd one = MatrixXd::Zero(dim, dim), pair = MatrixXd::Zero(dim * dim, dim * dim);
    for (std::size_t n = 0; n < q.node.size(); ++n) {
      const MatrixXd M = matrix(h, std::sqrt(h) * q.node[n]);
      one += q.weight[n] * M, pair += q.weight[n] * Eigen::kroneckerProduct(M, M).eval();
    }
    MatrixXd x = MatrixXd::Ones(dim, 1), xx = MatrixXd::Ones(dim * dim, 1);
    for (int k = 0; k < steps; ++k) x = (one * x).eval(), xx = (pair * xx).eval();
    return {x(0), xx(0)};
  }
};

TEST(WeakOrder, DiagonalNoise) {
  const double m = 0.5, s = 0.6;
  for (const Solver& solver : solvers()) {
    if (solver.weak_order == 0) continue;
    const Geometric geometric(solver, m, s);
    const double mu = solver.calculus == Calculus::ito ? m : m + s * s / 2;
    std::vector<double> mean, second;
    for (const int steps : {16, 32, 64, 128}) {
      const auto e = geometric.expectation(steps);
      mean.push_back(std::abs(e[0] - std::exp(mu))), second.push_back(std::abs(e[1] - std::exp(2 * mu + s * s)));
    }
    expect_order(solver, "geometric Brownian motion", mean, solver.weak_order);
    expect_order(solver, "geometric Brownian motion", second, solver.weak_order);
  }
}

// The double wells: u_k(y) = E[u_{k+1}(step(y))], u_K = f, on a grid of states y, by quadrature over (w, H) and Lagrange
// interpolation through 8 neighbours an axis. The state is x, or for the reversible method (x, z - x).
class Transition {
 public:
  struct Axis {
    int points;  // in [-end, end]
    double end;
    double spacing() const { return 2 * end / (points - 1); }
    double at(int i) const { return i * spacing() - end; }
    int index(double y) const { return static_cast<int>(std::lround((y + end) / spacing())); }
    // The first of 8 neighbours of y and their weights. States beyond the end, which paths from 0.5 do not reach, count as
    // the end.
    int neighbours(double y, double (&weight)[8]) const {
      const double place = (std::clamp(y, -end, end) + end) / spacing();
      const int first = std::clamp(static_cast<int>(std::floor(place)) - 3, 0, points - 8);
      for (int i = 0; i < 8; ++i) {
        weight[i] = 1;
        for (int j = 0; j < 8; ++j)
          if (j != i) weight[i] *= (place - first - j) / (i - j);
      }
      return first;
    }
  };

  Transition(const Sde& sde, const Solver& solver, double h, const Axis& x_axis, const Axis& d_axis = {1, 0})
      : x_(x_axis), d_(d_axis) {
    const Quadrature q(10), r(solver.area ? 6 : 1);
    std::vector<double> x, z, w, area, weight;
    for (int i = 0; i < x_.points; ++i)
      for (int j = 0; j < d_.points; ++j)
        for (std::size_t a = 0; a < q.node.size(); ++a)
          for (std::size_t b = 0; b < r.node.size(); ++b) {
            x.push_back(x_.at(i)), z.push_back(x.back() + (d_.points > 1 ? d_.at(j) : 0));
            w.push_back(std::sqrt(h) * q.node[a]), area.push_back(std::sqrt(h / 12) * r.node[b]);
            weight.push_back(q.weight[a] * r.weight[b]);
          }
    const Shape shape{static_cast<std::int64_t>(x.size())};
    const auto tensor = [&](const std::vector<double>& v) { return Tensor::from(v, shape); };
    SolverState state = start(solver, sde, Var(tensor(z)), 0, {});  // the drift of the reversible method's state is b(z)
    state[0] = Var(tensor(x));
    state = solver.step(sde, state, {0, h}, {tensor(w), tensor(area)}, {});
    const auto next = state[0].value().to_doubles(), next_z = state[d_.points > 1 ? 1 : 0].value().to_doubles();
    std::vector<Eigen::Triplet<double>> entries;
    const std::size_t sources = static_cast<std::size_t>(x_.points * d_.points), nodes = next.size() / sources;
    double along_x[8], along_d[8] = {1};
    for (std::size_t n = 0; n < next.size(); ++n) {
      const int first = x_.neighbours(next[n], along_x), first_d = d_.points > 1 ? d_.neighbours(next_z[n] - next[n], along_d) : 0;
      for (int i = 0; i < 8; ++i)
        for (int j = 0; j < std::min(8, d_.points); ++j)
          entries.emplace_back(static_cast<int>(n / nodes), (first + i) * d_.points + first_d + j, weight[n] * along_x[i] * along_d[j]);
    }
    T_.resize(static_cast<Eigen::Index>(sources), static_cast<Eigen::Index>(sources));
    T_.setFromTriplets(entries.begin(), entries.end());
  }
  // E[f(X_K)] from x = z = 0.5 for f = x, x^2.
  std::array<double, 2> expectation(int steps) const {
    MatrixXd u(x_.points * d_.points, 2);
    for (int i = 0; i < u.rows(); ++i) u(i, 0) = x_.at(i / d_.points), u(i, 1) = u(i, 0) * u(i, 0);
    for (int k = 0; k < steps; ++k) u = (T_ * u).eval();
    const int at = x_.index(0.5) * d_.points + (d_.points > 1 ? d_.index(0) : 0);
    return {u(at, 0), u(at, 1)};
  }

 private:
  Axis x_, d_;
  Eigen::SparseMatrix<double, Eigen::RowMajor> T_;
};

// Compared with SRA1 in 2048 steps, whose own error is 1/64 of the finest one's here.
TEST(WeakOrder, AdditiveNoiseInADoubleWell) {
  const auto expect = [](const Solver& s, const char* what, const std::array<double, 2>& exact, auto&& at) {
    std::vector<double> mean, second;
    for (const int steps : {32, 64, 128, 256}) {
      const std::array<double, 2> e = at(steps);
      mean.push_back(std::abs(e[0] - exact[0])), second.push_back(std::abs(e[1] - exact[1]));
    }
    expect_order(s, what, mean, s.weak_order_additive);
    expect_order(s, what, second, s.weak_order_additive);
  };
  const Transition::Axis cubic_axis{351, 3.5}, axis{241, 6}, difference{17, 0.4};
  const auto at = [](const Sde& sde, const char* name, int steps, const auto&... axes) {
    return Transition(sde, solver(name), 1.0 / steps, axes...).expectation(steps);
  };
  const Sde cubic = double_well(true).sde;
  const auto exact = at(cubic, "sra1", 2048, cubic_axis);
  for (const char* name : {"euler_maruyama", "heun", "sra1"})
    expect(solver(name), "cubic double well", exact, [&](int steps) { return at(cubic, name, steps, cubic_axis); });
  // For the reversible method the well of bounded slope, as in order_test.cpp.
  const Sde bounded = double_well(false).sde;
  expect(solver("reversible_heun"), "double well", at(bounded, "sra1", 2048, axis),
         [&](int steps) { return at(bounded, "reversible_heun", steps, axis, difference); });
}

}  // namespace
}  // namespace costate::sde
