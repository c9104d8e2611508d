// PolicyGradient: its critic.
#include <costate/autograd/ops.h>
#include <costate/finetune/policy_gradient/policy_gradient.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace costate::finetune {
namespace {

constexpr std::uint64_t seed_entries = 0x6372697469630000u;

}  // namespace

void PolicyGradient::ask_critic(PathBatch& b) {
  const auto steps = static_cast<std::size_t>(b.steps());
  const std::vector<double> zeros(static_cast<std::size_t>(b.rows()));
  std::vector<int> asked = b.trained;
  if (options_.advantage.baseline == Baseline::td) {
    asked.clear();
    for (const int k : controlled_)
      if (k >= b.first_step) asked.push_back(k);
  }
  if (!critic_->calibrated() && problem_.device != Device::meta) {
    double n = 0, mean = 0, square = 0;
    for (const int k : b.trained)
      for (std::size_t i = 0; i < zeros.size(); ++i)
        if (b.takes(k, i)) n += 1, mean += b.returns[k][i], square += b.returns[k][i] * b.returns[k][i];
    if (n == 0) fail(Fault::numerical, {name_, ": no path takes a step that is trained"});
    mean /= n;
    critic_->calibrate(mean, std::sqrt(std::max(square / n - mean * mean, 0.0)));
  }
  b.critic_input.resize(steps);
  b.values.assign(steps + 1, zeros);
  if (options_.critic.skip) b.gain.assign(steps, zeros), b.offset.assign(steps, zeros);
  for (const int k : asked) {
    const Tensor& x = b.paths.states[k];
    b.critic_input[k] = options_.features ? options_.features(x) : x.reshape({b.rows(), -1});
    require(b.critic_input[k].rank() == 2 && b.critic_input[k].extent(0) == b.rows(), name_,
            ": the critic's features have shape ", b.critic_input[k].shape(), "; expected (", b.rows(), ", width)");
    const double angle = std::numbers::pi * (1 - problem_.chain.t[k]) / 2;
    if (options_.critic.skip) {
      b.gain[k].assign(zeros.size(), std::sin(angle));
      if (problem_.chain.t[k] > 0) {
        const sde::Affine denoise =
            sde::conversion(problem_.chain.prediction, sde::Parametrisation::x1, problem_.chain.schedule, problem_.chain.t[k]);
        const Tensor estimate = axpby(denoise.x, Var(x), denoise.prediction, Var(b.paths.predictions[k])).value();
        const Reward::Scores scores = problem_.reward.scores(estimate, false);
        if (!scores.value.is_meta()) {
          const auto r = scores.value.to_doubles();
          for (std::size_t i = 0; i < zeros.size(); ++i) {
            if (std::isfinite(r[i]) && (scores.valid.empty() || scores.valid[i]))
              b.offset[k][i] = std::cos(angle) * problem_.reward_multiplier * r[i];
            else if (b.valid[i])
              b.valid[i] = 0, --b.valid_paths;
          }
        }
      }
    }
    CriticRows rows{
        b.critic_input[k], Tensor::full({b.rows()}, problem_.chain.t[k], DType::f32, problem_.device), b.paths.labels, {}, {}};
    if (options_.critic.skip) rows.gain = b.gain[k], rows.offset = b.offset[k];
    b.values[k] = critic_->values(rows);
  }
  // A path that has stopped is at its end.
  for (int k = b.first_step; k < b.steps(); ++k)
    for (std::size_t i = 0; i < zeros.size(); ++i)
      if (!b.paths.active(k, static_cast<std::int64_t>(i))) b.values[k][i] = b.reward[i];
  if (b.valid_paths == 0)
    fail(Fault::numerical, {name_, ": no path has a finite reward at every state that the critic is asked at"});
}

