#include <costate/finetune/backpropagation/backpropagation.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/distributed/shared_sum.h>
#include <costate/finetune/network_field.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace costate::finetune {
namespace {

using Truncation = BackpropagationOptions::Truncation;
constexpr const char* kWhat = "backpropagation";

// Noise of a re-noising: a seed of its own, unrelated to that of the path.
sde::NoiseKey renoising_key(const sde::NoiseKey& key, int i) {
  return {key.seed ^ (0x9E3779B97F4A7C15ull * static_cast<std::uint64_t>(i + 1)), key.first_sample};
}

void scale(Gradients& g, double factor) {
  g.loss *= factor;
  for (Tensor& t : g.parameters) t = affine(Var(t), factor, 0.0).value();
}

}  // namespace

struct Backpropagation::Sums {
  double loss = 0, reward = 0;             // of the ends
  double penalty = 0, state_cost = 0;      // already means over the batch
  std::int64_t rows = 0, failed = 0;       // of the ends of paths themselves
};

Backpropagation::Backpropagation(ControlProblem problem, nn::Network tuned, const BackpropagationOptions& options)
    : problem_(std::move(problem)), options_(options), learner_(kWhat, std::move(tuned), options.learner) {
  const BackpropagationOptions& o = options_;
  problem_.check(kWhat);
  problem_.require_pathwise(kWhat);
  problem_.require_endless(kWhat);
  const int steps = problem_.chain.steps();
  require(problem_.reward.differentiable(), kWhat, ": the reward '", problem_.reward.name,
          "' has no gradient; a policy gradient needs none");
  require(o.batch >= 1 && o.micro_batch >= 0, kWhat, ": batch ", o.batch, ", micro_batch ", o.micro_batch, " are out of range");
  require(o.truncation != Truncation::last || (o.last_steps >= 1 && o.last_steps <= steps), kWhat, ": last_steps is ",
          o.last_steps, "; the chain has ", steps, " steps");
  require(o.truncation != Truncation::normal || (o.normal_deviation >= 0 && std::isfinite(o.normal_mean)), kWhat,
          ": the truncation N(", o.normal_mean, ", ", o.normal_deviation, "^2) is out of range");
  const bool stops = o.stop_to != 0;
  require(!stops || (o.stop_from >= 0 && o.stop_from < o.stop_to && o.stop_to <= 1), kWhat, ": a stop between the shares ",
          o.stop_from, " and ", o.stop_to, " of the steps; expected 0 <= stop_from < stop_to <= 1");
  require(stops || o.stop_from == 0, kWhat, ": stop_from is ", o.stop_from, " but stop_to is 0, which is no stop");
  require(!stops || std::ceil(o.stop_from * steps) < std::ceil(o.stop_to * steps), kWhat, ": no step of ", steps,
          " lies between the shares ", o.stop_from, " and ", o.stop_to);
  require(o.renoisings >= 0, kWhat, ": renoisings is ", o.renoisings, "; it must not be negative");
  require(o.renoisings == 0 || (o.truncation == Truncation::last && o.last_steps == 1 && !stops), kWhat,
          ": re-noised samples take the last step again: they need the truncation `last` of one step, and no stop");
  require(o.trained_steps >= 0 && (o.trained_steps == 0 || o.detached_inputs), kWhat, ": trained_steps is ", o.trained_steps,
          "; some steps alone are trained only with detached inputs, where the others cost nothing");
  require(o.kl_weight >= 0, kWhat, ": kl_weight is ", o.kl_weight, "; it must not be negative");
  const bool penalised = o.kl_weight > 0 || problem_.state_cost;
  require(!penalised || (!stops && o.renoisings == 0), kWhat,
          ": a divergence or a cost of states is a sum over the whole path, "
          "and a stop or re-noised samples leave the path; take kl_weight 0 and no cost of states, or the whole path");
  require(!o.keep_activations || o.adjoint.method == sde::AdjointMethod::store_all, kWhat,
          ": keep_activations is of the adjoint store_all; ", sde::name(o.adjoint.method), " takes steps again to keep less");
  require(!o.adjoint.visit, kWhat, ": the adjoint's `visit` is of single sweeps");
  const sde::Process one = path_process(parametric_field_of(network()), draw(0), {}, {}, {}, {}, nullptr);
  if (const std::string why = sde::refusal(one, o.adjoint); !why.empty()) fail(Fault::argument, {kWhat, ": ", why});
}

