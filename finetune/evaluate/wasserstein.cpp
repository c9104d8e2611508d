#include <costate/finetune/evaluate/wasserstein.h>
#include <costate/tensor/error.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace costate::finetune {

namespace {

// Points with their share of the mass, in increasing order.
std::vector<std::pair<double, double>> sorted_masses(std::span<const double> x,
                                                     std::span<const double> weights) {
  require(!x.empty(), "wasserstein1: a set of points is empty");
  require(weights.empty() || weights.size() == x.size(), "wasserstein1: there are ", x.size(), " points and ",
          weights.size(), " weights");
  double total = 0;
  for (double w : weights) {
    require(w >= 0 && std::isfinite(w), "wasserstein1: a weight is ", w);
    total += w;
  }
  require(weights.empty() || total > 0, "wasserstein1: the weights sum to 0");
  std::vector<std::pair<double, double>> points(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(x[i])) fail(Fault::numerical, {"wasserstein1: point ", i, " is ", x[i]});
    points[i] = {x[i], weights.empty() ? 1.0 / static_cast<double>(x.size()) : weights[i] / total};
  }
  std::sort(points.begin(), points.end());
  return points;
}

}  // namespace

double wasserstein1(std::span<const double> x, std::span<const double> y, std::span<const double> x_weights,
                    std::span<const double> y_weights) {
  const auto a = sorted_masses(x, x_weights), b = sorted_masses(y, y_weights);
  double distance = 0, difference = 0;  // difference = F - G left of the next point
  double previous = std::min(a.front().first, b.front().first);
  for (std::size_t i = 0, j = 0; i < a.size() || j < b.size();) {
    const bool from_a = j == b.size() || (i < a.size() && a[i].first <= b[j].first);
    const auto& point = from_a ? a[i++] : b[j++];
    distance += std::abs(difference) * (point.first - previous);
    difference += from_a ? point.second : -point.second;
    previous = point.first;
  }
  return distance;
}

double sliced_wasserstein1(int dim, std::span<const double> x, std::span<const double> y, int projections,
                           std::uint64_t seed, std::span<const double> x_weights,
                           std::span<const double> y_weights) {
  require(dim >= 1, "sliced_wasserstein1: the dimension is ", dim);
  require(projections >= 1, "sliced_wasserstein1: the number of projections is ", projections);
  const std::size_t d = static_cast<std::size_t>(dim);
  require(x.size() % d == 0 && y.size() % d == 0, "sliced_wasserstein1: ", x.size(), " and ", y.size(),
          " numbers are not rows of dimension ", dim);
  if (dim == 1) return wasserstein1(x, y, x_weights, y_weights);
  const Philox random{seed, Stream::evaluation};
  std::vector<double> distances(static_cast<std::size_t>(projections));
  parallel(projections, [&](std::int64_t p) {
    std::vector<double> direction(d);
    double norm = 0;
    for (std::size_t j = 0; j < d; ++j) {
      direction[j] = random.normal(static_cast<std::uint64_t>(p), 0, static_cast<std::uint32_t>(j));
      norm += direction[j] * direction[j];
    }
    for (double& v : direction) v /= std::sqrt(norm);
    const auto project = [&](std::span<const double> rows) {
      std::vector<double> out(rows.size() / d, 0.0);
      for (std::size_t i = 0; i < out.size(); ++i)
        for (std::size_t j = 0; j < d; ++j) out[i] += rows[i * d + j] * direction[j];
      return out;
    };
    distances[static_cast<std::size_t>(p)] = wasserstein1(project(x), project(y), x_weights, y_weights);
  });
  double sum = 0;
  for (double v : distances) sum += v;
  return sum / projections;
}

}  // namespace costate::finetune
