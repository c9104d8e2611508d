// PolicyGradient: which steps an iteration trains.
#include <costate/finetune/network_field.h>
#include <costate/finetune/policy_gradient/policy_gradient.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace costate::finetune {
namespace {

// Of the samples that are compared, and of what is made of them: with one noise for both they would meet again.
constexpr std::uint64_t seed_probes = 0x70726F6265730000u, seed_again = 0x616761696E000000u;

}  // namespace

int PolicyGradient::choose_first_step() {
  const WindowOptions& w = options_.window;
  // A plan is made for the longest window.
  if (problem_.device.kind == DeviceKind::meta) {
    if (w.kind == WindowOptions::Kind::dynamic && iteration_ % w.every == 0) best_part();
    return earliest_first_step(w, problem_.chain.steps());
  }
  if (w.kind == WindowOptions::Kind::dynamic && iteration_ % w.every == 0) part_ = best_part();
  const int first = draw_first_step(w, problem_.chain.steps(), iteration_, options_.seed, part_);
  return std::min(first, controlled_.back());  // the last steps of some chains have no noise: nothing to train
}

int PolicyGradient::best_part() const {
  const WindowOptions& w = options_.window;
  const sde::NoiseKey key{options_.seed ^ seed_probes, static_cast<std::uint64_t>(iteration_ * w.probes)};
  const sde::NoiseKey again{options_.seed ^ seed_again, key.first_sample};
  const sde::Field policy = field_of(network());
  const Tensor labels = problem_.draw_labels(w.probes, key);
  const Tensor x = terminal_samples(policy, problem_, problem_.initial_states(w.probes, key), 0, labels, key);
  const auto scores = [&](const Tensor& at) {
    const Reward::Scores s = problem_.reward.scores(at, false);
    return s.value.is_meta() ? std::vector<double>(static_cast<std::size_t>(w.probes)) : s.value.to_doubles();
  };
  const std::vector<double> before = scores(x);
  int best = 0;
  double highest = -std::numeric_limits<double>::infinity();
  for (int part = 0; part < w.count; ++part) {
    const int first = equal_part(problem_.chain.steps(), w.count, part).first;
    const Tensor y = terminal_samples(policy, problem_, noised_again(problem_.chain, first, x, again), first, labels, again);
    const std::vector<double> after = scores(y);
    if (y.is_meta()) continue;
    const std::int64_t dim = y.numel() / w.probes;
    const Tensor x_host = x.to(Device::cpu), y_host = y.to(Device::cpu);
    const auto a = x_host.values<float>(), b = y_host.values<float>();
    double merit = 0;
    for (std::int64_t i = 0; i < w.probes; ++i) {
      double ab = 0, aa = 0, bb = 0;
      for (std::int64_t j = i * dim; j < (i + 1) * dim; ++j) {
        const double p = a[j], q = b[j];
        ab += p * q, aa += p * p, bb += q * q;
      }
      if (!std::isfinite(after[i]) || !std::isfinite(before[i])) continue;
      merit +=
          problem_.reward_multiplier * (after[i] - before[i]) - w.penalty * (1 - ab / std::sqrt(std::max(aa * bb, 1e-300)));
    }
    if (merit > highest) highest = merit, best = part;
  }
  return best;
}

std::vector<int> PolicyGradient::draw_steps(int first) const {
  std::vector<int> pool;
  for (const int k : controlled_)
    if (k >= first) pool.push_back(k);
  const int wanted = options_.train_steps;
  if (wanted == 0 || wanted >= static_cast<int>(pool.size())) return pool;
  const Philox philox{options_.seed, Stream::subset};
  for (int i = 0; i < wanted; ++i)
    std::swap(pool[i], pool[i + static_cast<int>(philox.below(static_cast<std::uint32_t>(static_cast<int>(pool.size()) - i),
                                                              static_cast<std::uint64_t>(iteration_), 0,
                                                              static_cast<std::uint32_t>(i)))]);
  pool.resize(static_cast<std::size_t>(wanted));
  std::sort(pool.begin(), pool.end());
  return pool;
}

}  // namespace costate::finetune
