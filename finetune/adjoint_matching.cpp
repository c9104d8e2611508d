#include <costate/finetune/adjoint_matching.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/chunks.h>
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

// A recorded pass of the network.
struct Pass {
  std::unique_ptr<Tape> tape;
  std::vector<Var> watched;
  Var prediction;
};

}  // namespace

AdjointMatching::AdjointMatching(sde::Field base, nn::Network tuned, sde::Chain chain, Shape sample_shape, Reward reward,
                                 const AdjointMatchingOptions& options, Device device)
    : base_(std::move(base)),
      chain_(std::move(chain)),
      sample_shape_(sample_shape),
      reward_(std::move(reward)),
      options_(options),
      device_(device),
      learner_("adjoint matching", std::move(tuned), options.learner) {
  require(options_.batch >= 1 && options_.micro_batch >= 0, "adjoint matching: batch ", options_.batch, ", micro_batch ",
          options_.micro_batch, " are out of range");
  require(options_.early_steps >= 0 && options_.late_steps >= 0 && options_.loss_clip >= 0,
          "adjoint matching: early_steps, late_steps and loss_clip must not be negative");
  require(static_cast<bool>(base_) && static_cast<bool>(reward_.value), "adjoint matching: the base or the reward is empty");
  sde::require_one_step(chain_, "adjoint matching");
  for (int k = 0; k < chain_.steps(); ++k)
    if (chain_.std[k] > 0) controlled_.push_back(k);
  require(!controlled_.empty(), "adjoint matching: the chain '", chain_.description,
          "' has no noise; a control is a mean shift in units of the noise");
  require(options_.late_steps + options_.early_steps <= static_cast<int>(controlled_.size()),
          "adjoint matching: early_steps + late_steps is ", options_.early_steps + options_.late_steps, "; the chain has ",
          controlled_.size(), " steps with noise");
  require(options_.late_steps > 0 || options_.early_steps == 0,
          "adjoint matching: early_steps without late_steps; the last steps are where the reward acts");
  if (options_.pairing == AdjointMatchingOptions::Pairing::alg1) {
    require(chain_.prediction == sde::Parametrisation::velocity && chain_.convertible() &&
                chain_.step == sde::Step::euler_maruyama,
            "adjoint matching: pairing alg1 is defined for Euler-Maruyama memoryless chains of velocity networks; the chain is '",
            chain_.description, "'");
    // b(x, 1) = 2 v - kappa x with the offset kappa = alpha' / (alpha + h alpha').
    const double h = chain_.t.back() - chain_.t[chain_.steps() - 1];
    const sde::PathPoint p = chain_.schedule.at(1.0);
    terminal_ = {1 - h * p.alpha_dot / (p.alpha + h * p.alpha_dot), 2 * h};
  }
}

