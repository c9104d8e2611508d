#include <costate/finetune/problem/mixture_tilt.h>
#include <costate/tensor/error.h>
#include <costate/tensor/parallel.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace costate::finetune {

namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXd;
using MatrixMap = Eigen::Map<const Matrix>;
using VectorMap = Eigen::Map<const Vector>;

Vector vector_or_zero(const std::vector<double>& v, int dim) {
  return v.empty() ? Vector(Vector::Zero(dim)) : Vector(VectorMap(v.data(), dim));
}

Matrix matrix_or_zero(const std::vector<double>& m, int dim) {
  return m.empty() ? Matrix(Matrix::Zero(dim, dim)) : Matrix(MatrixMap(m.data(), dim, dim));
}

double log_sum_exp(const Vector& v) {
  const double largest = v.maxCoeff();
  return largest + std::log((v.array() - largest).exp().sum());
}

// log E_{N(mu, S)}[e^r] for S = L L^T with L symmetric, which S = 0 may be too. With b = c - Q (mu - nu),
//   = r(mu) - log|M|/2 + b^T L M^{-1} L b/2,  M = I + L Q L.
struct TiltedGaussian {
  Matrix gain;     // L M^{-1} L: the covariance of the tilted Gaussian
  double log_det;  // log |M|
  bool integrable;

  TiltedGaussian(const Matrix& L, const Matrix& Q) {
    const Matrix m = Matrix::Identity(L.rows(), L.cols()) + L * Q * L;
    const Eigen::LLT<Eigen::MatrixXd> llt{Eigen::MatrixXd(m)};
    integrable = llt.info() == Eigen::Success;
    if (!integrable) return;
    log_det = 2 * llt.matrixLLT().diagonal().array().log().sum();
    gain = L * llt.solve(Eigen::MatrixXd(L));
  }
  double log_mean(double reward_at_mean, const Vector& b) const {
    return reward_at_mean - log_det / 2 + b.dot(gain * b) / 2;
  }
};

// Every mixture shares its covariances' eigenvectors with the posterior of x_1 given x_t, whose covariance
// S_i - alpha^2 S_i C_i^{-1} S_i has the eigenvalues lambda beta^2/(alpha^2 lambda + beta^2).
struct Eigenbasis {
  Matrix rotation;
  Vector lambda;
};

struct Tilt {
  std::vector<double> log_weights, means, covariances;
  double log_z;
};

Tilt tilt(const GaussianMixture& base, const QuadraticReward& reward) {
  const int d = base.dim(), n = base.components();
  reward.check(d);
  const Vector c = vector_or_zero(reward.c, d), nu = vector_or_zero(reward.nu, d);
  const Matrix Q = matrix_or_zero(reward.Q, d);
  Tilt out;
  Vector log_weights(n);
  for (int i = 0; i < n; ++i) {
    const Matrix s = MatrixMap(base.covariance(i).data(), d, d);
    const Vector m = VectorMap(base.mean(i).data(), d);
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver{Eigen::MatrixXd(s)};
    const TiltedGaussian tilted(solver.operatorSqrt(), Q);
    require(tilted.integrable, "MixtureTilt: e^r is not integrable under component ", i,
            ": its precision plus Q is not positive definite");
    const Vector b = c - Q * (m - nu);
    log_weights[i] = std::log(base.weights()[i]) + tilted.log_mean(reward.value(m.data(), d), b);
    // (S^{-1} + Q)^{-1} (S^{-1} m + Q nu + c) = m + (S^{-1} + Q)^{-1} b
    const Vector mean = m + tilted.gain * b;
    const Matrix symmetric = (tilted.gain + tilted.gain.transpose()) / 2;
    out.means.insert(out.means.end(), mean.data(), mean.data() + d);
    out.covariances.insert(out.covariances.end(), symmetric.data(), symmetric.data() + d * d);
  }
  out.log_z = log_sum_exp(log_weights);
  for (int i = 0; i < n; ++i) out.log_weights.push_back(log_weights[i] - out.log_z);
  return out;
}

