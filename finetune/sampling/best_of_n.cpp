#include <costate/finetune/sampling/best_of_n.h>

#include <algorithm>
#include <cmath>

namespace costate::finetune {

double best_of_n_kl(std::int64_t n) {
  require(n >= 1, "best_of_n_kl: n is ", n, ", expected at least 1");
  return std::log(static_cast<double>(n)) - static_cast<double>(n - 1) / static_cast<double>(n);
}

double expected_best_of_n(std::span<const double> rewards, std::int64_t n) {
  const auto m = static_cast<std::int64_t>(rewards.size());
  require(n >= 1 && n <= m, "expected_best_of_n: the best of ", n, " of ", m, " rewards, expected 1 to ", m);
  std::vector<double> r(rewards.begin(), rewards.end());
  for (const double v : r)
    if (!std::isfinite(v)) fail(Fault::numerical, {"expected_best_of_n: a reward is not finite"});
  std::sort(r.begin(), r.end());
  // C(i-1, n-1)/C(m, n) from i = m down: n/m, then times (i - n)/(i - 1).
  double weight = static_cast<double>(n) / static_cast<double>(m), sum = 0;
  for (std::int64_t i = m; i >= n; --i) {
    sum += weight * r[static_cast<std::size_t>(i - 1)];
    if (i > 1) weight *= static_cast<double>(i - n) / static_cast<double>(i - 1);
  }
  return sum;
}

BestOfN best_of_n(std::int64_t n, const Reward& reward, const std::function<Tensor(std::int64_t round)>& draw) {
  require(n >= 1, "best_of_n: n is ", n, ", expected at least 1");
  require(static_cast<bool>(draw), "best_of_n: there is nothing to draw from");
  BestOfN best;
  for (std::int64_t round = 0; round < n; ++round) {
    const Tensor x = draw(round);
    const std::vector<double> r = reward(x).to_doubles();
    if (!x.is_meta() && !std::all_of(r.begin(), r.end(), [](double v) { return std::isfinite(v); }))
      fail(Fault::numerical, {"best_of_n: a reward of round ", round, " is not finite"});
    if (round == 0) {
      best = {x.clone(), r};
      continue;
    }
    require(x.shape() == best.x.shape(), "best_of_n: round ", round, " has samples of shape ", x.shape(), " after ",
            best.x.shape());
    if (x.is_meta()) continue;
    for (std::int64_t i = 0; i < x.extent(0); ++i)
      if (r[static_cast<std::size_t>(i)] > best.reward[static_cast<std::size_t>(i)]) {
        best.reward[static_cast<std::size_t>(i)] = r[static_cast<std::size_t>(i)];
        best.x.slice(i, 1).copy_from(x.slice(i, 1));
      }
  }
  return best;
}

}  // namespace costate::finetune