std::vector<int> AdjointMatching::draw_steps() const {
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

Gradients AdjointMatching::micro_batch(std::int64_t first, std::int64_t rows, const std::vector<int>& steps,
                                       AdjointMatchingMetrics& metrics) const {
  using Pairing = AdjointMatchingOptions::Pairing;
  const int last = chain_.steps();
  const auto first_sample = static_cast<std::uint64_t>(iteration() * options_.batch + first);
  const sde::NoiseKey key{options_.seed, first_sample};
  const sde::Field field = field_of(network());
  Tensor labels;
  if (!label_choices_.empty()) {
    std::vector<std::int32_t> drawn(static_cast<std::size_t>(rows));
    const Philox philox{options_.seed, Stream::label};
    for (std::int64_t i = 0; i < rows; ++i)
      drawn[i] = label_choices_[philox.below(static_cast<std::uint32_t>(label_choices_.size()),
                                             first_sample + static_cast<std::uint64_t>(i), 0, 0)];
    labels = Tensor::from(drawn, {rows}, device_);
  }
  auto clock = Clock::now();

  // 1. Trajectories of the tuned network: states[k] is x_k, (rows, ...).
  std::vector<Tensor> states(static_cast<std::size_t>(last) + 1), base_prediction(static_cast<std::size_t>(last)),
      target(static_cast<std::size_t>(last));
  {
    const memory::TagScope scope(memory::Tag::trajectory);
    for (Tensor& s : states) s = Tensor::empty(sample_shape_.with_front(rows), DType::f32, device_);
  }
  const std::int64_t per_chunk = sde::chunk_rows(rows), pieces = (rows + per_chunk - 1) / per_chunk;
  std::vector<Pass> kept(options_.keep_activations ? steps.size() * static_cast<std::size_t>(pieces) : 0);
  std::vector<int> place(static_cast<std::size_t>(last), -1);  // of step k in `steps`
  if (options_.keep_activations)
    for (std::size_t i = 0; i < steps.size(); ++i) place[steps[i]] = static_cast<int>(i);
  sde::each_chunk(rows, [&](std::int64_t begin, std::int64_t n) {
    const sde::NoiseKey own = key.from(begin);
    const Tensor l = sde::rows_of(labels, begin, n);
    Tensor x = sde::initial_noise(sample_shape_, n, own, DType::f32, device_);
    for (int k = 0; k < last; ++k) {
      states[k].slice(begin, n).copy_from(x);
      const Var t(sde::step_time(chain_, k, x));
      Tensor prediction;
      if (place[k] < 0) {
        prediction = field(Var(x), t, l).value();
      } else {
        Pass& pass = kept[static_cast<std::size_t>(place[k] * pieces + begin / per_chunk)];
        pass.prediction = nn::watch(network(), *(pass.tape = std::make_unique<Tape>()), pass.watched)(Var(x), t, l);
        prediction = pass.prediction.value();
      }
      x = sde::advance(chain_, k, x, prediction, own);
    }
    states[last].slice(begin, n).copy_from(x);
  });
  metrics.seconds.sample += lap(clock);

  // 2. The terminal costate and the lean adjoint with the base.
  Tensor endpoint = states[last];
  if (options_.denoised_endpoint) {
    const sde::Affine denoise = sde::denoised_endpoint(chain_);
    endpoint = Tensor::empty_like(states[last]);
    sde::each_chunk(rows, [&](std::int64_t begin, std::int64_t n) {
      const Tensor x = states[last - 1].slice(begin, n);
      const Var v = base_(Var(x), Var(sde::step_time(chain_, last - 1, x)), sde::rows_of(labels, begin, n));
      endpoint.slice(begin, n).copy_from(axpby(denoise.x, Var(x), denoise.prediction, v).value());
    });
  }
  const Reward::ValueAndGradient r = reward_.value_and_gradient(endpoint);
  const Tensor a_last = affine(Var(r.gradient), -options_.reward_multiplier, 0.0).value();
  {
    const memory::TagScope scope(memory::Tag::adjoint);
    for (const int k : steps) {
      target[k] = Tensor::empty_like(states[0]);
      base_prediction[k] = Tensor::empty_like(states[0]);
    }
  }
  // Squares of the costates that are regressed on, a chunk and step.
  std::vector<double> norms(static_cast<std::size_t>(pieces * last));
  sde::each_chunk(rows, [&](std::int64_t begin, std::int64_t n) {
    const Tensor l = sde::rows_of(labels, begin, n);
    Tensor a = a_last.slice(begin, n);
    if (options_.pairing == Pairing::alg1) {
      Tape tape;
      const Tensor x = states[last].slice(begin, n);
      const Var tracked = tape.watch(x);
      const Var v = base_(tracked, Var(Tensor::full({n}, 1.0, DType::f32, device_)), l);
      const Tensor pulled = std::move(tape).vjp(v, a, {&tracked, 1})[0];
      a = axpby(terminal_.x, Var(a), terminal_.prediction, Var(pulled)).value();
    }
    sde::lean_adjoint(base_, chain_, [&](int k) { return states[k].slice(begin, n); }, l, a,
                      [&](int k, const Tensor& prediction, const Tensor& a_next, const Tensor& a_k) {
                        if (target[k].defined()) {
                          target[k].slice(begin, n).copy_from(options_.pairing == Pairing::same ? a_k : a_next);
                          base_prediction[k].slice(begin, n).copy_from(prediction);
                        }
                        norms[static_cast<std::size_t>(k * pieces + begin / per_chunk)] =
                            kernels(a_next).sum_squares(DType::f32, a_next.numel(), a_next.raw());
                      });
  });
  double largest = 0;
  for (int k = 0; k < last; ++k) {
    double s = 0;
    for (std::int64_t i = 0; i < pieces; ++i) s += norms[static_cast<std::size_t>(k * pieces + i)];
    largest = s > largest || std::isnan(s) ? s : largest;
  }
  metrics.costate_norm = std::max(metrics.costate_norm, std::sqrt(largest / static_cast<double>(rows)));
  metrics.reward += sum(Var(r.value)).value().item();
  if (device_ == Device::cpu && !std::isfinite(largest))
    fail(Fault::numerical, {"adjoint matching: the costate of iteration ", iteration(), " is not finite; |a| grows along the ",
                            "base network: use more steps or a smaller reward multiplier"});
  metrics.seconds.adjoint += lap(clock);

  // 3. Regression. A chunk is some rows of one step; activations that were kept are those of sampling's chunks.
  const Chunks chunks(rows, training_rows(sample_shape_.numel()));
  const std::int64_t per_step = kept.empty() ? chunks.count() : pieces;
  const auto total = static_cast<std::int64_t>(steps.size()) * per_step;
  const double weight = 1.0 / static_cast<double>(options_.batch * static_cast<std::int64_t>(steps.size()));
  std::vector<double> control(static_cast<std::size_t>(total)), clipped(control.size());
  const auto loss_of = [&](const Var& prediction, std::int64_t c, std::int64_t begin, std::int64_t n) {
    const int k = steps[c / per_step];
    const double std = chain_.std[k], shift = chain_.C[k];
    const bool in_control = options_.loss_space == AdjointMatchingOptions::LossSpace::control;
    const Var base(base_prediction[k].slice(begin, n));
    // Units of the velocity: dv/dprediction at t_k.
    const double unit = in_control ? 1.0
                                   : sde::conversion(chain_.prediction, sde::Parametrisation::velocity, chain_.schedule,
                                                     chain_.t[k]).prediction;
    const Var residual = matching_residual(in_control ? shift / std : unit, prediction, base,
                                           in_control ? std : unit * std * std / shift, Var(target[k].slice(begin, n)));
    const Tensor difference = sub(Var(prediction.value()), base).value();
    control[c] = kernels(difference).sum_squares(DType::f32, difference.numel(), difference.raw()) * (shift / std) * (shift / std);
    if (options_.loss_clip == 0) return affine(sum(square(residual)), weight, 0.0);
    const Var squares = sum(reshape(square(residual), {n, -1}), 1);
    if (!squares.value().is_meta())
      for (const float s : squares.value().values<float>()) clipped[c] += s >= options_.loss_clip;
    return affine(sum(minimum(squares, Var(Tensor::scalar(options_.loss_clip, DType::f32, device_)))), weight, 0.0);
  };
  Gradients g;
  if (kept.empty()) {
    g = sum_gradients(network(), total, [&](const nn::Network& network, std::int64_t c) {
      const int k = steps[c / per_step];
      const std::int64_t begin = chunks.first(c % per_step), n = chunks.rows(c % per_step);
      const Tensor x = states[k].slice(begin, n);
      return loss_of(network(Var(x), Var(sde::step_time(chain_, k, x)), sde::rows_of(labels, begin, n)), c, begin, n);
    });
  } else {
    g = sum_chunks(parameter_bytes(network()), total, [&](std::int64_t c) {
      const Pass pass = std::move(kept[c]);
      const std::int64_t begin = c % per_step * per_chunk;
      const Var loss = [&] {
        const memory::TagScope scope(memory::Tag::activations);
        return loss_of(pass.prediction, c, begin, pass.prediction.extent(0));
      }();
      return gradient_of(std::move(*pass.tape), loss, pass.watched);
    });
  }
  // A step that was drawn with probability p stands for 1/p steps.
  const auto early_pool = static_cast<double>(controlled_.size()) - options_.late_steps;
  for (std::int64_t c = 0; c < total; ++c) {
    const bool early = options_.late_steps > 0 && c / per_step < options_.early_steps;
    metrics.control_cost += 0.5 * control[c] * (early ? early_pool / options_.early_steps : 1.0);
    metrics.clipped += clipped[c];
  }
  metrics.seconds.regress += lap(clock);
  return g;
}

Gradients AdjointMatching::gradient(AdjointMatchingMetrics& metrics) const {
  const std::vector<int> steps = draw_steps();
  const std::int64_t size = options_.micro_batch ? std::min(options_.micro_batch, options_.batch) : options_.batch;
  Gradients g;
  for (std::int64_t first = 0; first < options_.batch; first += size)
    add(g, micro_batch(first, std::min(size, options_.batch - first), steps, metrics));
  const auto n = static_cast<double>(options_.batch);
  metrics.loss = g.loss;
  metrics.reward /= n, metrics.control_cost /= n;
  metrics.clipped /= n * static_cast<double>(steps.size());
  return g;
}

Metrics AdjointMatching::step() {
  AdjointMatchingMetrics m;
  const Gradients g = gradient(m);
  auto clock = Clock::now();
  const Learner::Update update = learner_.update(g);
  m.seconds.optimise = lap(clock);
  last_ = m;
  Metrics out;
  out.set("loss", m.loss), out.set("gradient_norm", update.gradient_norm), out.set("lr", update.lr);
  out.set("reward", m.reward), out.set("control_cost", m.control_cost);
  out.set("costate_norm", m.costate_norm), out.set("clipped", m.clipped);
  return out;
}

}  // namespace costate::finetune
