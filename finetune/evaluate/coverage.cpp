#include <costate/finetune/evaluate/coverage.h>
#include <costate/tensor/error.h>
#include <costate/tensor/parallel.h>

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace costate::finetune {

double chi_squared_tail(double x, int degrees) {
  require(degrees >= 1, "chi_squared_tail: the degrees of freedom are ", degrees, ", expected at least 1");
  require(x >= 0, "chi_squared_tail: found ", x, ", expected a number of at least 0");
  if (std::isinf(x)) return 0;
  const double a = 0.5 * degrees, y = 0.5 * x, front = std::exp(a * std::log(y) - y - std::lgamma(a));
  if (y == 0) return 1;
  if (y < a + 1) {  // P = front sum_n y^n/(a (a+1) ... (a+n)), all terms positive
    double term = 1 / a, sum = term;
    for (double n = 1; term > 1e-17 * sum; ++n) sum += term *= y / (a + n);
    return std::max(0.0, 1 - front * sum);
  }
  // Q = front/(y+1-a - 1(1-a)/(y+3-a - 2(2-a)/(y+5-a - ...))), by Lentz's method.
  double b = y + 1 - a, c = std::numeric_limits<double>::max(), d = 1 / b, h = d;
  for (int n = 1; n < 10000; ++n) {
    const double an = -n * (n - a);
    b += 2;
    d = 1 / (an * d + b), c = b + an / c;
    h *= d * c;
    if (std::abs(d * c - 1) < 1e-16) break;
  }
  return front * h;
}

CountTest count_test(std::span<const std::int64_t> counts, std::span<const double> probabilities) {
  require(counts.size() == probabilities.size() && counts.size() >= 2, "count_test: there are ", counts.size(), " counts and ",
          probabilities.size(), " probabilities, expected as many and at least two");
  double total = 0, mass = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    require(counts[i] >= 0, "count_test: count ", i, " is ", counts[i]);
    require(probabilities[i] >= 0 && std::isfinite(probabilities[i]), "count_test: probability ", i, " is ", probabilities[i]);
    total += static_cast<double>(counts[i]), mass += probabilities[i];
  }
  require(total > 0 && mass > 0, "count_test: the counts sum to ", total, " and the probabilities to ", mass);
  CountTest out;
  out.degrees = -1;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const auto n = static_cast<double>(counts[i]);
    const double expected = total * (probabilities[i] / mass);
    out.total_variation += std::abs(n - expected) / total / 2;
    if (expected == 0 && n == 0) continue;
    ++out.degrees;
    out.chi_squared += (n - expected) * (n - expected) / expected;
    if (n > 0) out.g += 2 * n * std::log(n / expected);
  }
  out.g = std::max(out.g, 0.0);  // rounding may leave -1e-15 for exact counts
  if (out.degrees < 1) return out;
  out.chi_squared_p = chi_squared_tail(out.chi_squared, out.degrees);
  out.g_p = chi_squared_tail(out.g, out.degrees);
  return out;
}