GaussianMixture mixture(int dim, const Tilt& tilt) {
  std::vector<double> weights;
  // A component that the tilt makes impossible keeps the smallest positive weight instead of none.
  for (double w : tilt.log_weights)
    weights.push_back(std::max(std::exp(w), std::numeric_limits<double>::min()));
  return GaussianMixture(dim, weights, tilt.means, tilt.covariances);
}

}  // namespace

void QuadraticReward::check(int dim) const {
  const std::size_t d = dim;
  require(c.empty() || c.size() == d, "QuadraticReward: c has ", c.size(), " entries in dimension ", dim);
  require(nu.empty() || nu.size() == d, "QuadraticReward: nu has ", nu.size(), " entries in dimension ", dim);
  require(Q.empty() || Q.size() == d * d, "QuadraticReward: Q has ", Q.size(), " entries in dimension ", dim);
  for (const auto* part : {&c, &nu, &Q})
    for (double v : *part) require(std::isfinite(v), "QuadraticReward: an entry is ", v);
  if (Q.empty()) return;
  for (std::size_t i = 0; i < d; ++i)
    for (std::size_t j = 0; j < i; ++j)
      require(
          std::abs(Q[i * d + j] - Q[j * d + i]) <= 1e-12 * (std::abs(Q[i * d + j]) + std::abs(Q[j * d + i])),
          "QuadraticReward: Q is not symmetric at (", i, ", ", j, "): ", Q[i * d + j], " and ", Q[j * d + i]);
}

double QuadraticReward::value(const double* x, int dim) const {
  double r = 0;
  for (int i = 0; i < dim; ++i) {
    if (!c.empty()) r += c[i] * x[i];
    if (Q.empty()) continue;
    double qx = 0;
    for (int j = 0; j < dim; ++j) qx += Q[i * dim + j] * (x[j] - (nu.empty() ? 0 : nu[j]));
    r -= (x[i] - (nu.empty() ? 0 : nu[i])) * qx / 2;
  }
  return r;
}

void QuadraticReward::gradient(const double* x, int dim, double* out) const {
  for (int i = 0; i < dim; ++i) {
    double g = c.empty() ? 0 : c[i];
    if (!Q.empty())
      for (int j = 0; j < dim; ++j) g -= Q[i * dim + j] * (x[j] - (nu.empty() ? 0 : nu[j]));
    out[i] = g;
  }
}

QuadraticReward QuadraticReward::times(double factor) const {
  QuadraticReward scaled = *this;
  for (double& v : scaled.c) v *= factor;
  for (double& v : scaled.Q) v *= factor;
  return scaled;
}

MixtureTilt::MixtureTilt(GaussianMixture base, QuadraticReward reward)
    : base_(std::move(base)), reward_(std::move(reward)), target_(base_) {
  const Tilt tilted = tilt(base_, reward_);
  log_z_ = tilted.log_z;
  target_ = mixture(base_.dim(), tilted);
  // E_{N(m', S')}[r] = r(m') - tr(Q S')/2
  const int d = base_.dim();
  for (int i = 0; i < target_.components(); ++i) {
    double r = reward_.value(target_.mean(i).data(), d);
    for (std::size_t j = 0; j < reward_.Q.size(); ++j) r -= reward_.Q[j] * target_.covariance(i)[j] / 2;
    expected_reward_ += target_.weights()[i] * r;
  }
}