DifferentiatedPath Backpropagation::draw(std::int64_t n) const {
  const BackpropagationOptions& o = options_;
  const Philox philox{o.seed, Stream::subset};
  const auto iteration = static_cast<std::uint64_t>(n);
  const int steps = problem_.chain.steps();
  DifferentiatedPath path{.chain = problem_.chain, .detached = o.detached_inputs};
  if (o.stop_to != 0) {
    const int from = static_cast<int>(std::ceil(o.stop_from * steps)), to = static_cast<int>(std::ceil(o.stop_to * steps));
    path.chain = stopped_chain(problem_.chain, from + static_cast<int>(philox.below(to - from, iteration, 0, 0)));
    path.stopped = true;
  }
  const int taken = path.chain.steps();
  switch (o.truncation) {
    case Truncation::full:
      break;
    case Truncation::last:
      path.first = std::max(0, taken - o.last_steps);
      break;
    case Truncation::uniform:
      path.first = static_cast<int>(philox.below(static_cast<std::uint32_t>(taken), iteration, 1, 0));
      break;
    case Truncation::normal: {
      const double share = o.normal_mean + o.normal_deviation * philox.normal(iteration, 1, 0);
      path.first = static_cast<int>(std::clamp(std::round(share * taken), 0.0, taken - 1.0));
      break;
    }
  }
  if (o.trained_steps > 0) {
    const int pool = taken - path.first - (path.stopped ? 1 : 0), wanted = std::min(o.trained_steps, pool);
    const double offset = philox.uniform(iteration, 2, 0);
    path.trained.assign(static_cast<std::size_t>(taken), false);
    for (int i = 0; i < wanted; ++i) {
      const int k = path.first + static_cast<int>((i + offset) * pool / wanted);
      path.trained[static_cast<std::size_t>(std::min(k, path.first + pool - 1))] = true;
    }
    if (path.stopped) path.trained.back() = true;
  }
  // A step without noise has no control: nothing would hold its prediction back.
  if (o.kl_weight > 0) {
    path.trained.resize(static_cast<std::size_t>(taken), o.trained_steps == 0);
    for (int k = 0; k < taken; ++k)
      if (path.chain.std[static_cast<std::size_t>(k)] == 0) path.trained[static_cast<std::size_t>(k)] = false;
  }
  return path;
}

// From x_{first} (rows, ...) to the end and back. `end` receives x_K.
Gradients Backpropagation::sweep(const Tensor& start, int first, const DifferentiatedPath& path, const Tensor& labels,
                                 const sde::NoiseKey& key, double weight, Sums& sums, Tensor* end) const {
  const std::int64_t rows = start.extent(0), size = sde::chunk_rows(rows);
  PathCost cost{problem_.state_cost, weight, {}, options_.kl_weight * weight};
  if (options_.kl_weight > 0) cost.base = problem_.base;
  Tensor alive;
  std::vector<double> state_cost(static_cast<std::size_t>((rows + size - 1) / size));
  const sde::ParametricField field = parametric_field_of(network());
  const sde::Process batch = batch_process(rows, parameter_bytes(network()), [&](std::int64_t begin, std::int64_t n) {
    const auto rows_alive = [&alive, begin, n] { return alive.defined() ? alive.slice(begin, n) : Tensor(); };
    return path_process(field, path, sde::rows_of(labels, begin, n), key.from(begin), cost, rows_alive,
                        &state_cost[static_cast<std::size_t>(begin / size)], options_.keep_activations);
  });
  Tensor x = start;
  for (int k = first; k < path.first; ++k) x = batch.step(k, {x})[0];
  double end_loss = 0;
  const auto terminal = [&](const Tensor& last) {
    Terminal t = end_of_paths(problem_.reward.scores(last, true), options_.loss, problem_.reward_multiplier, weight);
    alive = t.alive;
    end_loss = t.loss;
    sums.reward += t.reward, sums.rows += t.rows, sums.failed += t.failed;
    return std::move(t.costate);
  };
  sde::Gradient g = sde::gradient(tail(batch, path.first), x, terminal, options_.adjoint);
  sums.loss += end_loss * weight + g.running_cost;
  sums.penalty += g.running_cost;
  for (const double f : state_cost) sums.state_cost += f;
  if (end) *end = std::move(g.x);
  return {end_loss * weight + g.running_cost, std::move(g.parameters)};
}

