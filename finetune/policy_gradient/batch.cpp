#include <costate/finetune/policy_gradient/batch.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/training_state.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/random.h>

#include <cmath>

namespace costate::finetune {
namespace {

// Noise of parents and their children must differ.
sde::NoiseKey parents_of(const sde::NoiseKey& key) { return {key.seed ^ 0x9E3779B97F4A7C15u, key.first_sample}; }

Tensor repeat_labels(const Tensor& labels, std::int64_t times) {
  if (!labels.defined() || times == 1) return labels;
  std::vector<std::int32_t> out(static_cast<std::size_t>(labels.extent(0) * times));
  if (!labels.is_meta()) {
    const Tensor on_host = labels.to(Device::cpu);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = on_host.values<std::int32_t>()[i / static_cast<std::size_t>(times)];
  }
  return Tensor::from(out, {labels.extent(0) * times}, labels.device());
}

StepTable state_costs(const ControlProblem& problem, const Trajectories& paths, int first) {
  if (!problem.state_cost) return {};
  StepTable out(static_cast<std::size_t>(paths.steps()), std::vector<double>(static_cast<std::size_t>(paths.rows())));
  sde::each_chunk(paths.rows(), [&](std::int64_t begin, std::int64_t n) {
    for (int k = first; k < paths.steps(); ++k) {
      const Tensor f = problem.state_cost(k, Var(paths.states[k].slice(begin, n))).value();
      require(f.shape() == Shape{n}, "the state cost of step ", k, " has shape ", f.shape(), "; expected (", n, ",)");
      if (f.is_meta()) continue;
      const auto values = f.to_doubles();
      for (std::int64_t i = 0; i < n; ++i)
        if (paths.active(k, begin + i)) out[k][static_cast<std::size_t>(begin + i)] = values[static_cast<std::size_t>(i)];
    }
  });
  return out;
}

}  // namespace

void PathBatch::visit_state(StateVisitor& v) {
  const memory::TagScope scope(memory::Tag::trajectory);
  std::vector<int> classes(labels.begin(), labels.end());
  v("paths", paths), v("first_step", first_step), v("noise_scale", noise_scale), v("valid", valid);
  v("valid_paths", valid_paths), v("labels", classes), v("mean_reward", mean_reward), v("reward", reward);
  v("state_cost", state_cost), v("control_cost", control_cost), v("log_ratio", log_ratio), v("trained", trained);
  v("step_weight", step_weight), v("returns", returns), v("values", values), v("gain", gain), v("offset", offset);
  v("critic_input", critic_input), v("coefficient", coefficient), v("policy", policy);
  labels.assign(classes.begin(), classes.end());
}

Tensor repeat_rows(const Tensor& x, std::int64_t times) {
  if (times == 1) return x;
  const Tensor out = Tensor::empty(x.shape().with(0, x.extent(0) * times), x.dtype(), x.device());
  for (std::int64_t i = 0; i < out.extent(0); ++i) out.slice(i, 1).copy_from(x.slice(i / times, 1));
  return out;
}

Tensor noised_again(const sde::Chain& chain, int step, const Tensor& x, const sde::NoiseKey& key) {
  const sde::PathPoint p = chain.schedule.at(chain.t[step]);
  const Tensor e = Tensor::empty_like(x);
  random_normal(e, key.seed, Stream::coupling, key.first_sample, static_cast<std::uint32_t>(step));
  return axpby(p.alpha, Var(x), p.beta, Var(e)).value();
}

Tensor terminal_samples(const sde::Field& policy, const ControlProblem& problem, const Tensor& start, int first_step,
                        const Tensor& labels, const sde::NoiseKey& key) {
  const Tensor out = Tensor::empty_like(start);
  sde::each_chunk(start.extent(0), [&](std::int64_t begin, std::int64_t n) {
    Tensor x = start.slice(begin, n);
    for (int k = first_step; k < problem.chain.steps(); ++k) {
      const Tensor prediction =
          policy(Var(x), Var(sde::step_time(problem.chain, k, x)), sde::rows_of(labels, begin, n)).value();
      x = sde::advance(problem.chain, k, x, prediction, key.from(begin));
    }
    out.slice(begin, n).copy_from(x);
  });
  return out;
}

void row_noise(const PathBatch& batch, int k, std::int64_t row, const Tensor& out) {
  random_normal(out, batch.paths.key.seed, Stream::noise, batch.paths.key.first_sample + static_cast<std::uint64_t>(row),
                static_cast<std::uint32_t>(k));
}

std::vector<double> PathBatch::path_score() const {
  std::vector<double> s = reward;
  for (const auto& f : state_cost)
    for (std::size_t i = 0; i < s.size(); ++i) s[i] -= f[i];
  return s;
}

std::vector<double> PathBatch::path_log_ratio() const {
  std::vector<double> sum(reward.size());
  for (const auto& l : log_ratio)
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += l[i];
  return sum;
}

void take_rewards(PathBatch& b, const Reward::Scores& scores, double multiplier) {
  const auto n = static_cast<std::size_t>(scores.value.extent(0));
  b.valid.assign(n, 1), b.reward.assign(n, 0.0);
  b.mean_reward = 0, b.valid_paths = scores.value.is_meta() ? static_cast<std::int64_t>(n) : 0;
  if (scores.value.is_meta()) return;
  const auto r = scores.value.to_doubles();
  for (std::size_t i = 0; i < n; ++i) {
    b.valid[i] = (scores.valid.empty() || scores.valid[i]) && std::isfinite(r[i]);
    if (!b.valid[i]) continue;
    b.reward[i] = multiplier * r[i], b.mean_reward += r[i], ++b.valid_paths;
  }
  if (b.valid_paths == 0) fail(Fault::numerical, {"policy gradient: none of ", n, " rewards is finite"});
  b.mean_reward /= static_cast<double>(b.valid_paths);
}

PathBatch collect(const sde::Field& policy, const ControlProblem& problem, const BatchOptions& o, const sde::NoiseKey& key) {
  const std::int64_t groups = o.rows / o.group_size;
  require(o.group_size >= 1 && groups * o.group_size == o.rows, "policy gradient: ", o.rows, " paths are not groups of ",
          o.group_size);
  const Tensor group_labels = problem.draw_labels(groups, key);
  RolloutOptions rollout{.base_predictions = o.base, .first_step = o.first_step, .start = {},
                         .labels = repeat_labels(group_labels, o.group_size)};
  if (o.siblings) {
    const sde::NoiseKey own = parents_of(key);
    const Tensor parents = terminal_samples(policy, problem, problem.initial_states(groups, own), 0, group_labels, own);
    rollout.start = noised_again(problem.chain, o.first_step, repeat_rows(parents, o.group_size), key);
  } else if (o.shared_noise) {
    rollout.start = repeat_rows(problem.initial_states(groups, key), o.group_size);
  }
  // Windows without siblings: whole paths, of which the last steps are trained.
  if (!o.siblings) rollout.first_step = 0;

  PathBatch b;
  b.first_step = o.first_step, b.noise_scale = o.noise_scale;
  if (o.noise_scale == 1) {
    b.paths = simulate(policy, problem, o.rows, key, rollout);
  } else {
    ControlProblem louder = problem;
    for (double& s : louder.chain.std) s *= o.noise_scale;
    b.paths = simulate(policy, louder, o.rows, key, rollout);
  }
  if (b.paths.labels.defined() && !b.paths.labels.is_meta()) {
    const Tensor on_host = b.paths.labels.to(Device::cpu);
    const auto l = on_host.values<std::int32_t>();
    b.labels.assign(l.begin(), l.end());
  }

  take_rewards(b, problem.reward.scores(b.paths.terminal(), false), problem.reward_multiplier);
  b.state_cost = state_costs(problem, b.paths, rollout.first_step);
  if (o.base) {
    StepLikelihoods l = step_likelihoods(problem, b.paths);
    // log p_u/p (x_{k+1} | x_k) = u . (s e) + |u|^2/2 where the noise is s times the chain's.
    if (o.noise_scale != 1)
      for (std::size_t k = 0; k < l.log_ratio.size(); ++k)
        for (std::size_t i = 0; i < b.valid.size(); ++i)
          l.log_ratio[k][i] = o.noise_scale * (l.log_ratio[k][i] - l.control_cost[k][i]) + l.control_cost[k][i];
    b.control_cost = std::move(l.control_cost), b.log_ratio = std::move(l.log_ratio);
  }
  return b;
}

}  // namespace costate::finetune
