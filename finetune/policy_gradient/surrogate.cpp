#include <costate/finetune/policy_gradient/surrogate.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/chunks.h>
#include <costate/finetune/distributed/sampling.h>

#include <cmath>

namespace costate::finetune {
namespace {

// Rows of different paths and steps, side by side.
struct Rows {
  Tensor x, old, base, noise, t, scale, labels;  // scale (n, 1): C_k/std_k
};

Rows gather(const ControlProblem& problem, std::span<const PathBatch* const> batches, std::span<const Entry> entries,
            bool base) {
  const auto n = static_cast<std::int64_t>(entries.size());
  const Shape shape = problem.sample_shape.with_front(n);
  const auto make = [&] { return Tensor::empty(shape, DType::f32, problem.device); };
  Rows r{make(), make(), base ? make() : Tensor(), make(), {}, {}, {}};
  std::vector<float> t, scale;
  std::vector<std::int32_t> labels;
  for (std::int64_t i = 0; i < n; ++i) {
    const Entry& e = entries[i];
    const PathBatch& b = *batches[e.batch];
    r.x.slice(i, 1).copy_from(b.paths.states[e.step].slice(e.path, 1));
    r.old.slice(i, 1).copy_from(b.paths.predictions[e.step].slice(e.path, 1));
    if (base) r.base.slice(i, 1).copy_from(b.paths.base_predictions[e.step].slice(e.path, 1));
    row_noise(b, e.step, e.path, r.noise.slice(i, 1));
    if (b.noise_scale != 1) scale_in_place(r.noise.slice(i, 1), b.noise_scale);
    t.push_back(static_cast<float>(problem.chain.t[e.step]));
    scale.push_back(static_cast<float>(problem.chain.C[e.step] / problem.chain.std[e.step]));
    if (b.paths.labels.defined()) labels.push_back(b.labels.empty() ? 0 : b.labels[e.path]);
  }
  r.t = Tensor::from(t, {n}, problem.device);
  r.scale = Tensor::from(scale, {n, 1}, problem.device);
  if (!labels.empty()) r.labels = Tensor::from(labels, {n}, problem.device);
  return r;
}

// log p_theta/p_old, (n,).
Var log_ratio(const Rows& r, const Var& prediction) {
  const std::int64_t n = r.x.extent(0);
  const Var delta = mul(reshape(sub(prediction, Var(r.old)), {n, -1}), Var(r.scale));
  // delta . e - |delta|^2/2 = delta . (e - delta/2)
  return sum(mul(delta, axpby(1.0, Var(r.noise.reshape({n, -1})), -0.5, delta)), 1);
}

}  // namespace

Gradients surrogate_gradient(const nn::Network& policy, const ControlProblem& problem,
                             std::span<const PathBatch* const> batches, std::span<const Entry> entries,
                             const SurrogateOptions& o, SurrogateSums& sums) {
  using Kind = SurrogateOptions::Kind;
  const auto total = static_cast<std::int64_t>(entries.size());
  require(total > 0, "policy gradient: there are no steps to learn from");
  const Chunks chunks(total, training_rows(problem.sample_shape.numel()));
  std::vector<SurrogateSums> own(static_cast<std::size_t>(chunks.count()));
  const Gradients g = sum_gradients(policy, chunks.count(), [&](const nn::Network& network, std::int64_t c) {
    const std::int64_t n = chunks.rows(c);
    const auto part = entries.subspan(static_cast<std::size_t>(chunks.first(c)), static_cast<std::size_t>(n));
    const Rows r = gather(problem, batches, part, o.divergence_weight != 0);
    const Var prediction = network(Var(r.x), Var(r.t), r.labels);
    const Var l = log_ratio(r, prediction);
    std::vector<float> minus(part.size()), weight(part.size());  // -A weight, and what multiplies the divergence
    for (std::size_t i = 0; i < part.size(); ++i) {
      const auto& table = batches[part[i].batch]->coefficient;
      minus[i] = -static_cast<float>(table[part[i].step][part[i].path] * part[i].weight);
      weight[i] = static_cast<float>(o.divergence_weight * part[i].weight);
    }
    const Var A(Tensor::from(minus, {n}, problem.device));
    Var loss;
    if (o.kind == Kind::linear) {
      loss = sum(mul(A, l));
    } else {
      const Var ratio = exp(l), cut = mul(A, clamp(ratio, 1 - o.ratio_clip, 1 + o.ratio_clip));
      loss = sum(o.kind == Kind::clamped_ratio ? cut : maximum(mul(A, ratio), cut));
    }
    if (!l.value().is_meta())
      for (const double v : l.value().to_doubles()) {
        own[c].log_ratio += v;
        own[c].clipped += o.kind != Kind::linear && std::abs(std::exp(v) - 1) > o.ratio_clip;
      }
    if (o.divergence_weight == 0) return loss;
    Var away = reshape(sub(prediction, Var(r.base)), {n, -1});
    const Var w(Tensor::from(weight, {n}, problem.device));
    if (o.divergence == SurrogateOptions::Divergence::exact)
      away = affine(sum(square(mul(away, Var(r.scale))), 1), 0.5, 0.0);
    else
      away = mean(square(away), 1);
    return add(loss, sum(mul(w, away)));
  });
  for (const SurrogateSums& s : own) sums.clipped += s.clipped, sums.log_ratio += s.log_ratio;
  return g;
}

std::vector<double> path_log_ratio_since(const sde::Field& policy, const ControlProblem& problem, const PathBatch& batch,
                                         std::span<const std::int32_t> paths) {
  const PathBatch* const one[] = {&batch};
  return shared_numbers(static_cast<std::int64_t>(paths.size()), [&](std::int64_t begin, std::int64_t n, double* out) {
    for (const int k : problem.controlled_steps()) {
      if (k < batch.first_step) continue;
      std::vector<Entry> entries;
      std::vector<std::size_t> place;
      for (std::int64_t i = begin; i < begin + n; ++i)
        if (batch.paths.active(k, paths[static_cast<std::size_t>(i)])) {
          entries.push_back({0, paths[static_cast<std::size_t>(i)], k, 1.0});
          place.push_back(static_cast<std::size_t>(i - begin));
        }
      if (entries.empty()) continue;
      const Rows r = gather(problem, one, entries, false);
      const Tensor l = log_ratio(r, policy(Var(r.x), Var(r.t), r.labels)).value();
      if (l.is_meta()) continue;
      const std::vector<double> values = l.to_doubles();
      for (std::size_t i = 0; i < place.size(); ++i) out[place[i]] += values[i];
    }
  });
}

}  // namespace costate::finetune
