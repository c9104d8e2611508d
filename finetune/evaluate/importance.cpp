#include <costate/finetune/evaluate/importance.h>

#include <algorithm>
#include <limits>

namespace costate::finetune {

double log_sum_exp(std::span<const double> values) {
  double largest = -std::numeric_limits<double>::infinity();
  for (double v : values) largest = std::max(largest, v);
  if (!std::isfinite(largest)) return largest;
  double sum = 0;
  for (double v : values) sum += std::exp(v - largest);
  return largest + std::log(sum);
}

std::vector<double> normalised_weights(std::span<const double> log_weights) {
  require(!log_weights.empty(), "normalised_weights: there are no weights");
  for (std::size_t i = 0; i < log_weights.size(); ++i)
    if (std::isnan(log_weights[i]) || log_weights[i] == std::numeric_limits<double>::infinity())
      fail(Fault::numerical, {"normalised_weights: log weight ", i, " is ", log_weights[i]});
  const double total = log_sum_exp(log_weights);
  if (!std::isfinite(total)) fail(Fault::numerical, {"normalised_weights: every weight is 0"});
  std::vector<double> w;
  w.reserve(log_weights.size());
  for (double v : log_weights) w.push_back(std::exp(v - total));
  return w;
}

double effective_sample_size(std::span<const double> log_weights) {
  double square = 0;
  for (double w : normalised_weights(log_weights)) square += w * w;
  return 1 / square;
}

Estimate log_z_estimate(std::span<const double> log_weights) {
  const std::vector<double> w = normalised_weights(log_weights);
  const double n = static_cast<double>(w.size());
  double variance = 0;  // of w relative to its mean 1/n
  for (double v : w) variance += (v * n - 1) * (v * n - 1);
  const double error = n > 1 ? std::sqrt(variance / (n - 1) / n) : std::numeric_limits<double>::quiet_NaN();
  return {log_sum_exp(log_weights) - std::log(n), error};
}

Estimate weighted_mean(std::span<const double> values, std::span<const double> log_weights) {
  require(values.size() == log_weights.size(), "weighted_mean: there are ", values.size(), " values and ",
          log_weights.size(), " weights");
  const std::vector<double> w = normalised_weights(log_weights);
  double mean = 0, square = 0;
  for (std::size_t i = 0; i < w.size(); ++i) mean += w[i] * values[i];
  for (std::size_t i = 0; i < w.size(); ++i) square += std::pow(w[i] * (values[i] - mean), 2);
  return {mean, std::sqrt(square)};
}

}  // namespace costate::finetune
