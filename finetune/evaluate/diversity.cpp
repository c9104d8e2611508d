#include <costate/finetune/evaluate/diversity.h>
#include <costate/tensor/error.h>
#include <costate/tensor/parallel.h>

#include <algorithm>
#include <cmath>

namespace costate::finetune {

namespace {

std::int64_t rows_of(const char* what, int dim, std::span<const double> x) {
  require(dim >= 1, what, ": the dimension is ", dim);
  const std::int64_t rows = static_cast<std::int64_t>(x.size()) / dim;
  require(rows >= 2 && rows * dim == static_cast<std::int64_t>(x.size()), what, ": ", x.size(),
          " numbers are not two or more rows of dimension ", dim);
  return rows;
}

}  // namespace

double mean_pairwise_distance(int dim, std::span<const double> x) {
  const std::int64_t rows = rows_of("mean_pairwise_distance", dim, x);
  std::vector<double> sums(static_cast<std::size_t>(rows), 0.0);  // of row i with the rows after it
  parallel_for(rows, 32, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t j = i + 1; j < rows; ++j) {
        double square = 0;
        for (int k = 0; k < dim; ++k)
          square += (x[i * dim + k] - x[j * dim + k]) * (x[i * dim + k] - x[j * dim + k]);
        sums[i] += std::sqrt(square);
      }
  });
  double total = 0;
  for (double v : sums) total += v;
  return total / (0.5 * static_cast<double>(rows) * static_cast<double>(rows - 1));
}

double mean_pairwise_squared_distance(int dim, std::span<const double> x) {
  const std::int64_t rows = rows_of("mean_pairwise_squared_distance", dim, x);
  double trace = 0;
  for (int k = 0; k < dim; ++k) {
    double mean = 0, square = 0;
    for (std::int64_t i = 0; i < rows; ++i) mean += x[i * dim + k];
    mean /= static_cast<double>(rows);
    for (std::int64_t i = 0; i < rows; ++i) square += (x[i * dim + k] - mean) * (x[i * dim + k] - mean);
    trace += square / static_cast<double>(rows - 1);
  }
  return 2 * trace;
}

Histogram histogram(std::span<const double> values, double low, double high, int bins,
                    std::span<const double> weights) {
  require(bins >= 1, "histogram: the number of bins is ", bins);
  require(low < high && std::isfinite(high - low), "histogram: the range from ", low, " to ", high,
          " is empty");
  require(weights.empty() || weights.size() == values.size(), "histogram: there are ", values.size(),
          " values and ", weights.size(), " weights");
  Histogram h{low, high, std::vector<double>(static_cast<std::size_t>(bins), 0.0), 0, 0};
  double total = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double w = weights.empty() ? 1 : weights[i];
    require(w >= 0 && std::isfinite(w), "histogram: weight ", i, " is ", w);
    if (std::isnan(values[i])) fail(Fault::numerical, {"histogram: value ", i, " is not a number"});
    total += w;
    if (values[i] < low)
      h.below += w;
    else if (values[i] >= high)
      h.above += w;
    else  // the last cell takes what rounding would put beyond it
      h.mass[std::min(bins - 1, static_cast<int>((values[i] - low) / (high - low) * bins))] += w;
  }
  require(total > 0, "histogram: there is no mass");
  for (double& m : h.mass) m /= total;
  h.below /= total, h.above /= total;
  return h;
}

}  // namespace costate::finetune
