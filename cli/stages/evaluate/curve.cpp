#include "stages/evaluate/curve.h"

#include <costate/finetune/data/file.h>

#include <filesystem>

#include "run/csv_columns.h"

namespace costate::cli {

std::vector<std::int64_t> checkpoint_steps(const Config& config) {
  const std::int64_t every = config.finetune.checkpoint_every, total = config.finetune.iterations;
  std::vector<std::int64_t> steps;
  for (std::int64_t n = every; every > 0 && n < total; n += every) steps.push_back(n);
  steps.push_back(total);
  return steps;
}

Queries queries_at(const RunDirectory& directory, std::int64_t step) {
  const std::string path = directory.file("metrics.csv");
  if (!std::filesystem::exists(path)) return {};
  const CsvColumns table = read_csv_columns(path);
  if (!table.has("reward_queries") || !table.has("evaluations")) return {};
  double before = 0;
  Queries low;
  for (std::size_t i = 0; i < table.rows(); ++i) {
    if (table.text("stage", i) != "finetune") continue;
    const double at = table.number("step", i);
    const Queries here{table.number("reward_queries", i), table.number("evaluations", i)};
    if (at >= static_cast<double>(step)) {
      const double share = (static_cast<double>(step) - before) / (at - before);
      return {low.rewards + share * (here.rewards - low.rewards),
              low.evaluations + share * (here.evaluations - low.evaluations)};
    }
    before = at, low = here;
  }
  return low;
}

void Curve::row(std::int64_t step, const Queries& queries, const std::vector<std::pair<std::string, double>>& numbers) {
  if (names_.empty())
    for (const auto& [name, value] : numbers) names_.push_back(name);
  rows_ += std::to_string(step) + "," + number_text(queries.rewards) + "," + number_text(queries.evaluations);
  for (const auto& [name, value] : numbers) rows_ += "," + number_text(value);
  rows_ += "\n";
}

std::string Curve::csv() const {
  std::string head = "step,reward_queries,evaluations";
  for (const std::string& name : names_) head += "," + name;
  return head + "\n" + rows_;
}

}  // namespace costate::cli
