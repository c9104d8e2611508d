#include <costate/finetune/problem/linear_gaussian.h>
#include <costate/finetune/problem/quadratic_control.h>
#include <costate/tensor/error.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <utility>

namespace costate::finetune {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXd;
using MatrixMap = Eigen::Map<const Matrix>;
using VectorMap = Eigen::Map<const Vector>;

struct Problem {
  Matrix A, sigma, D, P, Q;
  Vector w;
  explicit Problem(const QuadraticControlProblem& p)
      : A(MatrixMap(p.A.data(), p.dim, p.dim)),
        sigma(MatrixMap(p.sigma.data(), p.dim, p.dim)),
        D(sigma * sigma.transpose()),
        P(MatrixMap(p.P.data(), p.dim, p.dim)),
        Q(MatrixMap(p.Q.data(), p.dim, p.dim)),
        w(p.w.empty() ? Vector::Zero(p.dim) : Vector(VectorMap(p.w.data(), p.dim))) {}
};

// V's coefficients, as one point of a vector space.
struct Point {
  Matrix F;
  Vector p;
  double c = 0;
  Point plus(double h, const Point& slope) const { return {F + h * slope.F, p + h * slope.p, c + h * slope.c}; }
};

Point slope_of(const Problem& q, const Point& v) {
  const Matrix FD = v.F * q.D, AF = q.A.transpose() * v.F;
  return {2 * FD * v.F - AF - AF.transpose() - q.P, 2 * FD * v.p - q.A.transpose() * v.p,
          v.p.dot(q.D * v.p) / 2 - FD.trace()};
}

// One classical Runge-Kutta step of y' = slope(t, y); y has plus().
template <class Y, class Slope>
Y runge_kutta(const Y& y, double t, double h, const Slope& slope) {
  const Y a = slope(t, y), b = slope(t + h / 2, y.plus(h / 2, a)), c = slope(t + h / 2, y.plus(h / 2, b)),
          d = slope(t + h, y.plus(h, c));
  return y.plus(h / 6, a).plus(h / 3, b).plus(h / 3, c).plus(h / 6, d);
}

// Mean and covariance of X, and the costs so far.
struct Moments {
  Vector m;
  Matrix S;
  double energy = 0, running = 0;
  Moments plus(double h, const Moments& d) const {
    return {m + h * d.m, S + h * d.S, energy + h * d.energy, running + h * d.running};
  }
};

// E x^T G x.
double expected_square(const Matrix& G, const Moments& x) { return x.m.dot(G * x.m) + (G * x.S).trace(); }

}  // namespace

void QuadraticControlProblem::check() const {
  require(dim >= 1, "quadratic control: the dimension is ", dim, ", but at least 1 is needed");
  require(std::isfinite(horizon) && horizon > 0, "quadratic control: the horizon is ", horizon, ", expected a positive number");
  const std::size_t size = static_cast<std::size_t>(dim) * static_cast<std::size_t>(dim);
  const std::pair<const char*, const std::vector<double>*> parts[] = {{"A", &A}, {"sigma", &sigma}, {"P", &P}, {"Q", &Q}};
  for (const auto& [name, values] : parts) {
    require(values->size() == size, "quadratic control: ", name, " has ", values->size(), " entries, expected ", size,
            " in dimension ", dim);
    require(std::all_of(values->begin(), values->end(), [](double v) { return std::isfinite(v); }), "quadratic control: ", name,
            " has an entry that is not finite");
  }
  require(w.empty() || w.size() == static_cast<std::size_t>(dim), "quadratic control: w has ", w.size(),
          " entries in dimension ", dim);
  require(std::all_of(w.begin(), w.end(), [](double v) { return std::isfinite(v); }),
          "quadratic control: w has an entry that is not finite");
  const Problem q(*this);
  require(q.P == q.P.transpose(), "quadratic control: P is not symmetric");
  require(q.Q == q.Q.transpose(), "quadratic control: Q is not symmetric");
  require(Eigen::FullPivLU<Matrix>(q.sigma).isInvertible(), "quadratic control: sigma is not invertible");
}

