// finetune.regression: options of the objectives of this loop.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace costate::cli {

struct MatricesConfig {
  double gamma = 2.0, scale = 0.1, lr = 1e-3;
  std::int64_t hidden = 128;
  bool operator==(const MatricesConfig&) const = default;
};

struct ValueConfig {
  std::string form = "plain", target = "td";
  std::int64_t hidden = 64, depth = 2, time_frequencies = 4;
  double lr = 3e-3, target_decay = 0.9;
  std::int64_t updates = 4, pairs = 0;
  bool damping = false;
  std::int64_t contraction_every = 0, contraction_rows = 16, contraction_iterations = 10;
  bool operator==(const ValueConfig&) const = default;
};

struct ReplayConfig {
  std::int64_t size = 0, passes = 2;
  bool weighted = false;
  double least_ess = 0.3;
  bool operator==(const ReplayConfig&) const = default;
};

struct RegressionConfig {
  std::vector<double> kl_weights;
  bool sticking_the_landing = false;
  double normaliser_decay = 0.9;
  bool graphs = false;
  MatricesConfig matrices;
  ValueConfig value;
  ReplayConfig replay;
  bool operator==(const RegressionConfig&) const = default;
};

}  // namespace costate::cli
