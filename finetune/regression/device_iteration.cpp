#include <costate/finetune/regression/device_iteration.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/sde/sampler.h>

#include <algorithm>
#include <chrono>
#include <cmath>

namespace costate::finetune {
namespace {

using Options = ValueGradientOptions;
using Clock = std::chrono::steady_clock;
double lap(Clock::time_point& since) {
  const auto now = Clock::now();
  return std::chrono::duration<double>(now - std::exchange(since, now)).count();
}

double* number_at(const Tensor& numbers, std::int64_t i) { return static_cast<double*>(numbers.raw_mutable()) + i; }

// Of step k: what stands before prediction - base and before the costate in the residual, and C/std.
struct Units {
  double weight, shift, control;
};
Units units_of(const ControlProblem& problem, const Options& options, const std::vector<double>& kl_weights, int k) {
  const sde::Chain& chain = problem.chain;
  const double std = chain.std[k], shift = chain.C[k], b = kl_weights[k];
  if (options.loss_space == Options::LossSpace::control) return {shift / std, std / b, shift / std};
  const double unit =
      sde::conversion(chain.prediction, sde::Parametrisation::velocity, chain.schedule, chain.t[k]).prediction;
  return {unit, unit * std * std / (shift * b), shift / std};
}

// Rows of several parts below each other.
Tensor below_each_other(const std::vector<Tensor>& parts) {
  if (parts.size() == 1) return parts[0];
  const std::int64_t rows = parts[0].extent(0);
  const Tensor out = Tensor::empty(parts[0].shape().with(0, rows * static_cast<std::int64_t>(parts.size())), parts[0].dtype(),
                                   parts[0].device());
  for (std::size_t i = 0; i < parts.size(); ++i) out.slice(static_cast<std::int64_t>(i) * rows, rows).copy_from(parts[i]);
  return out;
}

}  // namespace

struct DeviceIteration::Kept {
  Tensor states;           // (K + 1, rows, ...)
  Tensor bases, costates;  // (steps of the loss, rows, ...); of all steps where the loss draws its own
  Tensor index;            // (steps of the loss,) of i32
  Tensor of_step;          // (3, steps of the loss): time, and what stands before prediction - base and before the costate
  std::vector<int> steps;  // of the two above
  Tensor terminal;         // a_K (rows, ...)
  Tensor labels;           // (rows,) or undefined
  Tensor row_weight;       // (rows,) or undefined: rows whose reward failed have 0
  Tensor numbers;          // f64: squares of costates a step, three of each step of a pass, the gradients' squares, the sum
  std::int64_t per_sweep = 0, at_squares = 0;
};

DeviceIteration::DeviceIteration(const ControlProblem& problem, const ValueGradientOptions& options,
                                 const std::vector<double>& kl_weights, Learner& learner)
    : problem_(problem), options_(options), kl_weights_(kl_weights), learner_(learner), rows_(options.batch) {
  drawn_ = options.early_steps > 0;
  if (!options.graphs) return;
  sampling_ = std::make_unique<Graph>(problem.device), updating_ = std::make_unique<Graph>(problem.device);
}
DeviceIteration::~DeviceIteration() = default;

std::string DeviceIteration::refusal(Device device, const Options& o) {
  using Costate = Options::Costate;
  if (device.kind != DeviceKind::cuda) return "the device is the " + to_string(device);
  if (o.costate != Costate::lean && o.costate != Costate::full && o.costate != Costate::continuous)
    return "costates of value networks and of the reparametrisation trick are computed with the host";
  if (o.sticking_the_landing) return "sticking_the_landing draws the noise of sampling again";
  if (o.path_weights) return "path weights are computed on the host";
  if (o.replay.size > 0) return "a replay buffer is refilled by the host";
  if (o.keep_activations) return "keep_activations keeps the passes of sampling, not those of several steps together";
  if (o.denoised_endpoint || o.pairing == Options::Pairing::alg1) return "the costate at the end is another one";
  if (o.micro_batch > 0 && o.micro_batch < o.batch) return "micro_batch asks for less memory rather than for fewer launches";
  return {};
}

void DeviceIteration::make_kept(const std::vector<int>& steps) {
  kept_ = std::make_unique<Kept>();
  const Device device = problem_.device;
  const int last = problem_.chain.steps();
  const Shape rows = problem_.sample_shape.with_front(rows_);
  const auto count = static_cast<std::int64_t>(steps.size());
  {
    const memory::TagScope scope(memory::Tag::trajectory);
    kept_->states = Tensor::empty(rows.with_front(last + 1), DType::f32, device);
  }
  {
    const memory::TagScope scope(memory::Tag::adjoint);
    kept_->bases = Tensor::empty(rows.with_front(drawn_ ? last : count), DType::f32, device);
    kept_->costates = Tensor::empty(rows.with_front(drawn_ ? last : count), DType::f32, device);
    kept_->terminal = Tensor::empty(rows, DType::f32, device);
  }
  if (!problem_.labels.empty()) kept_->labels = Tensor::empty({rows_}, DType::i32, device);
  if (problem_.reward.on_failure == Reward::Policy::skip) kept_->row_weight = Tensor::full({rows_}, 1.0, DType::f32, device);
  // As many whole steps a pass as there is room for, or parts of one step.
  const std::int64_t limit = device_rows(problem_.sample_shape.numel());
  kept_->per_sweep = (rows_ + limit - 1) / limit;
  std::int64_t number = kept_->per_sweep * last;
  passes_.clear();
  if (rows_ > limit) {
    for (std::size_t i = 0; i < steps.size(); ++i)
      for (std::int64_t p = 0; p < kept_->per_sweep; ++p, number += 3) {
        const std::int64_t begin = rows_ * p / kept_->per_sweep;
        passes_.push_back({i, 1, begin, rows_ * (p + 1) / kept_->per_sweep - begin, number});
      }
  } else {
    const auto most = static_cast<std::size_t>(limit / rows_);
    for (std::size_t i = 0; i < steps.size(); i += most) {
      const std::size_t n = std::min(most, steps.size() - i);
      passes_.push_back({i, n, 0, rows_, number});
      number += 3 * static_cast<std::int64_t>(n);
    }
  }
  kept_->at_squares = number;
  kept_->numbers = Tensor::zeros({number + 2}, DType::f64, device);
}

// Tells the device which steps the loss has.
void DeviceIteration::choose(const std::vector<int>& steps) {
  if (kept_->steps == steps) return;
  const auto count = steps.size();
  std::vector<float> of_step(3 * count);
  for (std::size_t i = 0; i < count; ++i) {
    const Units units = units_of(problem_, options_, kl_weights_, steps[i]);
    of_step[i] = static_cast<float>(problem_.chain.t[steps[i]]);
    of_step[count + i] = static_cast<float>(units.weight), of_step[2 * count + i] = static_cast<float>(units.shift);
  }
  const auto n = static_cast<std::int64_t>(count);
  const Tensor index = Tensor::from(steps, {n}, problem_.device), numbers = Tensor::from(of_step, {3, n}, problem_.device);
  if (kept_->steps.empty())
    kept_->index = index, kept_->of_step = numbers;
  else
    kept_->index.copy_from(index), kept_->of_step.copy_from(numbers);
  kept_->steps = steps;
}

void DeviceIteration::initial(std::int64_t first_sample) {
  const sde::NoiseKey key{options_.seed, static_cast<std::uint64_t>(first_sample)};
  if (kept_->labels.defined()) kept_->labels.copy_from(problem_.draw_labels(rows_, key));
  kept_->states[0].copy_from(problem_.initial_states(rows_, key));
}

void DeviceIteration::sample(std::int64_t first_sample) {
  const sde::Chain& chain = problem_.chain;
  const sde::Field field = field_of(learner_.network());
  const sde::NoiseKey key{options_.seed, static_cast<std::uint64_t>(first_sample)};
  for (std::int64_t p = 0; p < kept_->per_sweep; ++p) {
    const std::int64_t begin = rows_ * p / kept_->per_sweep, n = rows_ * (p + 1) / kept_->per_sweep - begin;
    const Tensor labels = sde::rows_of(kept_->labels, begin, n);
    for (int k = 0; k < chain.steps(); ++k) {
      const Tensor x = kept_->states[k].slice(begin, n);
      const Tensor prediction = field(Var(x), Var(sde::step_time(chain, k, x)), labels).value();
      sde::advance_into(kept_->states[k + 1].slice(begin, n), chain, k, x, prediction, key.from(begin));
    }
  }
}

void DeviceIteration::reward(ValueGradientMetrics& metrics) {
  const Reward::Scores r = problem_.reward.scores(kept_->states[problem_.chain.steps()], true);
  const auto values = r.value.to_doubles();
  for (std::size_t i = 0; i < values.size(); ++i)
    if (r.valid.empty() || r.valid[i]) metrics.reward += values[i];
    else metrics.failed += 1;
  kept_->terminal.copy_from(affine(Var(r.gradient), -problem_.reward_multiplier, 0.0).value());  // 0 where a row failed
  if (kept_->row_weight.defined()) {
    std::vector<float> w(values.size(), 1.0f);
    for (std::size_t i = 0; i < r.valid.size(); ++i) w[i] = r.valid[i];
    kept_->row_weight.copy_from(Tensor::from(w, {rows_}, problem_.device));
  }
}

void DeviceIteration::sweep(const std::vector<int>& steps) {
  const bool same = options_.pairing == Options::Pairing::same;
  const std::vector<int> controlled = problem_.controlled_steps();
  const int first = drawn_ ? controlled.front() : steps.front();
  const auto place = [&](int k) -> std::int64_t {
    if (drawn_) return k >= first ? k : -1;
    const auto found = std::lower_bound(steps.begin(), steps.end(), k);
    return found != steps.end() && *found == k ? found - steps.begin() : -1;
  };
  for (std::int64_t p = 0; p < kept_->per_sweep; ++p) {
    const std::int64_t begin = rows_ * p / kept_->per_sweep, n = rows_ * (p + 1) / kept_->per_sweep - begin;
    const CostateInputs in{problem_,
                           field_of(learner_.network()),
                           kl_weights_,
                           [&](int k) { return kept_->states[k].slice(begin, n); },
                           sde::rows_of(kept_->labels, begin, n),
                           first,
                           same,
                           [&](int k) { return place(k) >= 0; }};
    const auto visit = [&](int k, const Tensor& prediction, const Tensor& a_next, const Tensor& a_k) {
      const std::int64_t at = place(k);
      if (at >= 0 && prediction.defined()) kept_->bases[at].slice(begin, n).copy_from(prediction);
      if (!a_next.defined()) return;
      if (at >= 0) kept_->costates[at].slice(begin, n).copy_from(same ? a_k : a_next);
      const Elements piece{a_next.raw(), a_next.numel()};
      kernels(a_next).sum_squares(a_next.dtype(), 1, &piece, number_at(kept_->numbers, k * kept_->per_sweep + p));
    };
    Tensor a = kept_->terminal.slice(begin, n);
    switch (options_.costate) {
      case Options::Costate::full: full_costates(in, std::move(a), visit); break;
      case Options::Costate::continuous: continuous_costates(in, std::move(a), visit); break;
      default: lean_costates(in, std::move(a), visit);
    }
  }
}

// Of the pass's steps the rows that it takes, below each other. `all`: of all steps of the chain, or of those of the loss.
Tensor DeviceIteration::stacked(const Tensor& all, bool all_steps, const Pass& pass) const {
  const auto first = static_cast<std::int64_t>(pass.first_step), count = static_cast<std::int64_t>(pass.steps);
  const auto rows_of = [&](const Tensor& steps) {
    return steps.reshape(problem_.sample_shape.with_front(count * rows_)).slice(pass.begin, (count - 1) * rows_ + pass.rows);
  };
  const std::vector<int>& steps = kept_->steps;
  if (all_steps && (drawn_ || steps[pass.first_step + pass.steps - 1] - steps[pass.first_step] + 1 != static_cast<int>(count)))
    return rows_of(gather_rows(Var(all.reshape({all.extent(0), -1})), kept_->index.slice(first, count)).value());
  return rows_of(all.slice(all_steps ? steps[pass.first_step] : first, count));
}

std::vector<Tensor> DeviceIteration::regress() {
  const Device device = problem_.device;
  const double factor = 1.0 / static_cast<double>(rows_ * static_cast<std::int64_t>(kept_->steps.size()));
  std::vector<Tensor> sum;
  for (const Pass& pass : passes_) {
    const auto first = static_cast<std::int64_t>(pass.first_step), count = static_cast<std::int64_t>(pass.steps),
               n = count * pass.rows;
    const auto of_row = [&](int what) {  // as many times as the pass has rows of a step
      const Tensor numbers = kept_->of_step[what].slice(first, count).reshape({count, 1});
      return broadcast_to(Var(numbers), {count, pass.rows}).value().reshape({n});
    };
    const Tensor t = of_row(0), weight = of_row(1), shift = of_row(2);
    const auto repeated = [&](const Tensor& rows) {
      return rows.defined() ? below_each_other(std::vector<Tensor>(pass.steps, rows.slice(pass.begin, pass.rows))) : Tensor();
    };
    const Tensor x = stacked(kept_->states, true, pass), base = stacked(kept_->bases, drawn_, pass),
                 costate = stacked(kept_->costates, drawn_, pass), labels = repeated(kept_->labels),
                 row_weight = repeated(kept_->row_weight);
    Tape tape;
    std::vector<Var> watched;
    const Var prediction = [&] {
      const memory::TagScope scope(memory::Tag::activations);
      return nn::watch(learner_.network(), tape, watched)(Var(x), Var(t), labels);
    }();
    const Tensor seed = Tensor::empty_like(x), numbers = Tensor::empty({count, pass.rows, 3}, DType::f64, device);
    MatchingCall call{DType::f32,    n,            problem_.sample_shape.numel(), prediction.value().raw(), base.raw(),
                      costate.raw(), weight.raw(), shift.raw()};
    call.row_weight = row_weight.defined() ? row_weight.raw() : nullptr, call.factor = factor, call.limit = options_.loss_clip;
    const Kernels& k = kernels(x);
    k.matching(call, number_at(numbers, 0), seed.raw_mutable());
    k.sum(DType::f64, count, pass.rows, 3, numbers.raw(), number_at(kept_->numbers, pass.number));
    std::vector<Tensor> gradient = std::move(tape).vjp(prediction, seed, watched);
    if (sum.empty()) sum = std::move(gradient);
    else
      for (std::size_t i = 0; i < sum.size(); ++i) add_in_place(sum[i], gradient[i]);
  }
  return sum;
}

std::vector<const void*> DeviceIteration::addresses() {
  std::vector<const void*> list = learner_.addresses();
  list.push_back(kept_->states.raw());
  return list;
}

void DeviceIteration::run(std::unique_ptr<Graph>& graph, std::int64_t first_sample, const std::function<void()>& body) {
  if (!graph) return body();
  graph->run(static_cast<std::uint64_t>(first_sample), body, addresses());
  if (graph->state() == Graph::State::refused && not_recorded_.empty())
    not_recorded_ = (graph == sampling_ ? "sampling is not recorded: " : "the update is not recorded: ") + graph->refusal();
}

Learner::Update DeviceIteration::step(std::int64_t first_sample, const std::vector<int>& steps, ValueGradientMetrics& metrics) {
  auto clock = Clock::now();
  if (!kept_) make_kept(steps);
  choose(steps);
  learner_.prepare();
  initial(first_sample);
  run(sampling_, first_sample, [&] { sample(first_sample); });
  metrics.seconds.sample += lap(clock);
  reward(metrics);
  if (metrics.failed >= static_cast<double>(rows_))
    fail(Fault::numerical,
         {"value-gradient regression: the reward of no sample of iteration ", learner_.updates(), " is finite"});
  const std::int64_t at_squares = kept_->at_squares, at_check = at_squares + 1;
  run(updating_, first_sample, [&] {
    sweep(steps);
    const std::vector<Tensor> gradients = regress();
    // Every number that decides the update is finite where their sum is.
    kernels(kept_->numbers).sum(DType::f64, 1, at_squares, 1, kept_->numbers.raw(), number_at(kept_->numbers, at_check));
    learner_.launch(gradients, kept_->numbers.slice(at_squares, 1), kept_->numbers.slice(at_check, 1));
  });
  metrics.seconds.adjoint += lap(clock);

  const std::vector<double> numbers = kept_->numbers.to_doubles();
  const auto n = static_cast<double>(rows_);
  double largest = 0;
  for (int k = 0; k < problem_.chain.steps(); ++k) {
    double s = 0;
    for (std::int64_t p = 0; p < kept_->per_sweep; ++p) s += numbers[static_cast<std::size_t>(k * kept_->per_sweep + p)];
    largest = s > largest || std::isnan(s) ? s : largest;
  }
  metrics.costate_norm = std::sqrt(largest / n);
  if (!std::isfinite(largest))
    fail(Fault::numerical, {"value-gradient regression: the costate of iteration ", learner_.updates(),
                            " is not finite; |a| grows along the network: use more steps or a smaller reward multiplier"});
  const auto early_pool = static_cast<double>(problem_.controlled_steps().size()) - options_.late_steps;
  for (const Pass& pass : passes_)
    for (std::size_t i = 0; i < pass.steps; ++i) {
      const int k = steps[pass.first_step + i];
      const auto at = static_cast<std::size_t>(pass.number) + 3 * i;
      const bool early = options_.late_steps > 0 && static_cast<int>(pass.first_step + i) < options_.early_steps;
      const Units units = units_of(problem_, options_, kl_weights_, k);
      const double unit = std::pow(units.control / units.weight, 2);  // to units of the control
      metrics.loss += numbers[at], metrics.clipped += numbers[at + 2];
      metrics.control_cost += 0.5 * unit * numbers[at + 1] * (early ? early_pool / options_.early_steps : 1.0);
    }
  metrics.reward /= n - metrics.failed;
  metrics.control_cost /= n, metrics.clipped /= n * static_cast<double>(steps.size());
  metrics.seconds.optimise += lap(clock);
  return learner_.finish(metrics.loss, numbers[static_cast<std::size_t>(at_squares)]);
}

}  // namespace costate::finetune