template <class T>
void MixtureTilt::value(const sde::Schedule& schedule, std::int64_t rows, const T* x, Times t, T* out) const {
  t.check("MixtureTilt::value", rows);
  const int d = base_.dim(), n = base_.components();
  const Vector c = vector_or_zero(reward_.c, d), nu = vector_or_zero(reward_.nu, d);
  const Matrix Q = matrix_or_zero(reward_.Q, d);
  std::vector<Eigenbasis> bases;
  for (int i = 0; i < n; ++i) {
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver{
        Eigen::MatrixXd(MatrixMap(base_.covariance(i).data(), d, d))};
    bases.push_back({solver.eigenvectors(), solver.eigenvalues()});
  }
  std::vector<T> r(static_cast<std::size_t>(rows) * n);
  base_.responsibilities(schedule, rows, x, t, r.data());
  // What depends on t alone: the posterior's slope alpha S C^{-1} and its tilted Gaussian, a component each.
  struct AtTime {
    double t = -1, alpha = 0;
    std::vector<Matrix> slope;
    std::vector<TiltedGaussian> tilted;
  };
  const auto set = [&](AtTime& at, double time) {
    const sde::PathPoint p = schedule.at(time);
    at = AtTime{time, p.alpha, {}, {}};
    for (const Eigenbasis& e : bases) {
      const Eigen::ArrayXd total = p.alpha * p.alpha * e.lambda.array() + p.beta * p.beta;
      const Vector slope = p.alpha * e.lambda.array() / total;
      const Vector root = p.beta * (e.lambda.array() / total).sqrt();
      at.slope.push_back(e.rotation * slope.asDiagonal() * e.rotation.transpose());
      at.tilted.emplace_back(e.rotation * root.asDiagonal() * e.rotation.transpose(), Q);
    }
  };
  AtTime shared;
  if (t.shared()) set(shared, t[0]);
  parallel_for(rows, 64, [&](std::int64_t begin, std::int64_t end) {
    AtTime own;
    Vector terms(n), row(d);
    for (std::int64_t b = begin; b < end; ++b) {
      if (!t.shared() && own.t != t[b]) set(own, t[b]);
      const AtTime& at = t.shared() ? shared : own;
      for (int j = 0; j < d; ++j) row[j] = x[b * d + j];
      for (int i = 0; i < n; ++i) {
        const VectorMap m(base_.mean(i).data(), d);
        const Vector mu = m + at.slope[i] * (row - at.alpha * m);
        terms[i] = std::log(static_cast<double>(r[b * n + i])) +
                   at.tilted[i].log_mean(reward_.value(mu.data(), d), c - Q * (mu - nu));
      }
      out[b] = static_cast<T>(-log_sum_exp(terms));
    }
  });
}

// In double throughout: the difference of two scores would lose a float's digits.
std::vector<double> MixtureTilt::gradient(const sde::Schedule& schedule, std::int64_t rows,
                                          std::vector<double> x, Times t) const {
  std::vector<double> tuned(x.size());
  target_.score(schedule, rows, x.data(), t, tuned.data());
  base_.score(schedule, rows, x.data(), t, x.data());
  for (std::size_t i = 0; i < x.size(); ++i) x[i] -= tuned[i];
  return x;
}

template <class T>
void MixtureTilt::value_gradient(const sde::Schedule& schedule, std::int64_t rows, const T* x, Times t,
                                 T* out) const {
  t.check("MixtureTilt::value_gradient", rows);
  const auto g = gradient(schedule, rows, {x, x + rows * base_.dim()}, t);
  for (std::size_t i = 0; i < g.size(); ++i) out[i] = static_cast<T>(g[i]);
}

template <class T>
void MixtureTilt::optimal_control(const sde::Schedule& schedule, std::int64_t rows, const T* x, Times t,
                                  T* out) const {
  t.check("MixtureTilt::optimal_control", rows);
  const auto g = gradient(schedule, rows, {x, x + rows * base_.dim()}, t);
  for (std::int64_t b = 0; b < rows; ++b) {
    const sde::PathPoint p = schedule.at(t[b]);
    const double sigma = p.alpha == 0 ? 0 : p.memoryless_sigma;
    for (std::int64_t i = b * base_.dim(); i < (b + 1) * base_.dim(); ++i)
      out[i] = static_cast<T>(-sigma * g[i]);
  }
}

#define COSTATE_INSTANTIATE(T)                                                                           \
  template void MixtureTilt::value<T>(const sde::Schedule&, std::int64_t, const T*, Times, T*) const;    \
  template void MixtureTilt::value_gradient<T>(const sde::Schedule&, std::int64_t, const T*, Times, T*)  \
      const;                                                                                             \
  template void MixtureTilt::optimal_control<T>(const sde::Schedule&, std::int64_t, const T*, Times, T*) \
      const;
COSTATE_INSTANTIATE(float)
COSTATE_INSTANTIATE(double)
#undef COSTATE_INSTANTIATE

}  // namespace costate::finetune
