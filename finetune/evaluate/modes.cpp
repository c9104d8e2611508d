#include <costate/finetune/evaluate/modes.h>
#include <costate/tensor/error.h>

#include <cmath>
#include <limits>

namespace costate::finetune {

namespace {

int nearest_mean(const GaussianMixture& mixture, const double* x) {
  int best = 0;
  double best_square = std::numeric_limits<double>::infinity();
  for (int i = 0; i < mixture.components(); ++i) {
    const auto m = mixture.mean(i);
    double square = 0;
    for (int j = 0; j < mixture.dim(); ++j) square += (x[j] - m[j]) * (x[j] - m[j]);
    if (square < best_square) best = i, best_square = square;
  }
  return best;
}

}  // namespace

std::vector<double> mode_weights(const GaussianMixture& mixture, std::span<const double> x,
                                 ModeAssignment assignment, std::span<const double> weights) {
  const std::size_t d = mixture.dim(), n = mixture.components(), rows = x.size() / d;
  require(rows >= 1 && x.size() == rows * d, "mode_weights: ", x.size(),
          " numbers are not rows of dimension ", d);
  require(weights.empty() || weights.size() == rows, "mode_weights: there are ", rows, " samples and ",
          weights.size(), " weights");
  std::vector<double> r;
  if (assignment == ModeAssignment::responsibility) {
    r.resize(rows * n);
    mixture.responsibilities(static_cast<std::int64_t>(rows), x.data(), r.data());
  }
  std::vector<double> mass(n, 0.0);
  double total = 0;
  for (std::size_t b = 0; b < rows; ++b) {
    const double w = weights.empty() ? 1 : weights[b];
    require(w >= 0 && std::isfinite(w), "mode_weights: weight ", b, " is ", w);
    total += w;
    if (r.empty())
      mass[nearest_mean(mixture, x.data() + b * d)] += w;
    else
      for (std::size_t i = 0; i < n; ++i) mass[i] += w * r[b * n + i];
  }
  require(total > 0, "mode_weights: the weights sum to 0");
  for (double& m : mass) m /= total;
  return mass;
}

}  // namespace costate::finetune
