#include <costate/finetune/regression/value_gradient.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/distributed/shared_sum.h>
#include <costate/finetune/network_field.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <chrono>
#include <cmath>

namespace costate::finetune {
namespace {

using Clock = std::chrono::steady_clock;
double lap(Clock::time_point& since) {
  const auto now = Clock::now();
  return std::chrono::duration<double>(now - std::exchange(since, now)).count();
}

using Costate = ValueGradientOptions::Costate;
using Pairing = ValueGradientOptions::Pairing;

const char* name(Costate costate) {
  switch (costate) {
    case Costate::lean: return "adjoint matching";
    case Costate::full: return "discrete-adjoint matching";
    case Costate::continuous: return "continuous-adjoint matching";
    case Costate::reparametrised: return "stochastic optimal control matching";
    case Costate::value: return "policy iteration";
    case Costate::stein: return "policy iteration by Stein's identity";
  }
  return "value-gradient regression";
}

}  // namespace

ValueGradientRegression::ValueGradientRegression(ControlProblem problem, nn::Network tuned, const Options& options)
    : problem_(std::move(problem)),
      options_(options),
      kl_weights_(options.kl_weights),
      learner_(name(options.costate), std::move(tuned), options.learner) {
  problem_.check(name(options_.costate));
  problem_.require_pathwise(name(options_.costate));
  problem_.require_endless(name(options_.costate));
  controlled_ = problem_.controlled_steps();
  const auto steps = static_cast<std::size_t>(problem_.chain.steps());
  if (kl_weights_.size() <= 1) kl_weights_.assign(steps, kl_weights_.empty() ? 1.0 : kl_weights_[0]);
  check();
  if (options_.pairing == Pairing::alg1) {
    const sde::Chain& chain = problem_.chain;
    // b(x, 1) = 2 v - kappa x with the offset kappa = alpha' / (alpha + h alpha').
    const double h = chain.t.back() - chain.t[steps - 1];
    const sde::PathPoint p = chain.schedule.at(1.0);
    terminal_ = {1 - h * p.alpha_dot / (p.alpha + h * p.alpha_dot), 2 * h};
  }
  if (options_.path_weights) normaliser_.emplace(options_.normaliser_decay);
  if (options_.costate == Costate::reparametrised) matrices_.emplace(problem_, options_.reparametrisation, options_.seed);
  if (learns_value()) value_.emplace(problem_, options_.value, options_.seed);
  if (options_.replay.size > 0) replay_.emplace(options_.replay, options_.batch, options_.seed);
  if (DeviceIteration::refusal(problem_.device, options_).empty())
    on_device_ = std::make_unique<DeviceIteration>(problem_, options_, kl_weights_, learner_);
}

std::string ValueGradientRegression::not_recorded() const {
  if (!options_.graphs) return "graphs are off";
  return on_device_ ? on_device_->not_recorded() : DeviceIteration::refusal(problem_.device, options_);
}

void ValueGradientRegression::check() const {
  const Options& o = options_;
  const char* const what = name(o.costate);
  const sde::Chain& chain = problem_.chain;
  require(o.batch >= 1 && o.micro_batch >= 0, what, ": batch ", o.batch, ", micro_batch ", o.micro_batch, " are out of range");
  require(o.early_steps >= 0 && o.late_steps >= 0 && o.loss_clip >= 0, what,
          ": early_steps, late_steps and loss_clip must not be negative");
  require(o.late_steps + o.early_steps <= static_cast<int>(controlled_.size()), what, ": early_steps + late_steps is ",
          o.early_steps + o.late_steps, "; the chain has ", controlled_.size(), " steps with noise");
  require(o.late_steps > 0 || o.early_steps == 0, what,
          ": early_steps without late_steps; the last steps are where the reward acts");
  require(kl_weights_.size() == static_cast<std::size_t>(chain.steps()), what, ": found ", kl_weights_.size(),
          " kl_weights; expected none, one, or one a step, ", chain.steps());
  for (const double b : kl_weights_)
    require(std::isfinite(b) && b > 0, what, ": found ", b, " among kl_weights; expected numbers above 0");
  const bool adjoint = o.costate == Costate::lean || o.costate == Costate::full || o.costate == Costate::continuous;
  require(problem_.reward.differentiable() || o.costate == Costate::stein ||
              (o.costate == Costate::value && o.value.form == ValueOptions::Form::plain),
          what, ": it takes gradients of the reward '", problem_.reward.name,
          "', which has values only; policy iteration with a plain value network does without");
  require(o.costate != Costate::stein || o.value.form == ValueOptions::Form::plain || o.value.pairs > 0 || o.early_steps == 0,
          what,
          ": a `skip` value without pairs asks the base at the states of the drawn steps but the first; with early_steps, "
          "whose cost must not depend on the draw, take pairs or a plain value");
  require(o.pairing == Pairing::next || (o.pairing == Pairing::same && adjoint) || o.costate == Costate::lean, what,
          ": its costates pair with `next` only");
  require(!o.sticking_the_landing || o.costate == Costate::full, what,
          ": sticking_the_landing takes the variance from the full costate alone");
  require(!o.denoised_endpoint || (adjoint && !o.path_weights), what, ": denoised_endpoint moves the reward's gradient away ",
          "from x_K, where its value counts; it is for adjoints without path weights");
  if (o.pairing == Pairing::alg1)
    require(chain.prediction == sde::Parametrisation::velocity && chain.convertible() &&
                chain.step == sde::Step::euler_maruyama,
            what, ": pairing alg1 is defined for Euler-Maruyama memoryless chains of velocity networks; the chain is '",
            chain.description, "'");
  require(o.path_weights || o.costate != Costate::reparametrised, what,
          ": its costates have the right mean under the optimal law alone; it needs path weights");
  require(!o.path_weights || o.costate == Costate::lean || o.costate == Costate::reparametrised, what,
          ": with path weights the costate must have the right mean under the optimal law, as lean and reparametrised ones "
          "have");
  require(!o.path_weights || (o.micro_batch == 0 || o.micro_batch >= o.batch), what,
          ": path weights are divided by the mean of a whole batch; micro_batch must be 0");
  require(!learns_value() || (o.micro_batch == 0 || o.micro_batch >= o.batch), what,
          ": the value network is fitted to a whole batch; micro_batch must be 0");
  require(!o.path_weights || std::all_of(kl_weights_.begin(), kl_weights_.end(), [](double b) { return b == 1; }), what,
          ": path weights belong to the divergence itself; kl_weights must be 1");
  if (o.replay.size > 0) {
    require(!o.keep_activations, what, ": keep_activations is for paths that serve one update, not for a replay buffer");
    require(o.micro_batch == 0, what, ": a replay buffer keeps whole batches; micro_batch must be 0");
    require(!(o.replay.weighted && o.path_weights), what,
            ": path weights count each path by the policy that made it already; replay must not be weighted, too");
  }
  require(o.early_steps == 0 || o.costate != Costate::reparametrised, what,
          ": a step's costate costs the more matrices the earlier it is, and the cost of an iteration must not depend on the "
          "draw of steps; early_steps must be 0");
  require(!o.keep_activations || o.costate != Costate::reparametrised, what,
          ": its regression has two networks; keep_activations is for the other costates");
}

std::vector<int> ValueGradientRegression::draw_steps() const {
  if (options_.late_steps == 0) return controlled_;
  const auto n = static_cast<int>(controlled_.size()), late = options_.late_steps, rest = n - late;
  std::vector<int> pool(controlled_.begin(), controlled_.begin() + rest);
  const Philox philox{options_.seed, Stream::subset};
  for (int i = 0; i < options_.early_steps; ++i) {
    const std::uint32_t j = philox.below(static_cast<std::uint32_t>(rest - i), static_cast<std::uint64_t>(iteration()), 0,
                                         static_cast<std::uint32_t>(i));
    std::swap(pool[i], pool[i + static_cast<int>(j)]);
  }
  pool.resize(static_cast<std::size_t>(options_.early_steps));
  std::sort(pool.begin(), pool.end());
  pool.insert(pool.end(), controlled_.begin() + rest, controlled_.end());
  return pool;
}

std::vector<double> ValueGradientRegression::row_weights(const CostateBatch& batch, ValueGradientMetrics& metrics) {
  const bool meta = problem_.device.kind == DeviceKind::meta;
  std::vector<double> w;
  if (options_.path_weights) {
    w = normaliser_->weights(log_path_weights(problem_, batch));
  } else if (replay_ && options_.replay.weighted) {
    w = log_policy_ratio(problem_, batch.paths, field_of(network()));
    const double highest = *std::max_element(w.begin(), w.end());
    double sum = 0;
    for (double& v : w) sum += v = std::exp(v - highest);
    for (double& v : w) v *= static_cast<double>(w.size()) / sum;
  } else if (!batch.valid.empty()) {
    w.assign(static_cast<std::size_t>(batch.rows()), 1.0);
  }
  if (!batch.valid.empty())
    for (std::size_t i = 0; i < w.size(); ++i) w[i] *= batch.valid[i];
  metrics.ess = w.empty() || meta ? 1.0 : relative_ess(w);
  return w;
}

Gradients ValueGradientRegression::replayed(ValueGradientMetrics& metrics) {
  const auto refill = [&] {
    // Samples of a collection have numbers of their own: those of no other.
    std::vector<CostateBatch> collection;
    const std::int64_t first = replay_->collections() * options_.replay.size;
    for (std::int64_t i = 0; i < replay_->batches(); ++i)
      collection.push_back(collect(first + i * options_.batch, options_.batch, controlled_, metrics));
    replay_->fill(std::move(collection));
  };
  if (replay_->empty()) refill();
  CostateBatch* batch = &replay_->draw();
  std::vector<double> weights = row_weights(*batch, metrics);
  if (options_.replay.weighted && metrics.ess < options_.replay.least_ess) {
    refill();
    batch = &replay_->draw();
    weights = row_weights(*batch, metrics);
  }
  const std::vector<int> steps = draw_steps();
  value_costates(*batch, steps, metrics);
  double sum = 0, rows = 0;
  for (std::size_t i = 0; i < batch->reward.size(); ++i)
    if (batch->valid.empty() || batch->valid[i]) sum += batch->reward[i], rows += 1;
  metrics.reward = sum, metrics.failed = static_cast<double>(batch->rows()) - rows;
  return regress(*batch, steps, weights, metrics);
}

Gradients ValueGradientRegression::gradient(ValueGradientMetrics& metrics) {
  const auto n = static_cast<double>(options_.batch);
  const std::vector<int> all = draw_steps();
  Gradients g;
  if (replay_) {
    g = replayed(metrics);
  } else {
    const std::int64_t size = options_.micro_batch ? std::min(options_.micro_batch, options_.batch) : options_.batch;
    SharedSum sum(name(options_.costate), (options_.batch + size - 1) / size);
    ValueGradientMetrics own;
    for (std::int64_t piece = 0, first = 0; first < options_.batch; ++piece, first += size) {
      if (!sum.mine(piece)) continue;
      const std::int64_t rows = std::min(size, options_.batch - first);
      own.reward = own.failed = own.control_cost = own.clipped = own.costate_norm = 0;
      CostateBatch batch = collect(iteration() * options_.batch + first, rows, all, own);
      auto clock = Clock::now();
      value_costates(batch, all, own);
      const std::vector<double> weights = row_weights(batch, own);
      own.seconds.adjoint += lap(clock);
      Gradients of_piece = regress(batch, all, weights, own);
      own.seconds.regress += lap(clock);
      sum.add(piece, std::move(of_piece), {own.reward, own.failed, own.control_cost, own.clipped, own.costate_norm});
    }
    metrics = own;  // what is of whole batches
    metrics.reward = metrics.failed = metrics.control_cost = metrics.clipped = metrics.costate_norm = 0;
    g = sum.finish([&](std::span<const double> of_piece) {
      metrics.reward += of_piece[0], metrics.failed += of_piece[1], metrics.control_cost += of_piece[2];
      metrics.clipped += of_piece[3], metrics.costate_norm = std::max(metrics.costate_norm, of_piece[4]);
    });
  }
  metrics.loss = g.loss;
  if (metrics.failed >= n)
    fail(Fault::numerical, {name(options_.costate), ": the reward of no sample of iteration ", iteration(), " is finite"});
  metrics.reward /= n - metrics.failed;
  metrics.control_cost /= n;
  metrics.clipped /= n * static_cast<double>(all.size());
  return g;
}

void ValueGradientRegression::visit_state(StateVisitor& v) {
  v("learner", learner_);
  if (normaliser_) v("normaliser", *normaliser_);
  if (matrices_ && matrices_->learned()) v("matrices", matrices_->learner());
  if (value_) v("value", *value_);
  if (replay_) v("replay", *replay_);
  v("contraction.lowest", contraction_.lowest), v("contraction.highest", contraction_.highest), v("damping", damping_);
}

Metrics ValueGradientRegression::step() {
  ValueGradientMetrics m;
  if (on_device_) {
    const Learner::Update update = on_device_->step(iteration() * options_.batch, draw_steps(), m);
    last_ = m;
    return report(m, update);
  }
  Gradients g = gradient(m);
  auto clock = Clock::now();
  Gradients of_matrices;
  if (matrices_ && matrices_->learned()) {
    const auto own = static_cast<std::ptrdiff_t>(nn::parameters(network()).size());
    of_matrices.loss = g.loss;
    of_matrices.parameters.assign(std::make_move_iterator(g.parameters.begin() + own),
                                  std::make_move_iterator(g.parameters.end()));
    g.parameters.resize(static_cast<std::size_t>(own));
  }
  const Learner::Update update = learner_.update(g);
  if (!of_matrices.parameters.empty()) matrices_->learner().update(of_matrices);
  m.seconds.optimise = lap(clock);
  last_ = m;
  return report(m, update);
}

Metrics ValueGradientRegression::report(const ValueGradientMetrics& m, const Learner::Update& update) const {
  Metrics out;
  out.set("loss", m.loss), out.set("gradient_norm", update.gradient_norm), out.set("lr", update.lr);
  out.set("reward", m.reward), out.set("control_cost", m.control_cost);
  out.set("costate_norm", m.costate_norm), out.set("clipped", m.clipped), out.set("failed", m.failed);
  if (options_.path_weights || (replay_ && options_.replay.weighted)) out.set("ess", m.ess);
  if (value_) {
    out.set("value_loss", m.value_loss);
    if (options_.value.contraction_every > 0) {
      out.set("contraction", std::max(std::abs(m.contraction.lowest), std::abs(m.contraction.highest)));
      out.set("curvature", m.contraction.highest);
    }
  }
  return out;
}

}  // namespace costate::finetune
