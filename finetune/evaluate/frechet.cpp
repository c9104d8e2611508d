#include <costate/finetune/evaluate/frechet.h>
#include <costate/tensor/error.h>

#include <Eigen/Eigenvalues>
#include <algorithm>

namespace costate::finetune {

namespace {

struct Moments {
  Eigen::VectorXd mean;
  Eigen::MatrixXd covariance;
};

Moments moments(int dim, std::span<const double> x, std::span<const double> weights) {
  const Eigen::Index rows = static_cast<Eigen::Index>(x.size()) / dim;
  require(rows >= 2 && rows * dim == static_cast<Eigen::Index>(x.size()), "frechet_distance: ", x.size(),
          " numbers are not two or more rows of ", dim, " features");
  const Eigen::Map<const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>> m(x.data(),
                                                                                                   rows, dim);
  if (!m.allFinite()) fail(Fault::numerical, {"frechet_distance: a feature is not finite"});
  if (weights.empty()) {
    const Eigen::VectorXd mean = m.colwise().mean();
    const Eigen::MatrixXd centred = m.rowwise() - mean.transpose();
    return {mean, centred.transpose() * centred / static_cast<double>(rows - 1)};
  }
  require(static_cast<Eigen::Index>(weights.size()) == rows, "frechet_distance: there are ", rows, " rows and ",
          weights.size(), " weights");
  Eigen::VectorXd w = Eigen::Map<const Eigen::VectorXd>(weights.data(), rows);
  require(w.allFinite() && w.minCoeff() >= 0 && (w.array() > 0).count() >= 2,
          "frechet_distance: weights must be finite and nonnegative, and at least two of them positive");
  w /= w.sum();
  const Eigen::VectorXd mean = m.transpose() * w;
  const Eigen::MatrixXd centred = m.rowwise() - mean.transpose();
  return {mean, centred.transpose() * w.asDiagonal() * centred / (1 - w.squaredNorm())};
}

}  // namespace

double frechet_distance(int dim, std::span<const double> x, std::span<const double> y, double ridge) {
  return weighted_frechet_distance(dim, x, {}, y, {}, ridge);
}

double weighted_frechet_distance(int dim, std::span<const double> x, std::span<const double> x_weights,
                                 std::span<const double> y, std::span<const double> y_weights, double ridge) {
  require(dim >= 1, "frechet_distance: the number of features is ", dim);
  require(ridge >= 0, "frechet_distance: the ridge is ", ridge);
  Moments a = moments(dim, x, x_weights), b = moments(dim, y, y_weights);
  const double added = ridge * (a.covariance.trace() + b.covariance.trace()) / (2 * dim);
  a.covariance.diagonal().array() += added;
  b.covariance.diagonal().array() += added;
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(a.covariance);
  const Eigen::MatrixXd root = solver.eigenvectors() *
                               solver.eigenvalues().cwiseMax(0).cwiseSqrt().asDiagonal() *
                               solver.eigenvectors().transpose();
  const Eigen::MatrixXd product = root * b.covariance * root;
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> cross((product + product.transpose()) / 2,
                                                             Eigen::EigenvaluesOnly);
  const double overlap = cross.eigenvalues().cwiseMax(0).cwiseSqrt().sum();
  const double d2 =
      (a.mean - b.mean).squaredNorm() + a.covariance.trace() + b.covariance.trace() - 2 * overlap;
  return std::max(d2, 0.0);  // rounding may leave -1e-16 for equal sets
}

}  // namespace costate::finetune
