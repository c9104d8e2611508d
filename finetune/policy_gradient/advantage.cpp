#include <costate/finetune/policy_gradient/advantage.h>

#include <costate/finetune/training_state.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>

namespace costate::finetune {
namespace {

constexpr double tiny = 1e-6;  // added to standard deviations: a set of equal returns has advantages 0, not NaN

LabelStatistics::Moments moments(std::span<const double> values) {
  double mean = 0, square = 0;
  for (const double v : values) mean += v;
  mean /= static_cast<double>(std::max<std::size_t>(values.size(), 1));
  for (const double v : values) square += (v - mean) * (v - mean);
  return {mean, std::sqrt(square / static_cast<double>(std::max<std::size_t>(values.size(), 1)))};
}

// Subtracts from the entries first..last of a row that take part the mean of the others; or that of all, and divides by their
// deviation. Where one alone takes part, all valid ones do: with itself as its baseline it would be lost to the gradient.
void centre(std::vector<double>& row, std::span<const std::uint8_t> part, std::span<const std::uint8_t> valid, std::size_t first,
            std::size_t last, bool divide) {
  const auto count = std::count_if(part.begin() + static_cast<std::ptrdiff_t>(first),
                                   part.begin() + static_cast<std::ptrdiff_t>(last), [](auto p) { return p != 0; });
  const auto among = count < 2 ? valid : part;
  std::vector<double> values;
  for (std::size_t i = first; i < last; ++i)
    if (among[i]) values.push_back(row[i]);
  const auto m = moments(values);
  const auto n = static_cast<double>(values.size());
  const double factor = divide ? 1 / (m.std + tiny) : n < 2 ? 1.0 : n / (n - 1);
  for (std::size_t i = first; i < last; ++i) row[i] = (row[i] - m.mean) * factor;
}

}  // namespace

void LabelStatistics::visit_state(StateVisitor& v) {
  std::vector<int> labels;
  std::vector<std::vector<double>> values;
  for (const auto& [label, last] : values_) labels.push_back(label), values.push_back(last);
  v("labels", labels), v("values", values);
  if (!v.restoring()) return;
  values_.clear();
  for (std::size_t i = 0; i < std::min(labels.size(), values.size()); ++i) values_[labels[i]] = std::move(values[i]);
}

StepTable returns_to_go(std::span<const double> reward, int steps, const StepTable& cost, const StepTable& divergence,
                        double divergence_weight) {
  StepTable out(static_cast<std::size_t>(steps));
  std::vector<double> now(reward.begin(), reward.end());
  for (int k = steps - 1; k >= 0; --k) {
    for (std::size_t i = 0; i < now.size(); ++i) {
      if (!cost.empty()) now[i] -= cost[k][i];
      if (!divergence.empty()) now[i] -= divergence_weight * divergence[k][i];
    }
    out[k] = now;
  }
  return out;
}

void LabelStatistics::add(std::int32_t label, double value) {
  auto& v = values_[label];
  if (v.size() == capacity_) v.erase(v.begin());
  v.push_back(value);
}

LabelStatistics::Moments LabelStatistics::of(std::int32_t label, const Moments& otherwise) const {
  const auto at = values_.find(label);
  return at == values_.end() || at->second.size() < minimum_ ? otherwise : moments(at->second);
}

StepTable advantages(const AdvantageOptions& o, const AdvantageInputs& in, LabelStatistics& statistics) {
  const std::size_t paths = in.valid.size();
  const bool sets = o.baseline == Baseline::group || o.baseline == Baseline::label;
  require(o.whitening != Whitening::set || sets,
          "advantages: whitening by set needs a baseline that is the mean of a set, group or label");
  require(o.clip >= 0, "advantages: the clip is ", o.clip, "; it must not be negative");
  require(o.baseline != Baseline::group || (o.group_size >= 2 && paths % static_cast<std::size_t>(o.group_size) == 0),
          "advantages: the group baseline needs groups of at least 2 that the ", paths, " paths fill; group_size is ",
          o.group_size);
  const bool critic = o.baseline == Baseline::value || o.baseline == Baseline::td;
  require(!critic || !in.values.empty(), "advantages: baselines value and td need the values of a critic");
  const auto label = [&](std::size_t i) { return in.labels.empty() ? 0 : in.labels[i]; };
  require(in.stopped_at.empty() || in.stopped_at.size() == paths, "advantages: ", in.stopped_at.size(), " stops of ", paths,
          " paths");
  // Which paths take step k.
  const auto taking = [&](int k) {
    std::vector<std::uint8_t> part(in.valid.begin(), in.valid.end());
    for (std::size_t i = 0; i < in.stopped_at.size(); ++i) part[i] = part[i] && k < in.stopped_at[i];
    return part;
  };
  const auto values_of = [&](const std::vector<double>& row, const std::vector<std::uint8_t>& part) {
    std::vector<double> values;
    for (std::size_t i = 0; i < paths; ++i)
      if (part[i]) values.push_back(row[i]);
    return values;
  };

  StepTable out(in.returns.size());
  if (o.baseline == Baseline::label && !in.steps.empty()) {
    const std::vector<double>& whole = in.returns[in.steps.front()];
    const auto part = taking(in.steps.front());
    for (std::size_t i = 0; i < paths; ++i)
      if (part[i]) statistics.add(label(i), whole[i]);
  }
  for (const int k : in.steps) {
    std::vector<double>& a = out[k] = in.returns[k];
    const auto part = taking(k);
    const auto batch = moments(values_of(a, part));
    switch (o.baseline) {
      case Baseline::none:
        break;
      case Baseline::batch:
        centre(a, part, in.valid, 0, paths, false);
        break;
      case Baseline::group:
        for (std::size_t g = 0; g < paths; g += static_cast<std::size_t>(o.group_size))
          centre(a, part, in.valid, g, g + static_cast<std::size_t>(o.group_size), o.whitening == Whitening::set);
        break;
      case Baseline::label:
        for (std::size_t i = 0; i < paths; ++i) {
          const auto m = statistics.of(label(i), batch);
          a[i] = (a[i] - m.mean) / (o.whitening == Whitening::set ? m.std + tiny : 1.0);
        }
        break;
      case Baseline::value:
        for (std::size_t i = 0; i < paths; ++i) a[i] -= in.values[k][i];
        break;
      case Baseline::td:
        for (std::size_t i = 0; i < paths; ++i) a[i] = in.values[k + 1][i] - in.step_cost[k][i] - in.values[k][i];
        break;
    }
  }
  if (o.whitening == Whitening::batch) {
    std::vector<double> all;
    for (const int k : in.steps) {
      const auto v = values_of(sets ? in.returns[k] : out[k], taking(k));
      all.insert(all.end(), v.begin(), v.end());
    }
    const auto m = moments(all);
    for (const int k : in.steps)
      for (double& a : out[k]) a = (a - (critic ? m.mean : 0.0)) / (m.std + tiny);
  }
  for (const int k : in.steps) {
    const auto part = taking(k);
    for (std::size_t i = 0; i < paths; ++i) {
      if (o.clip > 0) out[k][i] = std::clamp(out[k][i], -o.clip, o.clip);
      if (!part[i]) out[k][i] = 0;
    }
  }
  return out;
}

}  // namespace costate::finetune
