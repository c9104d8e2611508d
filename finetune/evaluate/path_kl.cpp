#include <costate/finetune/evaluate/path_kl.h>

namespace costate::finetune {

std::vector<double> PathKl::tilted_log_weights(std::span<const double> rewards) const {
  require(rewards.size() == log_ratio().size(), "PathKl::tilted_log_weights: there are ", rewards.size(),
          " rewards for ", log_ratio().size(), " trajectories");
  std::vector<double> g(rewards.begin(), rewards.end());
  for (std::size_t i = 0; i < g.size(); ++i) g[i] -= log_ratio()[i];
  return g;
}

template <class T>
double relative_control_error(std::int64_t count, const T* control, const T* optimal) {
  double difference = 0, total = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double u = control[i], best = optimal[i];
    difference += (u - best) * (u - best), total += best * best;
  }
  return total > 0 ? difference / total : std::numeric_limits<double>::quiet_NaN();
}

template double relative_control_error<float>(std::int64_t, const float*, const float*);
template double relative_control_error<double>(std::int64_t, const double*, const double*);

}  // namespace costate::finetune
