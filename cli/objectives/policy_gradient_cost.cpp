// Rows of the loop `policy_gradient`; the table is that of finetune/policy_gradient/policy_gradient.h.
#include <costate/finetune/policy_gradient/window.h>

#include <algorithm>

#include "objectives/cost.h"

namespace costate::cli {
namespace {

// The probability of each first step, over the iterations of the run; {1} stands for whole paths.
std::vector<double> first_steps(const Config& c, int steps, ObjectiveCost::Kind& kind) {
  const WindowConfig& w = c.finetune.policy_gradient.window;
  std::vector<double> p(static_cast<std::size_t>(steps));
  const auto spread = [&](int first, int last, double share) {
    for (int k = first; k <= last; ++k) p[static_cast<std::size_t>(k)] += share / (last - first + 1);
  };
  const auto iterations = static_cast<double>(c.finetune.iterations);
  if (w.kind == "segments") {
    kind = ObjectiveCost::Kind::mean;
    for (std::int64_t n = 0; n < c.finetune.iterations; ++n) {
      const auto part = static_cast<int>(static_cast<double>(n) / iterations * static_cast<double>(w.parts));
      const finetune::StepRange range = finetune::equal_part(steps, static_cast<int>(w.parts), part);
      spread(range.first, range.last, 1 / iterations);
    }
  } else if (w.kind == "clusters") {
    kind = ObjectiveCost::Kind::mean;
    for (const auto& row : w.clusters) spread(static_cast<int>(row[0]), static_cast<int>(row[1]), row[2] / iterations);
  } else {
    if (w.kind != "full") kind = ObjectiveCost::Kind::most;
    p[0] = 1;
  }
  return p;
}

}  // namespace

ObjectiveCost policy_gradient_cost(const Config& c) {
  const FinetuneConfig& f = c.finetune;
  const PolicyGradientConfig& p = f.policy_gradient;
  const sde::Chain chain = tuned_chain(c);
  const std::vector<int> noisy = noisy_steps(chain);
  const int K = chain.steps();
  const bool by_steps = p.loss == "score_function" || p.loss == "clipped_ratio" || p.loss == "clamped_ratio";
  const bool base = !by_steps || p.divergence != "none", critic = by_steps && (p.baseline == "value" || p.baseline == "td");
  const double epochs = static_cast<double>(p.epochs), replay = static_cast<double>(p.replay);
  const double groups = 1 / static_cast<double>(p.group_size);

  ObjectiveCost cost;
  const std::vector<double> first = first_steps(c, K, cost.kind);
  for (int drawn = 0; drawn < K; ++drawn) {
    const double share = first[static_cast<std::size_t>(drawn)];
    if (share == 0) continue;
    const int i = std::min(drawn, noisy.back());
    const auto from = std::lower_bound(noisy.begin(), noisy.end(), i);
    const auto N = static_cast<double>(noisy.end() - from);  // steps with noise of the window
    const double trained = p.train_steps > 0 ? std::min(N, static_cast<double>(p.train_steps)) : N;
    const int simulated = p.window.siblings ? K - i : K;
    const double likely = p.window.siblings ? N : static_cast<double>(noisy.size());
    cost.policy += share * (simulated + (p.window.siblings ? K * groups : 0));
    if (base) cost.base += share * likely;
    cost.parameters += share * epochs * replay * trained;
    cost.rewards += share;
    if (critic && p.critic.skip) {
      // At t = 0 the reward has no weight.
      const auto asked = static_cast<double>(
          std::count_if(from, noisy.end(), [&](int k) { return chain.t[static_cast<std::size_t>(k)] > 0; }));
      cost.rewards += share * (p.baseline == "td" ? asked : asked * trained / N);
      if (p.baseline != "td" && asked < N && trained < N) cost.kind = std::max(cost.kind, ObjectiveCost::Kind::mean);
    }
    cost.stored += share * replay * (simulated + 1 + likely * (base ? 2 : 1));
  }
  if (!by_steps) {
    // The likelihood of a path under the policy as it is, but where it is the policy that made the path: in the first update,
    // which is about one of `minibatches` parts of the newest paths among the replayed ones.
    const double paths = static_cast<double>(f.batch) * replay;
    const auto part = static_cast<double>(static_cast<std::int64_t>(paths) / p.minibatches);
    cost.policy += static_cast<double>(noisy.size()) * (epochs * replay - part / paths);
    if (p.replay > 1 && p.minibatches > 1) cost.kind = std::max(cost.kind, ObjectiveCost::Kind::mean);
  }
  if (p.window.kind == "dynamic") {
    // Probes: samples, and what becomes of them from the first step of each part.
    double steps = K;
    for (int part = 0; part < p.window.parts; ++part)
      steps += K - finetune::equal_part(K, static_cast<int>(p.window.parts), part).first;
    const double probes = static_cast<double>(p.window.probes) / static_cast<double>(f.batch * p.window.every);
    cost.policy += probes * steps, cost.rewards += probes * static_cast<double>(1 + p.window.parts);
  }
  return with_guidance(cost, c);
}

}  // namespace costate::cli
