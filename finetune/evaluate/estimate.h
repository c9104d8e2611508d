// A mean with its standard error: what every sampled number is reported as.
#pragma once
#include <costate/tensor/error.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace costate::finetune {

struct Estimate {
  double value = 0;
  double standard_error = std::numeric_limits<double>::quiet_NaN();  // NaN from a single number
};

// Mean of n >= 1 independent numbers and sqrt(unbiased variance/n).
inline Estimate mean_estimate(std::span<const double> values) {
  require(!values.empty(), "mean_estimate: there are no values");
  const double n = static_cast<double>(values.size());
  double mean = 0, square = 0;
  for (double v : values) mean += v;
  mean /= n;
  for (double v : values) square += (v - mean) * (v - mean);
  return {mean, n > 1 ? std::sqrt(square / (n - 1) / n) : std::numeric_limits<double>::quiet_NaN()};
}

}  // namespace costate::finetune
