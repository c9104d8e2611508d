#include <costate/finetune/evaluate/path_kl.h>

namespace costate::finetune {

PathKl::PathKl(std::int64_t rows) {
  require(rows >= 1, "PathKl: the number of trajectories is ", rows);
  cost_.assign(static_cast<std::size_t>(rows), 0.0), log_ratio_ = cost_;
}

template <class T>
void PathKl::add(int dim, const T* control, const T* noise) {
  require(dim >= 1, "PathKl::add: the dimension is ", dim);
  for (std::size_t b = 0; b < cost_.size(); ++b) {
    double square = 0, product = 0;
    for (std::size_t i = b * dim; i < (b + 1) * dim; ++i) {
      const double u = control[i];
      square += u * u, product += u * static_cast<double>(noise[i]);
    }
    cost_[b] += square / 2;
    log_ratio_[b] += product + square / 2;
  }
}

std::vector<double> PathKl::tilted_log_weights(std::span<const double> rewards) const {
  require(rewards.size() == cost_.size(), "PathKl::tilted_log_weights: there are ", rewards.size(),
          " rewards for ", cost_.size(), " trajectories");
  std::vector<double> g(rewards.begin(), rewards.end());
  for (std::size_t i = 0; i < g.size(); ++i) g[i] -= log_ratio_[i];
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

template void PathKl::add<float>(int, const float*, const float*);
template void PathKl::add<double>(int, const double*, const double*);
template double relative_control_error<float>(std::int64_t, const float*, const float*);
template double relative_control_error<double>(std::int64_t, const double*, const double*);

}  // namespace costate::finetune
