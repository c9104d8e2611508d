#include <costate/finetune/policy_gradient/batch.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/distributed/communicator.h>
#include <costate/finetune/training_state.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/random.h>

#include <algorithm>
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

namespace {

// `mean_reward` is their sum so far.
void read_rewards(PathBatch& b, const Reward::Scores& scores, double multiplier) {
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
}

void divide_rewards(PathBatch& b) {
  if (b.valid_paths == 0) fail(Fault::numerical, {"policy gradient: none of ", b.valid.size(), " rewards is finite"});
  b.mean_reward /= static_cast<double>(b.valid_paths);
}

// As collect, for all rows at a time; `mean_reward` is the sum.
PathBatch collect_at_once(const sde::Field& policy, const ControlProblem& problem, const BatchOptions& o,
                          const sde::NoiseKey& key) {
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

  read_rewards(b, problem.reward.scores(b.paths.terminal(), false), problem.reward_multiplier);
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

// Rows first, ... of `all`, which has `rows` and is made where it is not there yet.
void place(Tensor& all, const Tensor& part, std::int64_t rows, std::int64_t first) {
  if (!part.defined()) return;
  const memory::TagScope scope(memory::Tag::trajectory);
  if (!all.defined()) all = Tensor::empty(part.shape().with(0, rows), part.dtype(), part.device());
  all.slice(first, part.extent(0)).copy_from(part);
}
void place(std::vector<Tensor>& all, const std::vector<Tensor>& part, std::int64_t rows, std::int64_t first) {
  all.resize(part.size());
  for (std::size_t k = 0; k < part.size(); ++k) place(all[k], part[k], rows, first);
}

// All tensors of a batch.
template <class Visit>
void each_tensor(PathBatch& b, const Visit& visit) {
  visit(b.paths.labels);
  for (auto* list : {&b.paths.states, &b.paths.predictions, &b.paths.base_predictions})
    for (Tensor& t : *list) visit(t);
}

}  // namespace

void take_rewards(PathBatch& b, const Reward::Scores& scores, double multiplier) {
  read_rewards(b, scores, multiplier);
  if (!scores.value.is_meta()) divide_rewards(b);
}

PathBatch collect(const sde::Field& policy, const ControlProblem& problem, const BatchOptions& o, const sde::NoiseKey& key) {
  const Communicator& ranks = communicator();
  const std::int64_t size = o.micro_batch > 0 ? std::min(o.micro_batch, o.rows) : o.rows, pieces = (o.rows + size - 1) / size;
  require(size % std::max<std::int64_t>(o.group_size, 1) == 0, "policy gradient: micro_batch is ", size,
          ", which is not a number of whole groups of ", o.group_size);
  require(pieces >= ranks.size(), "policy gradient: ", ranks.size(), " processes share the micro-batches of ", o.rows,
          " paths, which are ", pieces, "; choose a micro_batch of at most 1/", ranks.size(), " of them");
  if (pieces == 1) {
    PathBatch all = collect_at_once(policy, problem, o, key);
    if (!all.paths.terminal().is_meta()) divide_rewards(all);
    return all;
  }
  PathBatch all;
  const Share own = share(pieces, ranks);
  std::vector<double> numbers, sums;  // of this rank's paths, one after the other; of its micro-batches
  for (std::int64_t p = own.first; p < own.end; ++p) {
    BatchOptions part_options = o;
    const std::int64_t first = p * size;
    part_options.rows = std::min(size, o.rows - first);
    PathBatch part = collect_at_once(policy, problem, part_options, key.from(first));
    place(all.paths.labels, part.paths.labels, o.rows, first), place(all.paths.states, part.paths.states, o.rows, first);
    place(all.paths.predictions, part.paths.predictions, o.rows, first);
    place(all.paths.base_predictions, part.paths.base_predictions, o.rows, first);
    all.first_step = part.first_step, all.noise_scale = part.noise_scale;
    sums.insert(sums.end(), {part.mean_reward, static_cast<double>(part.valid_paths)});
    for (std::int64_t i = 0; i < part_options.rows; ++i) {
      numbers.insert(numbers.end(), {part.reward[i], static_cast<double>(part.valid[i]),
                                     static_cast<double>(part.paths.stopped_at.empty() ? -1 : part.paths.stopped_at[i]),
                                     static_cast<double>(part.labels.empty() ? -1 : part.labels[i])});
      for (const StepTable* table : {&part.state_cost, &part.control_cost, &part.log_ratio})
        for (const auto& of_step : *table) numbers.push_back(of_step[i]);
    }
  }
  all.paths.key = key;
  each_tensor(all, [&](Tensor& t) {
    if (t.defined()) share_rows(t, size);
  });
  for (const auto& of_rank : all_gather(sums))
    for (std::size_t i = 0; i < of_rank.size(); i += 2)
      all.mean_reward += of_rank[i], all.valid_paths += static_cast<std::int64_t>(of_rank[i + 1]);
  const auto steps = static_cast<std::size_t>(problem.chain.steps()), rows = static_cast<std::size_t>(o.rows);
  std::vector<StepTable*> tables;
  if (problem.state_cost) tables.push_back(&all.state_cost);
  if (o.base) tables.insert(tables.end(), {&all.control_cost, &all.log_ratio});
  for (StepTable* table : tables) table->assign(steps, std::vector<double>(rows));
  if (problem.running) all.paths.stopped_at.resize(rows);
  const bool labels = all.paths.labels.defined() && !all.paths.labels.is_meta();
  std::size_t row = 0;
  for (const auto& of_rank : all_gather(numbers))
    for (auto n = of_rank.begin(); n != of_rank.end(); ++row) {
      all.reward.push_back(*n++), all.valid.push_back(*n++ != 0);
      if (problem.running) all.paths.stopped_at[row] = static_cast<int>(*n);
      ++n;
      if (labels) all.labels.push_back(static_cast<std::int32_t>(*n));
      ++n;
      for (StepTable* table : tables)
        for (auto& of_step : *table) of_step[row] = *n++;
    }
  if (!all.paths.terminal().is_meta()) divide_rewards(all);
  return all;
}

}  // namespace costate::finetune
