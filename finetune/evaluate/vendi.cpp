#include <costate/finetune/evaluate/vendi.h>
#include <costate/tensor/error.h>

#include <Eigen/Eigenvalues>
#include <cmath>

namespace costate::finetune {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// sqrt(w_i), w scaled to sum to 1.
Eigen::VectorXd root_weights(const char* what, Eigen::Index rows, std::span<const double> weights) {
  require(weights.empty() || static_cast<Eigen::Index>(weights.size()) == rows, what, ": there are ", rows, " rows and ",
          weights.size(), " weights");
  Eigen::VectorXd w = Eigen::VectorXd::Ones(rows);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    require(weights[i] >= 0 && std::isfinite(weights[i]), what, ": weight ", i, " is ", weights[i]);
    w[static_cast<Eigen::Index>(i)] = weights[i];
  }
  require(w.sum() > 0, what, ": the weights sum to 0");
  return (w / w.sum()).cwiseSqrt();
}

// Of a positive semidefinite matrix of trace 1. Eigenvalues that rounding left below 0 are 0.
double score(const char* what, const Matrix& m, double order) {
  require(order > 0, what, ": the order is ", order, ", expected a number above 0");
  if (!m.allFinite()) fail(Fault::numerical, {what, ": a number is not finite"});
  const Eigen::VectorXd l = Eigen::SelfAdjointEigenSolver<Matrix>(m, Eigen::EigenvaluesOnly).eigenvalues().cwiseMax(0);
  if (std::isinf(order)) return 1 / l.maxCoeff();
  double sum = 0;
  for (const double v : l)
    if (v > 0) sum += order == 1 ? -v * std::log(v) : std::pow(v, order);
  return order == 1 ? std::exp(sum) : std::pow(sum, 1 / (1 - order));
}

Eigen::Index rows_of(const char* what, int dim, std::span<const double> x) {
  require(dim >= 1, what, ": the dimension is ", dim);
  const auto rows = static_cast<Eigen::Index>(x.size()) / dim;
  require(rows >= 1 && rows * dim == static_cast<Eigen::Index>(x.size()), what, ": ", x.size(),
          " numbers are not rows of dimension ", dim);
  return rows;
}

}  // namespace

double vendi_of_kernel(std::span<const double> kernel, double order, std::span<const double> weights) {
  const auto rows = static_cast<Eigen::Index>(std::llround(std::sqrt(static_cast<double>(kernel.size()))));
  require(rows >= 1 && rows * rows == static_cast<Eigen::Index>(kernel.size()), "vendi_of_kernel: ", kernel.size(),
          " numbers are not a square matrix");
  const Eigen::Map<const Matrix> k(kernel.data(), rows, rows);
  for (Eigen::Index i = 0; i < rows; ++i) {
    require(std::abs(k(i, i) - 1) <= 1e-6, "vendi_of_kernel: entry (", i, ", ", i, ") is ", k(i, i), ", expected 1");
    for (Eigen::Index j = 0; j < i; ++j)
      require(!(std::abs(k(i, j) - k(j, i)) > 1e-6), "vendi_of_kernel: the matrix is not symmetric at (", i, ", ", j, ")");
  }
  const Eigen::VectorXd w = root_weights("vendi_of_kernel", rows, weights);
  return score("vendi_of_kernel", w.asDiagonal() * k * w.asDiagonal(), order);
}

double vendi_of_points(int dim, std::span<const double> x, double bandwidth, double order, std::span<const double> weights) {
  require(bandwidth > 0 && std::isfinite(bandwidth), "vendi_of_points: the bandwidth is ", bandwidth,
          ", expected a number above 0");
  const Eigen::Index rows = rows_of("vendi_of_points", dim, x);
  const Eigen::Map<const Matrix> m(x.data(), rows, dim);
  const Eigen::VectorXd w = root_weights("vendi_of_points", rows, weights);
  Matrix k(rows, rows);
  for (Eigen::Index i = 0; i < rows; ++i)
    for (Eigen::Index j = 0; j <= i; ++j)
      k(i, j) = k(j, i) = w[i] * w[j] * std::exp(-(m.row(i) - m.row(j)).squaredNorm() / (2 * bandwidth * bandwidth));
  return score("vendi_of_points", k, order);
}

double vendi_of_features(int dim, std::span<const double> features, double order, std::span<const double> weights) {
  const Eigen::Index rows = rows_of("vendi_of_features", dim, features);
  Matrix m = Eigen::Map<const Matrix>(features.data(), rows, dim);
  if (!m.allFinite()) fail(Fault::numerical, {"vendi_of_features: a feature is not finite"});
  const Eigen::VectorXd w = root_weights("vendi_of_features", rows, weights);
  for (Eigen::Index i = 0; i < rows; ++i) {
    const double length = m.row(i).norm();
    require(length > 0, "vendi_of_features: row ", i, " is all zeros and has no direction");
    m.row(i) *= w[i] / length;
  }
  return score("vendi_of_features", rows <= dim ? Matrix(m * m.transpose()) : Matrix(m.transpose() * m), order);
}

}  // namespace costate::finetune
