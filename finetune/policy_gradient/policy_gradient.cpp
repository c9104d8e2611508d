#include <costate/finetune/policy_gradient/policy_gradient.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/distributed/shared_sum.h>
#include <costate/finetune/network_field.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace costate::finetune {
namespace {

using Options = PolicyGradientOptions;

// Seeds of choices that must not share words with each other or with the noise of paths.
constexpr std::uint64_t seed_minibatches = 0x6D696E6962617463u, seed_timesteps = 0x74696D6573746570u;

// A copy that shares no memory, as another iteration's paths would: plans count a full replay from the start.
PathBatch separate(PathBatch batch) {
  const memory::TagScope scope(memory::Tag::trajectory);
  for (auto* list : {&batch.paths.states, &batch.paths.predictions, &batch.paths.base_predictions})
    for (Tensor& t : *list)
      if (t.defined()) t = t.clone();
  for (std::size_t k = 0; k < batch.critic_input.size(); ++k)
    if (Tensor& x = batch.critic_input[k]; x.defined())
      x = x.numel() == batch.paths.states[k].numel() ? batch.paths.states[k].reshape(x.shape()) : x.clone();
  return batch;
}

}  // namespace

PathBatch PolicyGradient::sample() {
  const int first = choose_first_step();
  const bool base = of_paths() || options_.divergence != Options::Divergence::none;
  const sde::NoiseKey key{options_.seed, static_cast<std::uint64_t>(iteration_ * options_.batch)};
  PathBatch b = collect(field_of(network()), problem_,
                        {.rows = options_.batch,
                         .group_size = options_.advantage.group_size,
                         .micro_batch = options_.micro_batch,
                         .shared_noise = options_.shared_noise,
                         .siblings = options_.window.siblings,
                         .first_step = first,
                         .noise_scale = options_.noise_scale,
                         .base = base},
                        key);
  b.policy = learner_.updates();
  b.trained = draw_steps(first);
  const auto pool = std::count_if(controlled_.begin(), controlled_.end(), [&](int k) { return k >= first; });
  b.step_weight = static_cast<double>(pool) / static_cast<double>(b.trained.size());
  if (!of_paths()) weigh(b);
  return b;
}

std::vector<Entry> PolicyGradient::entries_of(std::span<PathBatch* const> batches, std::span<const Entry> paths) const {
  std::vector<Entry> entries;
  // Step by step: rows of one time are neighbours.
  std::size_t longest = 0;
  for (const PathBatch* b : batches) longest = std::max(longest, b->trained.size());
  for (std::size_t j = 0; j < longest; ++j)
    for (Entry e : paths) {
      const PathBatch& b = *batches[e.batch];
      if (j >= b.trained.size() || !b.paths.active(b.trained[j], e.path)) continue;
      e.step = b.trained[j], e.weight *= b.step_weight;
      entries.push_back(e);
    }
  return entries;
}

Gradients PolicyGradient::gradient_of(std::span<const PathBatch* const> batches, std::span<const Entry> entries,
                                      SurrogateSums& sums) const {
  // As many pieces as the paths of a minibatch have micro-batches, whether all of them are learned from or not.
  const std::int64_t all = options_.batch * static_cast<std::int64_t>(batches.size()),
                     paths = std::max<std::int64_t>(1, all / options_.minibatches),
                     size = options_.micro_batch > 0 ? std::min(options_.micro_batch, paths) : paths,
                     total = static_cast<std::int64_t>(entries.size()),
                     pieces = std::max<std::int64_t>(1, std::min((paths + size - 1) / size, total));
  SharedSum sum(name_, pieces, nn::parameters(network()));
  for (std::int64_t p = 0; p < pieces; ++p) {
    if (!sum.mine(p)) continue;
    const auto first = static_cast<std::size_t>(total * p / pieces), end = static_cast<std::size_t>(total * (p + 1) / pieces);
    SurrogateSums own;
    Gradients g = surrogate_gradient(network(), problem_, batches, entries.subspan(first, end - first), surrogate(), own);
    sum.add(p, std::move(g), {own.clipped, own.log_ratio});
  }
  return sum.finish([&](std::span<const double> n) { sums.clipped += n[0], sums.log_ratio += n[1]; });
}

