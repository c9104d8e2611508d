#include "stages/train.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "distributed/ranks.h"
#include "objectives/objectives.h"
#include "run/saved_training.h"

namespace costate::cli {
namespace {

// Means over iterations; lr is that of the last one.
class Mean {
 public:
  void add(const finetune::Metrics& metrics) {
    const std::vector<double> before = std::move(before_);
    before_.clear();
    if (rows_++ == 0 || !before.empty()) mean_ = metrics.entries();
    for (std::size_t i = 0; rows_ > 1 && i < mean_.size(); ++i) {
      const double v = metrics.entries()[i].value;
      if (i < before.size()) mean_[i].value = before[i];
      mean_[i].value = mean_[i].name == "lr" ? v : mean_[i].value + (v - mean_[i].value) / static_cast<double>(rows_);
    }
  }
  // The names come back with the next iteration's.
  void visit_state(finetune::StateVisitor& v) {
    std::vector<double> values;
    if (rows_ > 0)
      for (const auto& m : mean_) values.push_back(m.value);
    v("rows", rows_), v("values", values);
    if (v.restoring()) before_ = std::move(values);
  }
  void restart() { rows_ = 0; }
  // "KL 0.3"; nothing for what an objective does not evaluate.
  std::string text(std::string_view name, const std::string& before) const {
    for (const auto& m : mean_)
      if (m.name == name && std::isfinite(m.value)) return before + short_number(m.value);
    return "";
  }
  Values values() const {
    Values out;
    for (const auto& m : mean_) out.emplace_back(m.name, m.value);
    return out;
  }

 private:
  std::vector<finetune::Metrics::Entry> mean_;
  std::vector<double> before_;  // means that were given back
  std::int64_t rows_ = 0;
};

// Recorded iterations (finetune.regression.graphs) launch what they do without calling the networks that count; and where
// recording was given up halfway, networks have counted twice. These iterations are all alike, so each counts what the first did.
class AlikeIterations {
 public:
  explicit AlikeIterations(Counter& counter) : counter_(counter) {}
  void operator()(const std::function<void()>& iteration) {
    const Evaluations before = counter_.now();
    iteration();
    if (!first_) first_ = counter_.now() - before;
    counter_.restore(before + *first_);
  }

 private:
  Counter& counter_;
  std::optional<Evaluations> first_;
};

}  // namespace

void train(Session& s, finetune::Objective& objective, const std::string& file, const TrainingHooks& hooks) {
  const FinetuneConfig& f = s.config.finetune;
  // A plan looks at three iterations; where iterations differ, at one period and what is left over.
  const auto period_of = cli::objective(f.objective).period;
  const std::int64_t period = period_of ? period_of(f) : 1, left = f.iterations % period;
  const bool periodic = s.planning() && period > 1;
  const std::int64_t total = periodic ? std::min(f.iterations, period + left) : s.iterations(f.iterations);
  Mean mean;
  TrainingSaves saves(s, "finetune", [&](finetune::StateVisitor& v) { v("objective", objective), v("mean", mean); });
  s.begin("finetune", total);
  const std::int64_t done = saves.restore();
  AlikeIterations alike(*s.counter);
  const auto step = [&] { mean.add(objective.step()); };
  std::string remark;
  const auto tune = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t n = first; n <= last; ++n) {
      if (f.regression.graphs) alike(step);
      else count_shared(s, step);
      if (s.progress && objective.remark() != remark) s.progress->note("note: " + (remark = objective.remark()));
      if (n % f.log_every == 0 || n == total) {
        Values row = mean.values();
        row.emplace_back("reward_queries", static_cast<double>(s.counter->now().rewards));
        row.emplace_back("evaluations", static_cast<double>(s.counter->now().total()));
        std::string detail = mean.text("loss", "loss ") + mean.text("reward", "  reward ") + mean.text("control_cost", "  KL ");
        if (hooks.probe && !s.planning())
          for (const auto& [name, value] : hooks.probe(objective.network())) {
            row.emplace_back(name, value);
            detail += "  " + std::string(name) + " " + short_number(value);
          }
        s.log("finetune", n, row, saves.seconds());
        s.step(n, detail);
        mean.restart();
      }
      if (s.checkpoint_due(n, f.checkpoint_every, f.iterations)) {
        const nn::Network average = objective.average();
        if (!s.planning()) hooks.keep(numbered(file, n), average, n);
      }
      saves.after(n, total);
    }
  };
  if (!periodic) s.rounds(total, f.iterations, [&] { tune(done + 1, total); });
  if (periodic && f.iterations >= period) s.rounds(period, f.iterations - left, [&] { tune(1, period); });
  if (periodic && left > 0) s.rounds(left, left, [&] { tune(total - left + 1, total); });
  const nn::Network average = objective.average();
  if (s.planning()) return;
  hooks.keep(file, average, total);
  s.end(mean.text("reward", "reward ") + mean.text("control_cost", ", control cost "));
}

}  // namespace costate::cli