QuadraticControl::QuadraticControl(QuadraticControlProblem problem, int steps) : problem_(std::move(problem)), steps_(steps) {
  problem_.check();
  require(steps >= 1, "quadratic control: ", steps, " steps of integration, expected at least 1");
  const Problem q(problem_);
  const std::size_t d = static_cast<std::size_t>(problem_.dim), size = d * d + d + 1;
  const std::size_t n = static_cast<std::size_t>(steps);
  nodes_.resize((n + 1) * size), slopes_.resize((n + 1) * size);
  const auto store = [&](const Point& v, std::size_t k, std::vector<double>& to) {
    double* out = to.data() + k * size;
    out = std::copy(v.F.data(), v.F.data() + d * d, out);
    out = std::copy(v.p.data(), v.p.data() + d, out);
    *out = v.c;
  };
  const double h = problem_.horizon / steps;
  Point v{q.Q, q.w, 0};
  for (std::size_t k = n + 1; k-- > 0;) {
    if (!v.F.allFinite() || v.F.cwiseAbs().maxCoeff() > 1e12)
      fail(Fault::numerical, {"quadratic control: the Riccati equation has no solution back to t = ",
                              h * static_cast<double>(k), ": the value is infinite there"});
    v.F = (v.F + Matrix(v.F.transpose())) / 2;  // rounding breaks the symmetry, which the equation keeps
    store(v, k, nodes_), store(slope_of(q, v), k, slopes_);
    if (k > 0) v = runge_kutta(v, 0, -h, [&](double, const Point& y) { return slope_of(q, y); });
  }
}

QuadraticControl::Coefficients QuadraticControl::at(double t) const {
  require(t >= 0 && t <= problem_.horizon, "quadratic control: the time ", t, " is outside 0 to ", problem_.horizon);
  const std::size_t d = static_cast<std::size_t>(problem_.dim), size = d * d + d + 1;
  const double h = problem_.horizon / steps_, position = t / h;
  const auto k = static_cast<std::size_t>(std::min(std::floor(position), static_cast<double>(steps_ - 1)));
  const double s = position - static_cast<double>(k), r = 1 - s;
  const double *y0 = nodes_.data() + k * size, *y1 = y0 + size, *d0 = slopes_.data() + k * size, *d1 = d0 + size;
  const auto value = [&](std::size_t i) {
    return r * r * ((1 + 2 * s) * y0[i] + s * h * d0[i]) + s * s * ((1 + 2 * r) * y1[i] - r * h * d1[i]);
  };
  Coefficients out{std::vector<double>(d * d), std::vector<double>(d), value(size - 1)};
  for (std::size_t i = 0; i < d * d; ++i) out.F[i] = value(i);
  for (std::size_t i = 0; i < d; ++i) out.p[i] = value(d * d + i);
  return out;
}

double QuadraticControl::value(std::span<const double> x, double t) const {
  require(x.size() == static_cast<std::size_t>(problem_.dim), "quadratic control: the state has ", x.size(),
          " entries in dimension ", problem_.dim);
  const Coefficients v = at(t);
  const VectorMap y(x.data(), problem_.dim);
  return y.dot(MatrixMap(v.F.data(), problem_.dim, problem_.dim) * y) + VectorMap(v.p.data(), problem_.dim).dot(y) + v.c;
}

template <class T>
void QuadraticControl::control(double t, std::int64_t rows, const T* x, T* out) const {
  const Coefficients v = at(t);
  const int d = problem_.dim;
  const Matrix sigma = MatrixMap(problem_.sigma.data(), d, d);
  const Matrix gain = -2 * sigma.transpose() * MatrixMap(v.F.data(), d, d);
  const Vector shift = -sigma.transpose() * VectorMap(v.p.data(), d);
  Vector y(d);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (int i = 0; i < d; ++i) y[i] = static_cast<double>(x[r * d + i]);
    const Vector u = gain * y + shift;
    for (int i = 0; i < d; ++i) out[r * d + i] = static_cast<T>(u[i]);
  }
}
template void QuadraticControl::control(double, std::int64_t, const float*, float*) const;
template void QuadraticControl::control(double, std::int64_t, const double*, double*) const;