void PolicyGradient::update(std::span<PathBatch* const> batches, std::span<const Entry> paths, std::span<const Entry> entries,
                            Tally& tally) {
  const std::vector<const PathBatch*> read(batches.begin(), batches.end());
  // A plan of a few iterations must meet what comes after the critic's own.
  const bool policy_learns =
      !uses_critic() || iteration_ >= options_.critic.warmup || problem_.device.kind == DeviceKind::meta;
  if (policy_learns) {
    const PathLoss whole = of_paths() ? weigh_paths(batches, paths) : PathLoss{};
    Gradients g = gradient_of(read, entries, tally.sums);
    if (of_paths()) g.loss = whole.loss;
    const Learner::Update u = learner_.update(g);
    if (log_z_.defined()) {
      const Tensor gradient = Tensor::scalar(whole.log_z_gradient, DType::f32, problem_.device);
      Tensor* const parameter[] = {&log_z_};
      log_z_optimiser_.step(parameter, {&gradient, 1}, options_.log_z_lr);
    }
    tally.loss += g.loss, tally.gradient_norm += u.gradient_norm, tally.lr = u.lr;
    tally.entries += static_cast<std::int64_t>(entries.size());
    ++tally.updates;
  }
  if (uses_critic() && options_.critic.updates == 0) {
    CriticTargets targets;
    targets.paths = static_cast<std::int64_t>(paths.size());
    const CriticRows rows = critic_rows(read, entries, targets);
    tally.critic_loss += critic_->update(rows, targets), ++tally.critic_updates;
  }
}

void PolicyGradient::visit_state(StateVisitor& v) {
  v("learner", learner_), v("labels", labels_), v("log_z", log_z_), v("log_z_optimiser", log_z_optimiser_);
  v("running_log_z", running_log_z_), v("running", running_), v("iteration", iteration_), v("part", part_);
  if (critic_) v("critic", *critic_);
  // The next iteration brings paths of its own, and drops as many as are too many.
  while (static_cast<int>(replay_.size()) >= std::max(options_.replay, 1)) replay_.pop_front();
  v.list("replay", replay_);
}

Metrics PolicyGradient::step() {
  while (static_cast<int>(replay_.size()) >= options_.replay) replay_.pop_front();
  replay_.push_back(sample());
  while (problem_.device.kind == DeviceKind::meta && static_cast<int>(replay_.size()) < options_.replay)
    replay_.push_back(separate(replay_.back()));
  std::vector<PathBatch*> batches;
  std::vector<Entry> paths;
  const std::int64_t group = of_paths() && options_.shared_noise ? options_.advantage.group_size : 1;
  for (PathBatch& b : replay_) {
    for (std::int64_t i = 0; i < b.rows(); ++i) {
      // Losses about the means of groups need whole ones.
      const auto first = b.valid.begin() + i / group * group;
      if (std::all_of(first, first + group, [](auto v) { return v != 0; }))
        paths.push_back({static_cast<std::int32_t>(batches.size()), static_cast<std::int32_t>(i), 0, 1.0});
    }
    batches.push_back(&b);
  }
  if (paths.empty()) fail(Fault::numerical, {name_, ": no path of iteration ", iteration_, " can be learned from"});

  Tally tally;
  const auto total = static_cast<std::int64_t>(paths.size());
  const std::int64_t parts = std::min<std::int64_t>(options_.minibatches, total);
  for (int epoch = 0; epoch < options_.epochs; ++epoch) {
    const auto number = static_cast<std::uint64_t>(iteration_ * options_.epochs + epoch);
    std::vector<std::int64_t> order(static_cast<std::size_t>(total));
    std::iota(order.begin(), order.end(), std::int64_t{0});
    if (parts > 1) order = permutation(total, options_.seed ^ seed_minibatches, number);
    const auto minibatch = [&](std::int64_t m) {
      std::vector<Entry> list;
      const std::int64_t begin = total * m / parts, end = total * (m + 1) / parts;
      for (std::int64_t i = begin; i < end; ++i) list.push_back(paths[order[i]]);
      // Losses of paths are normalised already; others are means over the paths of the minibatch.
      if (!of_paths())
        for (Entry& e : list) e.weight = 1.0 / static_cast<double>(end - begin);
      return list;
    };
    if (options_.update == Options::Update::iteration) {
      for (std::int64_t m = 0; m < parts; ++m) {
        const std::vector<Entry> list = minibatch(m);
        update(batches, list, entries_of(batches, list), tally);
      }
      continue;
    }
    // Every path goes through its steps in an order of its own.
    std::vector<std::vector<std::int64_t>> steps;
    std::size_t longest = 0;
    for (std::int64_t i = 0; i < total; ++i) {
      const auto n = static_cast<std::int64_t>(batches[paths[i].batch]->trained.size());
      steps.push_back(permutation(n, options_.seed ^ seed_timesteps,
                                  number * static_cast<std::uint64_t>(total) + static_cast<std::uint64_t>(i)));
      longest = std::max(longest, steps.back().size());
    }
    for (std::size_t j = 0; j < longest; ++j)
      for (std::int64_t m = 0; m < parts; ++m) {
        const std::vector<Entry> list = minibatch(m);
        std::vector<Entry> entries;
        for (std::size_t i = 0; i < list.size(); ++i) {
          const auto& own = steps[order[total * m / parts + static_cast<std::int64_t>(i)]];
          if (j >= own.size()) continue;
          Entry e = list[i];
          const PathBatch& b = *batches[e.batch];
          if (!b.paths.active(b.trained[own[j]], e.path)) continue;
          e.step = b.trained[own[j]], e.weight *= b.step_weight;
          entries.push_back(e);
        }
        if (!entries.empty()) update(batches, list, entries, tally);
      }
  }

  learn_values(batches, tally);
  ++iteration_;
  return report(replay_.back(), tally);
}

