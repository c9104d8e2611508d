#include "stages/evaluate/scores.h"

namespace costate::cli {

std::vector<double> Rewards::kept(const std::vector<double>& all) const {
  std::vector<double> out;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (valid[i]) out.push_back(all[i]);
  return out;
}

Rewards rewards_of(const finetune::Reward& reward, const Tensor& x) {
  Rewards out;
  each_slice(x, [&](const Tensor& rows) {
    const finetune::Reward::Scores s = reward.scores(rows, false);
    const std::vector<double> r = s.value.to_doubles();
    out.value.insert(out.value.end(), r.begin(), r.end());
    out.failed += s.failed;
    if (s.valid.empty()) out.valid.resize(out.value.size(), 1);
    else out.valid.insert(out.valid.end(), s.valid.begin(), s.valid.end());
  });
  if (!x.is_meta() && std::none_of(out.valid.begin(), out.valid.end(), [](std::uint8_t v) { return v != 0; }))
    fail(Fault::numerical, {"evaluate: the reward '", reward.name, "' failed for all of ", out.valid.size(), " samples"});
  return out;
}

}  // namespace costate::cli
