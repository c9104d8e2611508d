#include <costate/finetune/problem/gaussian_mixture.h>
#include <costate/tensor/error.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/random.h>

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

namespace costate::finetune {

namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ConstMap = Eigen::Map<const Matrix>;

// Rows a task: a function of the shapes alone.
std::int64_t grain(int dim, int components) { return std::max<std::int64_t>(16, 16384 / (dim * components)); }

}  // namespace

void Times::check(const char* what, std::int64_t rows) const {
  const std::size_t n = wide_.empty() ? narrow_.size() : wide_.size();
  require(rows >= 0, what, ": the number of rows is ", rows);
  require(shared() || n == static_cast<std::size_t>(rows), what, ": there are ", n, " times for ", rows,
          " rows");
}

GaussianMixture::GaussianMixture(int dim, std::vector<double> weights, std::vector<double> means,
                                 std::vector<double> covariances)
    : dim_(dim),
      weights_(std::move(weights)),
      means_(std::move(means)),
      covariances_(std::move(covariances)) {
  require(dim >= 1, "GaussianMixture: the dimension is ", dim, ", but at least 1 is needed");
  require(!weights_.empty(), "GaussianMixture: there is no component");
  const std::size_t n = weights_.size(), d = dim;
  require(means_.size() == n * d, "GaussianMixture: ", n, " means of dimension ", dim, " are ", n * d,
          " numbers, but ", means_.size(), " were given");
  require(covariances_.size() == n * d * d, "GaussianMixture: ", n, " covariances of dimension ", dim,
          " are ", n * d * d, " numbers, but ", covariances_.size(), " were given");
  double total = 0;
  for (std::size_t i = 0; i < n; ++i) {
    require(weights_[i] > 0 && std::isfinite(weights_[i]), "GaussianMixture: weight ", i, " is ", weights_[i],
            ", but weights must be positive");
    total += weights_[i];
  }
  rotations_.resize(n * d * d), eigenvalues_.resize(n * d), rotated_means_.resize(n * d), diagonal_.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    weights_[i] /= total;
    log_weights_.push_back(std::log(weights_[i]));
    const ConstMap s(covariances_.data() + i * d * d, dim, dim), m(means_.data() + i * d, dim, 1);
    require(m.allFinite(), "GaussianMixture: the mean of component ", i, " is not finite");
    require(s.allFinite() && (s - s.transpose()).cwiseAbs().maxCoeff() <= 1e-12 * s.cwiseAbs().maxCoeff(),
            "GaussianMixture: the covariance of component ", i, " is not symmetric");
    Eigen::Map<Matrix> u(rotations_.data() + i * d * d, dim, dim);
    Eigen::Map<Eigen::VectorXd> lambda(eigenvalues_.data() + i * d, dim);
    diagonal_[i] = s.isDiagonal(0);
    if (diagonal_[i]) {
      u.setIdentity(), lambda = s.diagonal();
    } else {
      const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver{Eigen::MatrixXd(s)};
      u = solver.eigenvectors(), lambda = solver.eigenvalues();
    }
    require(lambda.minCoeff() > 1e-14 * lambda.maxCoeff(), "GaussianMixture: the covariance of component ", i,
            " is not positive definite: its smallest eigenvalue is ", lambda.minCoeff());
    Eigen::Map<Matrix>(rotated_means_.data() + i * d, dim, 1) = u.transpose() * m;
  }
}

GaussianMixture GaussianMixture::isotropic(int dim, std::vector<double> weights, std::vector<double> means,
                                           double std) {
  const std::size_t n = weights.size(), d = std::max(dim, 0);
  std::vector<double> covariances(n * d * d, 0.0);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < d; ++j) covariances[(i * d + j) * d + j] = std * std;
  return GaussianMixture(dim, std::move(weights), std::move(means), std::move(covariances));
}

std::span<const double> GaussianMixture::mean(int i) const {
  require(i >= 0 && i < components(), "GaussianMixture::mean: there is no component ", i, " among ",
          components());
  return std::span(means_).subspan(static_cast<std::size_t>(i) * dim_, dim_);
}

std::span<const double> GaussianMixture::covariance(int i) const {
  require(i >= 0 && i < components(), "GaussianMixture::covariance: there is no component ", i, " among ",
          components());
  const std::size_t size = static_cast<std::size_t>(dim_) * dim_;
  return std::span(covariances_).subspan(i * size, size);
}

std::vector<double> GaussianMixture::mean() const {
  const std::size_t d = dim_;
  std::vector<double> m(d, 0.0);
  for (std::size_t i = 0; i < weights_.size(); ++i)
    for (std::size_t j = 0; j < d; ++j) m[j] += weights_[i] * means_[i * d + j];
  return m;
}