QuadraticControl::Cost QuadraticControl::cost(std::span<const double> x0, bool controlled) const {
  require(x0.size() == static_cast<std::size_t>(problem_.dim), "quadratic control: the state has ", x0.size(),
          " entries in dimension ", problem_.dim);
  const Problem q(problem_);
  const int d = problem_.dim;
  const double h = problem_.horizon / steps_;
  const auto slope = [&](double t, const Moments& x) -> Moments {
    Matrix M = q.A;
    Vector drift = Vector::Zero(d);
    double energy = 0;
    if (controlled) {
      const Coefficients v = at(std::min(t, problem_.horizon));
      const Matrix gain = 2 * q.sigma.transpose() * MatrixMap(v.F.data(), d, d);  // u = -(gain x + shift)
      const Vector shift = q.sigma.transpose() * VectorMap(v.p.data(), d);
      M -= q.sigma * gain, drift = -q.sigma * shift;
      energy = expected_square(gain.transpose() * gain, x) + 2 * shift.dot(gain * x.m) + shift.squaredNorm();
    }
    const Matrix MS = M * x.S;
    return {M * x.m + drift, MS + MS.transpose() + q.D, energy, expected_square(q.P, x)};
  };
  Moments x{VectorMap(x0.data(), d), Matrix::Zero(d, d), 0, 0};
  for (int k = 0; k < steps_; ++k) x = runge_kutta(x, h * k, h, slope);
  return {x.energy, x.running, expected_square(q.Q, x) + q.w.dot(x.m)};
}

QuadraticControl::Cost QuadraticControl::optimal_cost(std::span<const double> x0) const { return cost(x0, true); }
QuadraticControl::Cost QuadraticControl::zero_cost(std::span<const double> x0) const { return cost(x0, false); }

QuadraticControlProblem isotropic(const QuadraticControlProblem& problem) {
  problem.check();
  const Problem q(problem);
  const auto values = [](const Matrix& m) { return std::vector<double>(m.data(), m.data() + m.size()); };
  // Products of three matrices are symmetric up to rounding; the halves are made equal.
  const auto congruent = [&](const Matrix& G) {
    const Matrix m = q.sigma.transpose() * G * q.sigma;
    return values((m + m.transpose()) / 2);
  };
  const Vector w = q.sigma.transpose() * q.w;
  return {problem.dim, values(q.sigma.fullPivLu().solve(q.A * q.sigma)), values(Matrix::Identity(problem.dim, problem.dim)),
          congruent(q.P), congruent(q.Q), {w.data(), w.data() + w.size()}, problem.horizon};
}

double chain_optimal_cost(const QuadraticControlProblem& problem, std::span<const double> x0, int steps) {
  problem.check();
  require(steps >= 1, "chain_optimal_cost: ", steps, " steps, expected at least 1");
  require(x0.size() == static_cast<std::size_t>(problem.dim), "chain_optimal_cost: the state has ", x0.size(),
          " entries in dimension ", problem.dim);
  // With V' = x^T F x + p^T x + c and m = (1 + h A) x the best step leads to G (m - h D p), G = (1 + 2 h D F)^{-1}.
  const Problem q(problem);
  const double h = problem.horizon / steps;
  const Matrix one = Matrix::Identity(problem.dim, problem.dim), M = one + h * q.A;
  Point v{q.Q, q.w, 0};
  for (int k = 0; k < steps; ++k) {
    const Matrix H = one + 2 * h * q.D * v.F, G = H.inverse();
    // Convex in u, or else without a minimum: sigma^{-1} H sigma = 1 + 2 h sigma^T F sigma must be positive.
    const Matrix inner = one + 2 * h * q.sigma.transpose() * v.F * q.sigma;
    if (!(Eigen::LLT<Matrix>(inner).info() == Eigen::Success))
      fail(Fault::numerical, {"chain_optimal_cost: the value of step ", steps - 1 - k, " of ", steps, " is infinite"});
    const double c = v.c + h * (q.D * v.F).trace() - h / 2 * v.p.dot(G * q.D * v.p);
    const Matrix F = M.transpose() * v.F * G * M + h * q.P;
    v = {(F + F.transpose()) / 2, M.transpose() * G.transpose() * v.p, c};
  }
  const VectorMap x(x0.data(), problem.dim);
  return x.dot(v.F * x) + v.p.dot(x) + v.c;
}

std::vector<double> linear_control(const QuadraticControlProblem& problem, double t) {
  problem.check();
  const int d = problem.dim;
  const Problem q(problem);
  require(q.P.isZero(0) && q.Q.isZero(0), "linear_control: P and Q must be zero; QuadraticControl takes any");
  require(t >= 0 && t <= problem.horizon, "linear_control: the time ", t, " is outside 0 to ", problem.horizon);
  const std::vector<double> w(q.w.data(), q.w.data() + d);
  const std::vector<double> gradient = linear_lean_adjoint(d, problem.A, problem.horizon - t, w);
  const Vector u = -q.sigma.transpose() * VectorMap(gradient.data(), d);
  return {u.data(), u.data() + d};
}

}  // namespace costate::finetune
