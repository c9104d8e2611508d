#include <costate/finetune/evaluate/control_report.h>
#include <costate/finetune/evaluate/importance.h>

namespace costate::finetune {

ControlReport control_report(double lambda, std::span<const double> base_rewards, std::span<const double> tuned_rewards,
                             std::span<const double> cost, std::span<const double> log_ratio) {
  require(!base_rewards.empty() && !tuned_rewards.empty(), "control_report: there are ", base_rewards.size(),
          " samples of the base and ", tuned_rewards.size(), " tuned paths, expected at least one of each");
  require(cost.size() == tuned_rewards.size() && log_ratio.size() == tuned_rewards.size(), "control_report: there are ",
          tuned_rewards.size(), " rewards, ", cost.size(), " costs and ", log_ratio.size(), " log ratios of tuned paths");
  std::vector<double> base_weights, g, j;
  for (const double r : base_rewards) base_weights.push_back(lambda * r);
  for (std::size_t i = 0; i < cost.size(); ++i) {
    g.push_back(lambda * tuned_rewards[i] - log_ratio[i]);
    j.push_back(lambda * tuned_rewards[i] - cost[i]);
  }
  ControlReport out;
  out.objective = mean_estimate(j);
  out.path_kl = mean_estimate(cost);
  out.girsanov = mean_estimate(log_ratio);
  out.log_z_of_base = log_z_estimate(base_weights);
  out.log_z_of_tuned = log_z_estimate(g);
  const double error_of_g = mean_estimate(g).standard_error;
  out.log_weight_variance = error_of_g * error_of_g * static_cast<double>(g.size());
  out.base_ess = effective_sample_size(base_weights) / static_cast<double>(base_weights.size());
  out.tuned_ess = effective_sample_size(g) / static_cast<double>(g.size());
  // Of log mean e^G - mean G: path i moves it by (n w_i - 1) - (G_i - mean G), over n.
  std::vector<double> influence = normalised_weights(g);
  for (std::size_t i = 0; i < g.size(); ++i) influence[i] = influence[i] * static_cast<double>(g.size()) - g[i];
  const Estimate paired{out.log_z_of_tuned.value - mean_estimate(g).value, mean_estimate(influence).standard_error},
      independent{out.log_z_of_base.value - out.objective.value,
                  std::hypot(out.log_z_of_base.standard_error, out.objective.standard_error)};
  out.gap = independent.standard_error < paired.standard_error ? independent : paired;
  return out;
}

std::vector<std::vector<Estimate>> cross_rewards(std::span<const Tensor> samples, std::span<const Reward> rewards) {
  std::vector<std::vector<Estimate>> table;
  for (const Tensor& x : samples) {
    std::vector<Estimate>& row = table.emplace_back();
    for (const Reward& r : rewards) {
      const Reward::Scores scores = r.scores(x, false);
      const std::vector<double> all = scores.value.to_doubles();
      std::vector<double> kept;
      for (std::size_t i = 0; i < all.size(); ++i)
        if (scores.valid.empty() || scores.valid[i]) kept.push_back(all[i]);
      row.push_back(mean_estimate(kept));
    }
  }
  return table;
}

}  // namespace costate::finetune