std::vector<double> GaussianMixture::covariance() const {
  const std::size_t d = dim_;
  const std::vector<double> m = mean();
  std::vector<double> s(d * d, 0.0);
  for (std::size_t i = 0; i < weights_.size(); ++i)
    for (std::size_t j = 0; j < d; ++j)
      for (std::size_t k = 0; k < d; ++k)
        s[j * d + k] += weights_[i] * (covariances_[(i * d + j) * d + k] +
                                       (means_[i * d + j] - m[j]) * (means_[i * d + k] - m[k]));
  return s;
}

GaussianMixture GaussianMixture::at(const sde::Schedule& schedule, double t) const {
  const sde::PathPoint p = schedule.at(t);
  const std::size_t d = dim_;
  std::vector<double> means = means_, covariances = covariances_;
  for (double& m : means) m *= p.alpha;
  for (double& s : covariances) s *= p.alpha * p.alpha;
  for (std::size_t i = 0; i < weights_.size(); ++i)
    for (std::size_t j = 0; j < d; ++j) covariances[(i * d + j) * d + j] += p.beta * p.beta;
  return GaussianMixture(dim_, weights_, std::move(means), std::move(covariances));
}

void GaussianMixture::rotate(int i, const double* v, double* out) const {
  if (diagonal_[i]) {
    std::copy(v, v + dim_, out);
    return;
  }
  const double* u = rotations_.data() + static_cast<std::size_t>(i) * dim_ * dim_;
  std::fill(out, out + dim_, 0.0);
  for (int j = 0; j < dim_; ++j)
    for (int k = 0; k < dim_; ++k) out[k] += u[j * dim_ + k] * v[j];
}

void GaussianMixture::rotate_back_add(int i, const double* v, double* out) const {
  if (diagonal_[i]) {
    for (int j = 0; j < dim_; ++j) out[j] += v[j];
    return;
  }
  const double* u = rotations_.data() + static_cast<std::size_t>(i) * dim_ * dim_;
  for (int j = 0; j < dim_; ++j) {
    double sum = 0;
    for (int k = 0; k < dim_; ++k) sum += u[j * dim_ + k] * v[k];
    out[j] += sum;
  }
}

// In the eigenbasis of component i score, velocity and denoised point are diagonal maps of the residual;
// log_norm is the log of weight over normaliser.
struct GaussianMixture::AtTime {
  sde::PathPoint point{};
  std::vector<double> score_slope, velocity_slope, denoised_slope;  // (n, dim)
  std::vector<double> log_norm;                                     // (n)

  void set(const GaussianMixture& g, const sde::PathPoint& p) {
    point = p;
    const std::size_t n = g.weights_.size(), d = g.dim_;
    score_slope.resize(n * d), velocity_slope.resize(n * d), denoised_slope.resize(n * d), log_norm.resize(n);
    for (std::size_t i = 0; i < n; ++i) {
      double log_det = 0;
      for (std::size_t j = i * d; j < (i + 1) * d; ++j) {
        const double lambda = g.eigenvalues_[j], c = p.alpha * p.alpha * lambda + p.beta * p.beta;
        score_slope[j] = -1 / c;
        velocity_slope[j] = (p.alpha * p.alpha_dot * lambda + p.beta_beta_dot) / c;
        denoised_slope[j] = p.alpha * lambda / c;
        log_det += std::log(c);
      }
      log_norm[i] = g.log_weights_[i] - log_det / 2 - g.dim_ * std::log(2 * std::numbers::pi) / 2;
    }
  }
};

struct GaussianMixture::Row {
  std::vector<double> x, a, out;  // (dim): the row in double, a cotangent, a result
  std::vector<double> residual;   // (n, dim): U_i^T (x - alpha m_i)
  std::vector<double> rotated_a;  // (n, dim): U_i^T a
  std::vector<double> r;          // (n): responsibilities
  std::vector<double> va;         // (n): v_i . a
  std::vector<double> scratch;    // (dim)
  double log_density = 0;

  void resize(const GaussianMixture& g) {
    const std::size_t n = g.weights_.size(), d = g.dim_;
    x.resize(d), a.resize(d), out.resize(d), scratch.resize(d), residual.resize(n * d),
        rotated_a.resize(n * d), r.resize(n), va.resize(n);
  }