Gradients Backpropagation::micro_batch(std::int64_t first, std::int64_t rows, const DifferentiatedPath& path,
                                       Sums& sums) const {
  const sde::NoiseKey key{options_.seed, static_cast<std::uint64_t>(iteration() * options_.batch + first)};
  const Tensor labels = problem_.draw_labels(rows, key);
  const int again = options_.renoisings;
  const double weight = 1.0 / static_cast<double>(options_.batch * (1 + again));
  Tensor end;
  Gradients g = sweep(problem_.initial_states(rows, key), 0, path, labels, key, weight, sums, again > 0 ? &end : nullptr);
  if (again == 0) return g;
  const int last = problem_.chain.steps() - 1;
  const sde::PathPoint level = problem_.chain.schedule.at(problem_.chain.t[static_cast<std::size_t>(last)]);
  for (int i = 0; i < again; ++i) {
    const sde::NoiseKey own = renoising_key(key, i);
    const Tensor e = sde::initial_noise(problem_.sample_shape, rows, own, DType::f32, problem_.device);
    const Tensor noised = axpby(level.alpha, Var(end), level.beta, Var(e)).value();
    add(g, sweep(noised, last, path, labels, own, weight, sums, nullptr));
  }
  return g;
}

Gradients Backpropagation::gradient(BackpropagationMetrics& metrics) const {
  const DifferentiatedPath path = draw(iteration());
  const std::int64_t size = options_.micro_batch ? std::min(options_.micro_batch, options_.batch) : options_.batch;
  Sums sums;
  SharedSum sum(kWhat, (options_.batch + size - 1) / size);
  for (std::int64_t piece = 0, first = 0; first < options_.batch; ++piece, first += size) {
    if (!sum.mine(piece)) continue;
    Sums own;
    Gradients of_piece = micro_batch(first, std::min(size, options_.batch - first), path, own);
    sum.add(piece, std::move(of_piece), {own.loss, own.reward, own.penalty, own.state_cost, static_cast<double>(own.rows),
                                         static_cast<double>(own.failed)});
  }
  Gradients g = sum.finish([&](std::span<const double> n) {
    sums.loss += n[0], sums.reward += n[1], sums.penalty += n[2], sums.state_cost += n[3];
    sums.rows += static_cast<std::int64_t>(n[4]), sums.failed += static_cast<std::int64_t>(n[5]);
  });
  const std::int64_t ends = sums.rows + sums.failed;
  if (sums.rows == 0)
    fail(Fault::numerical, {kWhat, ": iteration ", iteration(), ": not one of ", ends, " rewards could be computed"});
  // Means over the ends that count.
  const double share = static_cast<double>(ends) / static_cast<double>(sums.rows);
  if (sums.failed > 0) scale(g, share);
  metrics.loss = sums.loss * share;
  metrics.reward = sums.reward / static_cast<double>(sums.rows);
  metrics.penalty = sums.penalty * share;
  metrics.first = path.first, metrics.last = path.last(), metrics.failed = sums.failed;
  bool whole = options_.kl_weight > 0;
  for (const int k : problem_.controlled_steps()) whole = whole && k >= path.first && path.trains(k);
  metrics.control_cost = whole ? (sums.penalty - sums.state_cost) * share / options_.kl_weight
                               : std::numeric_limits<double>::quiet_NaN();
  return g;
}

Metrics Backpropagation::step() {
  BackpropagationMetrics m;
  const Gradients g = gradient(m);
  const Learner::Update update = learner_.update(g);
  Metrics out;
  out.set("loss", m.loss), out.set("gradient_norm", update.gradient_norm), out.set("lr", update.lr);
  out.set("reward", m.reward), out.set("control_cost", m.control_cost), out.set("penalty", m.penalty);
  out.set("first_step", m.first), out.set("last_step", m.last), out.set("failed", static_cast<double>(m.failed));
  return out;
}

}  // namespace costate::finetune
