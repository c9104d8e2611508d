// The intermediate checkpoints of fine-tuning as a curve.
#pragma once
#include <functional>

#include "stages/evaluate/laws.h"
#include "stages/stages.h"

namespace costate::cli {

// Updates after which fine-tuning leaves a checkpoint, the last of them included.
std::vector<std::int64_t> checkpoint_steps(const Config& config);

// What fine-tuning had asked for after so many updates: a row of metrics.csv, or between two of them in proportion. Zeros
// where the run has no such rows.
struct Queries {
  double rewards = 0, evaluations = 0;
};
Queries queries_at(const RunDirectory& directory, std::int64_t step);

// One row a checkpoint of curve.csv: step, reward_queries, evaluations, then named numbers.
class Curve {
 public:
  void row(std::int64_t step, const Queries& queries, const std::vector<std::pair<std::string, double>>& numbers);
  std::string csv() const;

 private:
  std::vector<std::string> names_;
  std::string rows_;
};

}  // namespace costate::cli