  // residual, r and log_density from x.
  void set(const GaussianMixture& g, const AtTime& at) {
    const int n = g.components(), d = g.dim_;
    double largest = -std::numeric_limits<double>::infinity();
    for (int i = 0; i < n; ++i) {
      double* y = residual.data() + i * d;
      g.rotate(i, x.data(), y);
      const double *m = g.rotated_means_.data() + i * d, *slope = at.score_slope.data() + i * d;
      double square = 0;
      for (int j = 0; j < d; ++j) {
        y[j] -= at.point.alpha * m[j];
        square -= y[j] * y[j] * slope[j];
      }
      r[i] = at.log_norm[i] - square / 2;
      largest = std::max(largest, r[i]);
    }
    double sum = 0;
    for (double& ri : r) sum += ri = std::exp(ri - largest);
    for (double& ri : r) ri /= sum;
    log_density = largest + std::log(sum);
  }

  // out = sum_i r_i (shift m_i + U_i (slope_i * residual_i)).
  void mix(const GaussianMixture& g, double shift, const std::vector<double>& slope) {
    const int n = g.components(), d = g.dim_;
    std::fill(out.begin(), out.end(), 0.0);
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < d; ++j) scratch[j] = r[i] * slope[i * d + j] * residual[i * d + j];
      g.rotate_back_add(i, scratch.data(), out.data());
      if (shift != 0)
        for (int j = 0; j < d; ++j) out[j] += r[i] * shift * g.means_[static_cast<std::size_t>(i) * d + j];
    }
  }

  // out = (dv/dx)^T a = sum_i r_i U_i [velocity slope * U_i^T a + (v_i . a - v . a) score slope * residual].
  void pull_back(const GaussianMixture& g, const AtTime& at) {
    const int n = g.components(), d = g.dim_;
    double mean_va = 0;
    for (int i = 0; i < n; ++i) {
      double* b = rotated_a.data() + i * d;
      g.rotate(i, a.data(), b);
      const double* m = g.rotated_means_.data() + static_cast<std::size_t>(i) * d;
      va[i] = 0;
      for (int j = 0; j < d; ++j)
        va[i] += (at.point.alpha_dot * m[j] + at.velocity_slope[i * d + j] * residual[i * d + j]) * b[j];
      mean_va += r[i] * va[i];
    }
    std::fill(out.begin(), out.end(), 0.0);
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < d; ++j)
        scratch[j] = r[i] * (at.velocity_slope[i * d + j] * rotated_a[i * d + j] +
                             (va[i] - mean_va) * at.score_slope[i * d + j] * residual[i * d + j]);
      g.rotate_back_add(i, scratch.data(), out.data());
    }
  }

  template <class T>
  void write(T* destination) const {
    for (double value : out) *destination++ = static_cast<T>(value);
  }
};

// body(row number, AtTime, Row with x and the responsibilities set).
template <class T, class Body>
void GaussianMixture::each_row(const char* what, const sde::Schedule& schedule, std::int64_t rows, const T* x,
                               Times t, const Body& body) const {
  t.check(what, rows);
  AtTime shared;
  if (t.shared()) shared.set(*this, schedule.at(t[0]));
  parallel_for(rows, grain(dim_, components()), [&](std::int64_t begin, std::int64_t end) {
    AtTime own;
    own.point.t = -1;  // no time yet
    Row row;
    row.resize(*this);
    for (std::int64_t b = begin; b < end; ++b) {
      if (!t.shared() && own.point.t != t[b]) own.set(*this, schedule.at(t[b]));
      const AtTime& at = t.shared() ? shared : own;
      std::copy(x + b * dim_, x + (b + 1) * dim_, row.x.begin());
      row.set(*this, at);
      body(b, at, row);
    }
  });
}

template <class T>
void GaussianMixture::log_density(const sde::Schedule& schedule, std::int64_t rows, const T* x, Times t,
                                  T* out) const {
  each_row("GaussianMixture::log_density", schedule, rows, x, t,
           [&](std::int64_t b, const AtTime&, Row& row) { out[b] = static_cast<T>(row.log_density); });
}

template <class T>
void GaussianMixture::responsibilities(const sde::Schedule& schedule, std::int64_t rows, const T* x, Times t,
                                       T* out) const {
  each_row("GaussianMixture::responsibilities", schedule, rows, x, t,
           [&](std::int64_t b, const AtTime&, Row& row) {
             for (int i = 0; i < components(); ++i) out[b * components() + i] = static_cast<T>(row.r[i]);
           });
}

template <class T>
void GaussianMixture::score(const sde::Schedule& schedule, std::int64_t rows, const T* x, Times t,
                            T* out) const {
  each_row("GaussianMixture::score", schedule, rows, x, t, [&](std::int64_t b, const AtTime& at, Row& row) {
    row.mix(*this, 0, at.score_slope);
    row.write(out + b * dim_);
  });
}

