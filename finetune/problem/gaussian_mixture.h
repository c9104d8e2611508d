// Gaussian mixtures p = sum_i w_i N(m_i, S_i) in any dimension: the data law for which everything about the
// path x_t = alpha x_1 + beta x_0 is known in closed form. p_t is the mixture of N(alpha m_i, C_i), C_i =
// alpha^2 S_i + beta^2 I; with responsibilities r_i(x, t) ~ w_i N(x; alpha m_i, C_i), y_i = C_i^{-1} (x -
// alpha m_i) and s_i = -y_i:
//   score     s = sum_i r_i s_i
//   denoised  E[x_1|x] = sum_i r_i (m_i + alpha S_i y_i)
//   velocity  v = sum_i r_i v_i,  v_i = alpha' m_i + (alpha alpha' S_i + beta beta' I) y_i
//   J^T a     = sum_i r_i [(alpha alpha' S_i + beta beta' I) C_i^{-1} a + (v_i . a - v . a) s_i]
// None of these divides by alpha or beta, so that they hold at t = 0 and t = 1 as well. Each S_i is
// diagonalised once: a row costs 2 to 4 (dim x dim) products a component, with one time for all rows or one
// for each row alike. Reference: arXiv 2409.08861, Section 3 (velocity and score of the interpolant); the
// mixture forms are standard.
#pragma once
#include <costate/sde/schedule.h>

#include <cstdint>
#include <span>
#include <vector>

namespace costate::finetune {

// One time for all rows of a batch, or one time a row. Converts from a number or a span; a span must outlive
// the call.
class Times {
 public:
  Times(double shared) : shared_(shared) {}
  Times(std::span<const double> per_row) : wide_(per_row) {}
  Times(std::span<const float> per_row) : narrow_(per_row) {}
  bool shared() const { return wide_.empty() && narrow_.empty(); }
  double operator[](std::int64_t row) const {
    const auto i = static_cast<std::size_t>(row);
    return shared() ? shared_ : wide_.empty() ? static_cast<double>(narrow_[i]) : wide_[i];
  }
  // Throws Error(argument) unless there is one time for all or `rows` of them.
  void check(const char* what, std::int64_t rows) const;

 private:
  double shared_ = 0;
  std::span<const double> wide_;
  std::span<const float> narrow_;
};

class GaussianMixture {
 public:
  // weights (n): positive, normalised here. means (n, dim). covariances (n, dim, dim): symmetric, positive
  // definite. Throws Error(argument) naming the component for anything else.
  GaussianMixture(int dim, std::vector<double> weights, std::vector<double> means,
                  std::vector<double> covariances);
  // All components with covariance std^2 I.
  static GaussianMixture isotropic(int dim, std::vector<double> weights, std::vector<double> means,
                                   double std);

  int dim() const { return dim_; }
  int components() const { return static_cast<int>(weights_.size()); }
  std::span<const double> weights() const { return weights_; }
  std::span<const double> mean(int i) const;        // (dim)
  std::span<const double> covariance(int i) const;  // (dim, dim)
  std::vector<double> mean() const;                 // of the mixture, (dim)
  std::vector<double> covariance() const;           // of the mixture, (dim, dim)

  // Batched functions of p_t. x, out and a are row-major (rows, dim) unless said otherwise, T is float or
  // double, and the arithmetic is in double. Rows are independent; results do not depend on the number of
  // threads. `out` may be x or a.
  template <class T>
  void log_density(const sde::Schedule&, std::int64_t rows, const T* x, Times t, T* out) const;  // out (rows)
  template <class T>
  void score(const sde::Schedule&, std::int64_t rows, const T* x, Times t, T* out) const;
  template <class T>
  void denoised(const sde::Schedule&, std::int64_t rows, const T* x, Times t, T* out) const;
  template <class T>
  void velocity(const sde::Schedule&, std::int64_t rows, const T* x, Times t, T* out) const;
  // out = (dv/dx)^T a, row by row.
  template <class T>
  void velocity_vjp(const sde::Schedule&, std::int64_t rows, const T* x, Times t, const T* a, T* out) const;
  template <class T>
  void responsibilities(const sde::Schedule&, std::int64_t rows, const T* x, Times t,
                        T* out) const;  // out (rows, n)

  // The law of the data itself (t = 1).
  template <class T>
  void log_density(std::int64_t rows, const T* x, T* out) const {
    log_density(sde::Schedule{}, rows, x, 1.0, out);
  }
  template <class T>
  void score(std::int64_t rows, const T* x, T* out) const {
    score(sde::Schedule{}, rows, x, 1.0, out);
  }
  template <class T>
  void responsibilities(std::int64_t rows, const T* x, T* out) const {
    responsibilities(sde::Schedule{}, rows, x, 1.0, out);
  }

  // p_t as a mixture.
  GaussianMixture at(const sde::Schedule& schedule, double t) const;

  // Samples number first .. first + rows - 1 of this seed (Stream::data): each is a function of (seed,
  // number) alone. `component`, where given, receives the component of each row.
  template <class T>
  void sample(std::uint64_t seed, std::uint64_t first, std::int64_t rows, T* out,
              int* component = nullptr) const;

  // One dimension only (else throws): P(X <= x), and the x at which it is p, 0 < p < 1.
  double cdf(double x) const;
  double quantile(double p) const;

 private:
  struct AtTime;  // what depends on t but not on x
  struct Row;     // responsibilities and rotated residuals of one row
  template <class T, class Body>
  void each_row(const char* what, const sde::Schedule&, std::int64_t rows, const T* x, Times t,
                const Body& body) const;
  void rotate(int i, const double* v, double* out) const;           // out = U_i^T v
  void rotate_back_add(int i, const double* v, double* out) const;  // out += U_i v

  int dim_ = 0;
  std::vector<double> weights_, means_, covariances_;
  std::vector<double> log_weights_;
  std::vector<double> rotations_,
      eigenvalues_;                    // S_i = U_i diag(lambda_i) U_i^T: (n, dim, dim) row-major, (n, dim)
  std::vector<double> rotated_means_;  // U_i^T m_i
  std::vector<bool> diagonal_;         // S_i is diagonal: U_i = I and is not applied
};

}  // namespace costate::finetune
