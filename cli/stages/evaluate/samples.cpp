#include "stages/evaluate/samples.h"

#include <algorithm>
#include <cmath>

namespace costate::cli {
Opinion opinion(const nn::Classifier& judge, const Tensor& x) {
  Opinion out;
  each_slice(x, [&](const Tensor& rows) {
    const finetune::Judgement j = finetune::judge(judge, rows);
    out.width = j.width;
    out.label.insert(out.label.end(), j.label.begin(), j.label.end());
    out.feature.insert(out.feature.end(), j.feature.begin(), j.feature.end());
  });
  return out;
}

Samples look_at(std::string name, const Tensor& x, const Judges& judges) {
  Samples out{std::move(name), x.to_doubles(), {}, {}, {}, {}};
  if (!x.is_meta() && !std::all_of(out.values.begin(), out.values.end(), [](double v) { return std::isfinite(v); }))
    fail(Fault::numerical, {"evaluate: the samples '", out.name, "' are not all finite"});
  out.reward = rewards_of(judges.reward.plain, x);
  out.raised = out.reward;
  if (judges.reward.tilt && !x.is_meta())
    for (double& r : out.raised.value) r = judges.reward.tilt->log_density(r) / judges.multiplier;
  if (judges.gold.defined()) out.gold = rewards_of(judges.gold, x);
  if (judges.judge) out.opinion = opinion(*judges.judge, x);
  return out;
}

}  // namespace costate::cli