template <class T>
void GaussianMixture::denoised(const sde::Schedule& schedule, std::int64_t rows, const T* x, Times t,
                               T* out) const {
  each_row("GaussianMixture::denoised", schedule, rows, x, t,
           [&](std::int64_t b, const AtTime& at, Row& row) {
             row.mix(*this, 1, at.denoised_slope);
             row.write(out + b * dim_);
           });
}

template <class T>
void GaussianMixture::velocity(const sde::Schedule& schedule, std::int64_t rows, const T* x, Times t,
                               T* out) const {
  each_row("GaussianMixture::velocity", schedule, rows, x, t,
           [&](std::int64_t b, const AtTime& at, Row& row) {
             row.mix(*this, at.point.alpha_dot, at.velocity_slope);
             row.write(out + b * dim_);
           });
}

template <class T>
void GaussianMixture::velocity_vjp(const sde::Schedule& schedule, std::int64_t rows, const T* x, Times t,
                                   const T* a, T* out) const {
  each_row("GaussianMixture::velocity_vjp", schedule, rows, x, t,
           [&](std::int64_t b, const AtTime& at, Row& row) {
             std::copy(a + b * dim_, a + (b + 1) * dim_, row.a.begin());
             row.pull_back(*this, at);
             row.write(out + b * dim_);
           });
}

template <class T>
void GaussianMixture::sample(std::uint64_t seed, std::uint64_t first, std::int64_t rows, T* out,
                             int* component) const {
  require(rows >= 0, "GaussianMixture::sample: the number of rows is ", rows);
  const Philox random{seed, Stream::data};
  parallel_for(rows, grain(dim_, 1), [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> z(dim_), x(dim_);
    for (std::int64_t b = begin; b < end; ++b) {
      // Step 0 of the counter chooses the component, step 1 holds the normal numbers.
      const std::uint64_t number = first + static_cast<std::uint64_t>(b);
      double u = random.uniform(number, 0, 0);
      int i = 0;
      while (i + 1 < components() && u >= weights_[i]) u -= weights_[i++];
      for (int j = 0; j < dim_; ++j)
        z[j] = std::sqrt(eigenvalues_[static_cast<std::size_t>(i) * dim_ + j]) *
               random.normal(number, 1, static_cast<std::uint32_t>(j));
      const std::span<const double> m = mean(i);
      std::copy(m.begin(), m.end(), x.begin());
      rotate_back_add(i, z.data(), x.data());
      for (int j = 0; j < dim_; ++j) out[b * dim_ + j] = static_cast<T>(x[j]);
      if (component) component[b] = i;
    }
  });
}

double GaussianMixture::cdf(double x) const {
  require(dim_ == 1, "GaussianMixture::cdf: the mixture has dimension ", dim_,
          ", but a distribution function needs 1");
  double p = 0;
  for (std::size_t i = 0; i < weights_.size(); ++i)
    p += weights_[i] * std::erfc((means_[i] - x) / std::sqrt(2 * covariances_[i])) / 2;
  return p;
}

double GaussianMixture::quantile(double p) const {
  require(p > 0 && p < 1, "GaussianMixture::quantile: the probability ", p, " is not between 0 and 1");
  double low = mean(0)[0], high = low, step = 1;
  while (cdf(low) > p) low -= step *= 2;
  while (cdf(high) < p) high += step *= 2;
  // Bisection to the last digit: at most the 1100 halvings that a double can tell apart.
  for (double middle = (low + high) / 2; middle > low && middle < high; middle = (low + high) / 2)
    (cdf(middle) < p ? low : high) = middle;
  return (low + high) / 2;
}

#define COSTATE_INSTANTIATE(T)                                                                               \
  template void GaussianMixture::log_density<T>(const sde::Schedule&, std::int64_t, const T*, Times, T*)     \
      const;                                                                                                 \
  template void GaussianMixture::score<T>(const sde::Schedule&, std::int64_t, const T*, Times, T*) const;    \
  template void GaussianMixture::denoised<T>(const sde::Schedule&, std::int64_t, const T*, Times, T*) const; \
  template void GaussianMixture::velocity<T>(const sde::Schedule&, std::int64_t, const T*, Times, T*) const; \
  template void GaussianMixture::velocity_vjp<T>(const sde::Schedule&, std::int64_t, const T*, Times,        \
                                                 const T*, T*) const;                                        \
  template void GaussianMixture::responsibilities<T>(const sde::Schedule&, std::int64_t, const T*, Times,    \
                                                     T*) const;                                              \
  template void GaussianMixture::sample<T>(std::uint64_t, std::uint64_t, std::int64_t, T*, int*) const;
COSTATE_INSTANTIATE(float)
COSTATE_INSTANTIATE(double)
#undef COSTATE_INSTANTIATE

}  // namespace costate::finetune