ModeCoverage mode_coverage(const GaussianMixture& target, std::span<const double> x, double reach) {
  const auto d = static_cast<std::size_t>(target.dim()), rows = x.size() / d;
  require(rows >= 1 && x.size() == rows * d, "mode_coverage: ", x.size(), " numbers are not rows of dimension ", d);
  require(reach > 0, "mode_coverage: the reach is ", reach, " standard deviations, expected more than 0");
  using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const int n = target.components();
  std::vector<Eigen::LLT<Matrix>> roots;
  for (int i = 0; i < n; ++i)
    roots.emplace_back(Eigen::Map<const Matrix>(target.covariance(i).data(), target.dim(), target.dim()));
  ModeCoverage out;
  out.counts.assign(static_cast<std::size_t>(n), 0);
  for (std::size_t r = 0; r < rows; ++r) {
    const Eigen::Map<const Eigen::VectorXd> at(x.data() + r * d, target.dim());
    if (!at.allFinite()) fail(Fault::numerical, {"mode_coverage: row ", r, " is not finite"});
    int best = 0;
    double square = std::numeric_limits<double>::infinity();
    for (int i = 0; i < n; ++i) {
      const double s = (at - Eigen::Map<const Eigen::VectorXd>(target.mean(i).data(), target.dim())).squaredNorm();
      if (s < square) best = i, square = s;
    }
    const Eigen::VectorXd offset = at - Eigen::Map<const Eigen::VectorXd>(target.mean(best).data(), target.dim());
    if (roots[static_cast<std::size_t>(best)].matrixL().solve(offset).squaredNorm() > reach * reach)
      ++out.outside;
    else
      ++out.counts[static_cast<std::size_t>(best)];
  }
  for (int i = 0; i < n; ++i)
    out.covered +=
        static_cast<double>(out.counts[static_cast<std::size_t>(i)]) > 0.1 * target.weights()[i] * static_cast<double>(rows);
  if (n >= 2 && out.outside < static_cast<std::int64_t>(rows)) out.test = count_test(out.counts, target.weights());
  return out;
}

namespace {

double squared_distance(int dim, const double* a, const double* b) {
  double sum = 0;
  for (int j = 0; j < dim; ++j) sum += (a[j] - b[j]) * (a[j] - b[j]);
  return sum;
}

// The share of `points` in the union of the balls about `centres`.
double share_within(int dim, std::span<const double> centres, std::span<const double> points, int k) {
  const auto n = static_cast<std::int64_t>(centres.size()) / dim, m = static_cast<std::int64_t>(points.size()) / dim;
  std::vector<double> radius(static_cast<std::size_t>(n));  // squared
  parallel_for(n, 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> to(static_cast<std::size_t>(n));
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t j = 0; j < n; ++j)
        to[static_cast<std::size_t>(j)] = squared_distance(dim, centres.data() + i * dim, centres.data() + j * dim);
      std::nth_element(to.begin(), to.begin() + k, to.end());  // the point itself is the 0-th
      radius[static_cast<std::size_t>(i)] = to[static_cast<std::size_t>(k)];
    }
  });
  std::vector<char> inside(static_cast<std::size_t>(m), 0);
  parallel_for(m, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t j = 0; j < n && !inside[static_cast<std::size_t>(i)]; ++j)
        inside[static_cast<std::size_t>(i)] =
            squared_distance(dim, points.data() + i * dim, centres.data() + j * dim) <= radius[static_cast<std::size_t>(j)];
  });
  return static_cast<double>(std::count(inside.begin(), inside.end(), 1)) / static_cast<double>(m);
}

}  // namespace

PrecisionRecall precision_recall(int dim, std::span<const double> real, std::span<const double> generated, int k) {
  require(dim >= 1 && k >= 1, "precision_recall: the dimension is ", dim, " and k is ", k, ", expected at least 1");
  for (const auto& x : {real, generated}) {
    const std::size_t rows = x.size() / static_cast<std::size_t>(dim);
    require(rows > static_cast<std::size_t>(k) && rows * static_cast<std::size_t>(dim) == x.size(),
            "precision_recall: ", x.size(), " numbers are not more than ", k, " rows of dimension ", dim);
    if (!std::all_of(x.begin(), x.end(), [](double v) { return std::isfinite(v); }))
      fail(Fault::numerical, {"precision_recall: a number is not finite"});
  }
  return {share_within(dim, real, generated, k), share_within(dim, generated, real, k)};
}

double entropy(std::span<const double> masses) {
  double total = 0, sum = 0;
  for (std::size_t i = 0; i < masses.size(); ++i) {
    require(masses[i] >= 0 && std::isfinite(masses[i]), "entropy: mass ", i, " is ", masses[i]);
    total += masses[i];
  }
  require(total > 0, "entropy: the masses sum to 0");
  for (const double m : masses)
    if (m > 0) sum -= m / total * std::log(m / total);
  return sum;
}

}  // namespace costate::finetune
