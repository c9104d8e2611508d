#include <costate/finetune/rollout.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/training_state.h>
#include <costate/sde/sampler.h>

#include <algorithm>

namespace costate::finetune {
namespace {

// (rows,) sums over the features, as numbers.
void add_rows(const Var& x, std::vector<double>& out) {
  const Tensor t = sum(reshape(x, {x.extent(0), -1}), 1).value();
  if (t.is_meta()) return;
  std::size_t i = 0;
  for (const double v : t.to_doubles()) out[i++] += v;
}

// x where the mask (rows,) is 1, `otherwise` where it is 0.
Tensor select(const Tensor& mask, const Tensor& x, const Tensor& otherwise) {
  const Var m = reshape(broadcast_to(Var(mask.reshape({x.extent(0), 1})), Shape{x.extent(0), x.numel() / x.extent(0)}), x.shape());
  return add(mul(m, Var(x)), mul(affine(m, -1, 1), Var(otherwise))).value();
}

std::vector<double> sums(const std::vector<std::vector<double>>& of_step, int first) {
  std::vector<double> out(of_step.empty() ? 0 : of_step[0].size());
  for (std::size_t k = static_cast<std::size_t>(first); k < of_step.size(); ++k)
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += of_step[k][i];
  return out;
}

}  // namespace

void Trajectories::visit_state(StateVisitor& v) {
  const memory::TagScope scope(memory::Tag::trajectory);
  v("seed", key.seed), v("first_sample", key.first_sample), v("labels", labels);
  v("states", states), v("predictions", predictions), v("base_predictions", base_predictions);
  v("stopped_at", stopped_at);
}

Trajectories simulate(const sde::Field& tuned, const ControlProblem& problem, std::int64_t rows, const sde::NoiseKey& key,
                      const RolloutOptions& options) {
  const sde::Chain& chain = problem.chain;
  const int last = chain.steps(), first = options.first_step;
  require(first >= 0 && first <= last, "simulate: first_step is ", first, "; the chain has ", last, " steps");
  const Shape shape = problem.sample_shape.with_front(rows);
  if (options.start.defined() || first > 0)
    require(options.start.defined() && options.start.shape() == shape, "simulate: the start of step ", first, " has shape ",
            options.start.defined() ? options.start.shape() : Shape{}, "; expected ", shape);
  require(!options.labels.defined() || options.labels.shape() == Shape{rows}, "simulate: labels of shape ",
          options.labels.defined() ? options.labels.shape() : Shape{}, " for ", rows, " rows");
  Trajectories paths{key, options.labels.defined() ? options.labels : problem.draw_labels(rows, key), {}, {}, {}};
  {
    const memory::TagScope scope(memory::Tag::trajectory);
    const auto make = [&] { return Tensor::empty(shape, DType::f32, problem.device); };
    paths.states.resize(static_cast<std::size_t>(last) + 1);
    paths.predictions.resize(static_cast<std::size_t>(last));
    if (options.base_predictions) paths.base_predictions.resize(static_cast<std::size_t>(last));
    for (int k = first; k <= last; ++k) paths.states[k] = make();
    for (int k = first; k < last; ++k)
      if (chain.std[k] > 0) {
        paths.predictions[k] = make();
        if (options.base_predictions) paths.base_predictions[k] = make();
      }
  }
  if (problem.running) paths.stopped_at.assign(static_cast<std::size_t>(rows), last);
  const Tensor start = options.start.defined() ? options.start : problem.initial_states(rows, key);
  sde::each_chunk(rows, [&](std::int64_t begin, std::int64_t n) {
    const sde::NoiseKey own = key.from(begin);
    const Tensor labels = sde::rows_of(paths.labels, begin, n);
    Tensor x = start.slice(begin, n);
    Tensor running;  // 1 until a row stops
    for (int k = first; k < last; ++k) {
      if (problem.running) {
        const Tensor now = problem.running(x);
        running = running.defined() ? mul(Var(running), Var(now)).value() : now;
        if (!running.is_meta()) {
          const std::vector<double> runs = running.to_doubles();
          for (std::int64_t i = 0; i < n; ++i)
            if (runs[i] == 0) paths.stopped_at[begin + i] = std::min(paths.stopped_at[begin + i], k);
        }
      }
      paths.states[k].slice(begin, n).copy_from(x);
      const Var t(sde::step_time(chain, k, x));
      const Tensor prediction = tuned(Var(x), t, labels).value();
      if (paths.predictions[k].defined()) paths.predictions[k].slice(begin, n).copy_from(prediction);
      if (options.base_predictions && paths.base_predictions[k].defined())
        paths.base_predictions[k].slice(begin, n).copy_from(problem.base(Var(x), t, labels).value());
      const Tensor next = sde::advance(chain, k, x, prediction, own);
      x = running.defined() ? select(running, next, x) : next;
    }
    paths.states[last].slice(begin, n).copy_from(x);
  });
  return paths;
}

std::vector<double> StepLikelihoods::path_cost(int first) const { return sums(control_cost, first); }
std::vector<double> StepLikelihoods::path_log_ratio(int first) const { return sums(log_ratio, first); }

StepLikelihoods step_likelihoods(const ControlProblem& problem, const Trajectories& paths) {
  const sde::Chain& chain = problem.chain;
  const auto steps = static_cast<std::size_t>(chain.steps());
  require(paths.base_predictions.size() == steps, "step_likelihoods: the trajectories are without predictions of the base");
  const std::vector<double> zeros(static_cast<std::size_t>(paths.rows()));
  StepLikelihoods out{std::vector(steps, zeros), std::vector(steps, zeros)};
  sde::each_chunk(paths.rows(), [&](std::int64_t begin, std::int64_t n) {
    std::vector<double> cost(static_cast<std::size_t>(n)), inner(cost.size());
    for (int k = 0; k < chain.steps(); ++k) {
      if (!paths.predictions[k].defined()) continue;
      const double scale = chain.C[k] / chain.std[k];
      const Var u = axpby(scale, Var(paths.predictions[k].slice(begin, n)), -scale, Var(paths.base_predictions[k].slice(begin, n)));
      const Var e(sde::step_noise(k, paths.states[k].slice(begin, n), paths.key.from(begin)));
      std::fill(cost.begin(), cost.end(), 0.0), std::fill(inner.begin(), inner.end(), 0.0);
      add_rows(square(u), cost), add_rows(mul(u, e), inner);
      for (std::int64_t i = 0; i < n; ++i) {
        if (!paths.active(k, begin + i)) continue;
        out.control_cost[k][begin + i] = cost[i] / 2;
        out.log_ratio[k][begin + i] = inner[i] + cost[i] / 2;
      }
    }
  });
  return out;
}

std::vector<double> path_state_cost(const ControlProblem& problem, const Trajectories& paths, int first) {
  std::vector<double> out(static_cast<std::size_t>(paths.rows()));
  if (!problem.state_cost) return out;
  sde::each_chunk(paths.rows(), [&](std::int64_t begin, std::int64_t n) {
    for (int k = first; k < paths.steps(); ++k) {
      const Tensor cost = problem.state_cost(k, Var(paths.states[k].slice(begin, n))).value();
      if (cost.is_meta()) continue;
      const std::vector<double> values = cost.to_doubles();
      for (std::int64_t i = 0; i < n; ++i)
        if (paths.active(k, begin + i)) out[begin + i] += values[i];
    }
  });
  return out;
}

}  // namespace costate::finetune