CriticRows PolicyGradient::critic_rows(std::span<const PathBatch* const> batches, std::span<const Entry> entries,
                                       CriticTargets& targets) const {
  const auto n = static_cast<std::int64_t>(entries.size());
  const PathBatch& one = *batches[entries[0].batch];
  const std::int64_t width = one.critic_input[one.trained[0]].extent(1);
  CriticRows rows{Tensor::empty({n, width}, DType::f32, problem_.device), {}, {}, {}, {}};
  std::vector<float> t;
  std::vector<std::int32_t> labels;
  for (std::int64_t i = 0; i < n; ++i) {
    const Entry& e = entries[i];
    const PathBatch& b = *batches[e.batch];
    rows.x.slice(i, 1).copy_from(b.critic_input[e.step].slice(e.path, 1));
    t.push_back(static_cast<float>(problem_.chain.t[e.step]));
    if (b.paths.labels.defined()) labels.push_back(b.labels.empty() ? 0 : b.labels[e.path]);
    if (options_.critic.skip) rows.gain.push_back(b.gain[e.step][e.path]), rows.offset.push_back(b.offset[e.step][e.path]);
    targets.target.push_back(b.returns[e.step][e.path]);
    targets.old.push_back(b.values[e.step][e.path]);
  }
  rows.t = Tensor::from(t, {n}, problem_.device);
  if (!labels.empty()) rows.labels = Tensor::from(labels, {n}, problem_.device);
  return rows;
}

std::vector<Entry> PolicyGradient::random_entries(std::span<const PathBatch* const> batches, std::int64_t count,
                                                  std::uint64_t draw) const {
  struct Taken {
    std::int32_t path;
    std::size_t steps;  // of the trained ones, in order, those before the path stops
  };
  std::vector<std::vector<Taken>> valid;
  for (const PathBatch* b : batches) {
    valid.emplace_back();
    for (std::int64_t i = 0; i < b->rows(); ++i) {
      const auto steps = std::count_if(b->trained.begin(), b->trained.end(),
                                       [&](int k) { return b->takes(k, static_cast<std::size_t>(i)); });
      if (steps > 0) valid.back().push_back({static_cast<std::int32_t>(i), static_cast<std::size_t>(steps)});
    }
    if (valid.back().empty()) fail(Fault::numerical, {name_, ": the critic has no step of a path to learn from"});
  }
  const Philox philox{options_.seed ^ seed_entries, Stream::subset};
  const auto below = [&](std::size_t n, std::int64_t i, std::uint32_t j) {
    return philox.below(static_cast<std::uint32_t>(n), draw, static_cast<std::uint32_t>(i), j);
  };
  std::vector<Entry> entries;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t b = below(batches.size(), i, 0);
    const Taken& taken = valid[b][below(valid[b].size(), i, 1)];
    entries.push_back({static_cast<std::int32_t>(b), taken.path, batches[b]->trained[below(taken.steps, i, 2)], 1.0});
  }
  return entries;
}

void PolicyGradient::learn_values(std::span<PathBatch* const> batches, Tally& tally) {
  if (!uses_critic()) return;
  const CriticOptions& o = options_.critic;
  const std::vector<const PathBatch*> read(batches.begin(), batches.end());
  const auto draw = static_cast<std::uint64_t>(iteration_ * (o.updates + 1));
  for (std::int64_t u = 0; u < o.updates; ++u) {
    CriticTargets targets;
    targets.paths = o.batch;
    const auto entries = random_entries(read, o.batch, draw + static_cast<std::uint64_t>(u));
    tally.critic_loss += critic_->update(critic_rows(read, entries, targets), targets), ++tally.critic_updates;
  }
  if (o.reset == CriticOptions::Reset::none) return;
  CriticTargets ignored;
  const std::span<const PathBatch* const> newest(&read.back(), 1);
  const auto entries = random_entries(newest, o.batch, draw + static_cast<std::uint64_t>(o.updates));
  tally.dormant = critic_->reset(critic_rows(newest, entries, ignored), (iteration_ + 1) % o.reset_every == 0);
}

}  // namespace costate::finetune