Gradients PolicyGradient::gradient(const PathBatch& batch) {
  PathBatch copy = batch;
  PathBatch* const one[] = {&copy};
  std::vector<Entry> paths;
  for (std::int64_t i = 0; i < batch.rows(); ++i)
    if (batch.valid[i])
      paths.push_back({0, static_cast<std::int32_t>(i), 0, of_paths() ? 1.0 : 1.0 / static_cast<double>(batch.valid_paths)});
  const PathLoss whole = of_paths() ? weigh_paths(one, paths) : PathLoss{};
  const PathBatch* const read[] = {&copy};
  SurrogateSums sums;
  Gradients g = gradient_of(read, entries_of(one, paths), sums);
  if (of_paths()) g.loss = whole.loss;
  return g;
}

Metrics PolicyGradient::report(const PathBatch& newest, const Tally& tally) {
  const auto mean = [](double sum, std::int64_t n) { return n ? sum / static_cast<double>(n) : 0.0; };
  Metrics out;
  out.set("loss", mean(tally.loss, tally.updates)), out.set("gradient_norm", mean(tally.gradient_norm, tally.updates));
  out.set("lr", tally.lr), out.set("reward", newest.mean_reward);
  double cost = newest.control_cost.empty() ? std::nan("") : 0;
  for (const auto& row : newest.control_cost)
    for (std::size_t i = 0; i < row.size(); ++i) cost += newest.valid[i] ? row[i] / static_cast<double>(newest.valid_paths) : 0;
  out.set("control_cost", cost);
  out.set("invalid", 1 - static_cast<double>(newest.valid_paths) / static_cast<double>(newest.rows()));
  if (of_paths()) {
    std::vector<double> G = newest.path_score();
    const std::vector<double> L = newest.path_log_ratio();
    std::vector<double> valid;
    for (std::size_t i = 0; i < G.size(); ++i)
      if (newest.valid[i]) valid.push_back(G[i] - L[i]);
    const double estimate = log_mean_exp(valid);
    if (options_.log_z == Options::LogZ::running) {
      // An average of Z, kept as a logarithm.
      const double d = running_ ? options_.log_z_decay : 0, top = std::max(running_log_z_, estimate);
      running_log_z_ = top + std::log(d * std::exp(running_log_z_ - top) + (1 - d) * std::exp(estimate - top));
      running_ = true;
    }
    out.set("log_z", log_z_.defined() ? log_z() : running_ ? running_log_z_ : estimate);
    out.set("ess", effective_share(valid));
    return out;
  }
  double squares = 0, count = 0;
  for (const int k : newest.trained)
    for (std::size_t i = 0; i < newest.valid.size(); ++i)
      if (newest.takes(k, i)) squares += newest.coefficient[k][i] * newest.coefficient[k][i], ++count;
  out.set("advantage", std::sqrt(squares / std::max(count, 1.0)));
  if (options_.loss != Options::Loss::score_function) out.set("clipped", mean(tally.sums.clipped, tally.entries));
  if (uses_critic()) out.set("critic_loss", mean(tally.critic_loss, tally.critic_updates));
  if (uses_critic() && options_.critic.reset != CriticOptions::Reset::none) out.set("dormant", tally.dormant);
  if (options_.window.kind != WindowOptions::Kind::full) out.set("first_step", newest.first_step);
  return out;
}

double PolicyGradient::log_z() const { return log_z_.defined() ? log_z_.item() : running_log_z_; }

}  // namespace costate::finetune
