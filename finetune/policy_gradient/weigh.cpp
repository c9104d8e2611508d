// PolicyGradient: what multiplies the likelihoods, from advantages or from losses of paths.
#include <costate/finetune/network_field.h>
#include <costate/finetune/policy_gradient/policy_gradient.h>

namespace costate::finetune {
namespace {

using Options = PolicyGradientOptions;

bool divergence_in_return(Options::Divergence d) {
  return d == Options::Divergence::in_return || d == Options::Divergence::in_return_and_loss;
}

}  // namespace

SurrogateOptions PolicyGradient::surrogate() const {
  using Kind = SurrogateOptions::Kind;
  const bool in_loss = !of_paths() && (options_.divergence == Options::Divergence::in_loss ||
                                       options_.divergence == Options::Divergence::in_return_and_loss);
  return {options_.loss == Options::Loss::clipped_ratio   ? Kind::clipped_ratio
          : options_.loss == Options::Loss::clamped_ratio ? Kind::clamped_ratio
                                                          : Kind::linear,
          options_.ratio_clip, in_loss ? options_.divergence_weight : 0.0, options_.divergence_form};
}

void PolicyGradient::weigh(PathBatch& b) {
  const auto divergence = options_.divergence;
  const StepTable& measure = divergence == Options::Divergence::in_return ? b.log_ratio : b.control_cost;
  const StepTable none;
  b.returns = returns_to_go(b.reward, b.steps(), b.state_cost, divergence_in_return(divergence) ? measure : none,
                            options_.divergence_weight);
  StepTable step_cost;
  if (uses_critic()) {
    ask_critic(b);
    step_cost.assign(static_cast<std::size_t>(b.steps()), std::vector<double>(static_cast<std::size_t>(b.rows())));
    for (int k = 0; k < b.steps(); ++k)
      for (std::size_t i = 0; i < step_cost[k].size(); ++i)
        step_cost[k][i] = (b.state_cost.empty() ? 0 : b.state_cost[k][i]) +
                          (divergence_in_return(divergence) ? options_.divergence_weight * measure[k][i] : 0);
    // Steps without noise lose nothing but their cost.
    b.values[b.steps()] = b.reward;
    for (int k = b.steps() - 1; k >= b.first_step; --k)
      if (problem_.chain.std[k] == 0)
        for (std::size_t i = 0; i < b.values[k].size(); ++i) b.values[k][i] = b.values[k + 1][i] - step_cost[k][i];
  }
  b.coefficient = advantages(options_.advantage, {b.returns, b.trained, b.valid, b.labels, b.values, step_cost, b.paths.stopped_at},
                             labels_);
}

PathLoss PolicyGradient::weigh_paths(std::span<PathBatch* const> batches, std::span<const Entry> paths) const {
  using Loss = Options::Loss;
  using LogZ = Options::LogZ;
  // The log-ratio of every path under the policy as it is: stored where it has not moved.
  std::vector<double> S(paths.size()), L(paths.size()), made(paths.size());
  for (std::size_t b = 0; b < batches.size(); ++b) {
    std::vector<std::size_t> place;
    std::vector<std::int32_t> row;
    for (std::size_t i = 0; i < paths.size(); ++i)
      if (paths[i].batch == static_cast<std::int32_t>(b)) place.push_back(i), row.push_back(paths[i].path);
    if (row.empty()) continue;
    const std::vector<double> score = batches[b]->path_score(), ratio = batches[b]->path_log_ratio();
    std::vector<double> since(row.size());
    if (batches[b]->policy != learner_.updates())
      since = path_log_ratio_since(field_of(network()), problem_, *batches[b], row);
    for (std::size_t i = 0; i < row.size(); ++i) {
      S[place[i]] = score[row[i]], made[place[i]] = ratio[row[i]];
      L[place[i]] = ratio[row[i]] + since[i];
    }
  }
  std::vector<double> G(paths.size()), weights(paths.size());
  for (std::size_t i = 0; i < paths.size(); ++i) G[i] = S[i] - L[i], weights[i] = S[i] - made[i];
  const std::int64_t set = options_.shared_noise ? options_.advantage.group_size : static_cast<std::int64_t>(paths.size());
  const bool running = options_.log_z == LogZ::running && running_;
  const double from_batch = log_mean_exp(options_.loss == Loss::cross_entropy ? weights : G);
  const double normaliser = running ? running_log_z_ : from_batch;
  PathLoss out;
  switch (options_.loss) {
    case Loss::cross_entropy:
      out = cross_entropy(weights, L, normaliser);
      break;
    case Loss::log_variance:
      out = log_variance(G, set);
      break;
    case Loss::variance:
      out = variance(G, normaliser);
      break;
    case Loss::moment:
      out = moment(G, log_z());
      break;
    default:
      out = options_.log_z == LogZ::learned ? trajectory_balance(G, log_z()) : trajectory_balance_by_sets(G, set);
  }
  for (PathBatch* b : batches)
    if (b->coefficient.empty())
      b->coefficient.assign(static_cast<std::size_t>(b->steps()), std::vector<double>(static_cast<std::size_t>(b->rows())));
  for (std::size_t i = 0; i < paths.size(); ++i)
    for (const int k : batches[paths[i].batch]->trained) batches[paths[i].batch]->coefficient[k][paths[i].path] = out.weight[i];
  return out;
}

}  // namespace costate::finetune
