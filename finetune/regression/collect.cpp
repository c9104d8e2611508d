// Trajectories and the costates that follow from them.
#include <costate/autograd/ops.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/random.h>
#include <costate/tensor/sum_squares.h>

#include <algorithm>
#include <chrono>
#include <cmath>

namespace costate::finetune {
namespace {

using Costate = ValueGradientOptions::Costate;
using Pairing = ValueGradientOptions::Pairing;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

bool is_in(const std::vector<int>& steps, int k) { return std::find(steps.begin(), steps.end(), k) != steps.end(); }

// Rows that failed become zeros.
void clear_rows(Tensor& x, const std::vector<std::uint8_t>& valid) {
  if (valid.empty()) return;
  const auto values = x.mutate<float>();
  const std::size_t n = values.size() / valid.size();
  for (std::size_t i = 0; i < valid.size(); ++i)
    if (!valid[i]) std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(i * n), n, 0.0f);
}

}  // namespace

CostateBatch ValueGradientRegression::collect(std::int64_t first_sample, std::int64_t rows, const std::vector<int>& steps,
                                           ValueGradientMetrics& metrics) const {
  CostateBatch batch;
  batch.paths.key = {options_.seed, static_cast<std::uint64_t>(first_sample)};
  batch.paths.labels = problem_.draw_labels(rows, batch.paths.key);
  batch.steps = steps;
  const auto start = Clock::now();
  simulate_into(batch, rows);
  metrics.seconds.sample += seconds_since(start);
  const auto sampled = Clock::now();
  const Tensor terminal = terminal_costate(batch, metrics);
  if (!learns_value()) path_costates(batch, terminal, metrics);
  metrics.seconds.adjoint += seconds_since(sampled);
  return batch;
}

void ValueGradientRegression::simulate_into(CostateBatch& batch, std::int64_t rows) const {
  const sde::Chain& chain = problem_.chain;
  const int last = chain.steps();
  const sde::Field field = field_of(network());
  const bool predictions = options_.path_weights || learns_value() || options_.replay.weighted, bases = learns_value();
  Trajectories& paths = batch.paths;
  paths.states.resize(static_cast<std::size_t>(last) + 1);
  paths.predictions.resize(static_cast<std::size_t>(last)), paths.base_predictions.resize(static_cast<std::size_t>(last));
  {
    const memory::TagScope scope(memory::Tag::trajectory);
    const auto make = [&] { return Tensor::empty(problem_.sample_shape.with_front(rows), DType::f32, problem_.device); };
    for (Tensor& s : paths.states) s = make();
    for (const int k : controlled_) {
      if (predictions) paths.predictions[k] = make();
      if (bases) paths.base_predictions[k] = make();
    }
  }
  const std::int64_t per_chunk = sde::chunk_rows(rows), pieces = (rows + per_chunk - 1) / per_chunk;
  std::vector<int> place(static_cast<std::size_t>(last), -1);  // of step k in `steps`
  if (options_.keep_activations) {
    batch.kept.resize(batch.steps.size() * static_cast<std::size_t>(pieces));
    for (std::size_t i = 0; i < batch.steps.size(); ++i) place[batch.steps[i]] = static_cast<int>(i);
  }
  const Tensor start = problem_.initial ? problem_.initial_states(rows, paths.key) : Tensor();
  sde::each_chunk(rows, [&](std::int64_t begin, std::int64_t n) {
    const sde::NoiseKey own = paths.key.from(begin);
    const Tensor l = sde::rows_of(paths.labels, begin, n);
    Tensor x = start.defined() ? start.slice(begin, n) : problem_.initial_states(n, own);
    for (int k = 0; k < last; ++k) {
      paths.states[k].slice(begin, n).copy_from(x);
      const Var t(sde::step_time(chain, k, x));
      Tensor prediction;
      if (place[k] < 0) {
        prediction = field(Var(x), t, l).value();
      } else {
        RecordedPass& pass = batch.kept[static_cast<std::size_t>(place[k] * pieces + begin / per_chunk)];
        pass.prediction = nn::watch(network(), *(pass.tape = std::make_unique<Tape>()), pass.watched)(Var(x), t, l);
        prediction = pass.prediction.value();
      }
      if (paths.predictions[k].defined()) paths.predictions[k].slice(begin, n).copy_from(prediction);
      if (paths.base_predictions[k].defined())
        paths.base_predictions[k].slice(begin, n).copy_from(problem_.base(Var(x), t, l).value());
      x = sde::advance(chain, k, x, prediction, own);
    }
    paths.states[last].slice(begin, n).copy_from(x);
  });
}

// Scores the end of the paths; the costate there, where the costates of the objective start from one.
Tensor ValueGradientRegression::terminal_costate(CostateBatch& batch, ValueGradientMetrics& metrics) const {
  const sde::Chain& chain = problem_.chain;
  const int last = chain.steps();
  Tensor endpoint = batch.paths.terminal();
  const std::int64_t rows = batch.rows();
  if (options_.denoised_endpoint) {
    const sde::Affine denoise = sde::denoised_endpoint(chain);
    endpoint = Tensor::empty_like(endpoint);
    sde::each_chunk(rows, [&](std::int64_t begin, std::int64_t n) {
      const Tensor x = batch.paths.states[last - 1].slice(begin, n);
      const Var v = problem_.base(Var(x), Var(sde::step_time(chain, last - 1, x)), sde::rows_of(batch.paths.labels, begin, n));
      endpoint.slice(begin, n).copy_from(axpby(denoise.x, Var(x), denoise.prediction, v).value());
    });
  }
  // A value's gradient at x_K is asked for where x_K follows a step with noise.
  const bool with_gradient =
      !learns_value() || (options_.costate == Costate::value && value_->exact_end() && is_in(batch.steps, last - 1));
  Reward::Scores r = problem_.reward.scores(endpoint, with_gradient);
  batch.reward.assign(static_cast<std::size_t>(rows), 0.0);
  if (!r.value.is_meta()) {
    const auto values = r.value.to_doubles();
    for (std::size_t i = 0; i < values.size(); ++i)
      if (r.valid.empty() || r.valid[i]) metrics.reward += batch.reward[i] = values[i];
      else metrics.failed += 1;
  }
  batch.valid = std::move(r.valid);
  if (!with_gradient) return {};
  Tensor a = affine(Var(r.gradient), -problem_.reward_multiplier, 0.0).value();
  clear_rows(a, batch.valid);
  if (learns_value()) batch.reward_gradient = a;
  return a;
}

void ValueGradientRegression::path_costates(CostateBatch& batch, const Tensor& terminal, ValueGradientMetrics& metrics) const {
  const sde::Chain& chain = problem_.chain;
  const int last = chain.steps();
  const std::int64_t rows = batch.rows();
  const bool reparametrised = options_.costate == Costate::reparametrised;
  Trajectories& paths = batch.paths;
  batch.costates.resize(static_cast<std::size_t>(last));
  {
    const memory::TagScope scope(memory::Tag::adjoint);
    for (const int k : options_.path_weights ? controlled_ : batch.steps) {
      if (!reparametrised && is_in(batch.steps, k)) batch.costates[k] = Tensor::empty_like(paths.states[0]);
      paths.base_predictions[k] = Tensor::empty_like(paths.states[0]);
    }
    if (reparametrised) {
      const Shape shape{matrices_->horizon() + 1, rows, problem_.sample_shape.numel()};
      batch.own = Tensor::empty(shape, DType::f32, problem_.device);
      batch.later = Tensor::empty(shape, DType::f32, problem_.device);
    }
  }
  // The lowest step that may be drawn, and what is asked there: the cost of an iteration must not depend on the draw.
  const bool drawn = options_.early_steps > 0;
  const int first = reparametrised ? 0 : drawn ? controlled_.front() : batch.steps.front();
  const std::int64_t per_chunk = sde::chunk_rows(rows), pieces = (rows + per_chunk - 1) / per_chunk;
  // Squares of the costates that are regressed on, a chunk and step.
  std::vector<double> norms(static_cast<std::size_t>(pieces * last));
  sde::each_chunk(rows, [&](std::int64_t begin, std::int64_t n) {
    CostateInputs in{problem_,
                           field_of(network()),
                           kl_weights_,
                           [&](int k) { return paths.states[k].slice(begin, n); },
                           sde::rows_of(paths.labels, begin, n),
                           first,
                           options_.pairing == Pairing::same,
                           [&](int k) { return paths.base_predictions[k].defined() || (drawn && k <= first + 1); }};
    if (options_.sticking_the_landing)
      in.noise = [&, key = paths.key.from(begin)](int k) { return sde::step_noise(k, in.state(k), key); };
    const auto visit = [&](int k, const Tensor& prediction, const Tensor& a_next, const Tensor& a_k) {
      if (paths.base_predictions[k].defined()) paths.base_predictions[k].slice(begin, n).copy_from(prediction);
      if (!a_next.defined()) return;
      if (batch.costates[k].defined())
        batch.costates[k].slice(begin, n).copy_from(options_.pairing == Pairing::same ? a_k : a_next);
      norms[static_cast<std::size_t>(k * pieces + begin / per_chunk)] =
          sum_squares({&a_next, 1});
    };
    Tensor a = terminal.slice(begin, n);
    if (options_.pairing == Pairing::alg1) {
      Tape tape;
      const Tensor x = paths.states[last].slice(begin, n);
      const Var tracked = tape.watch(x);
      const Var v = problem_.base(tracked, Var(Tensor::full({n}, 1.0, DType::f32, problem_.device)), in.labels);
      const Tensor pulled = std::move(tape).vjp(v, a, {&tracked, 1})[0];
      a = axpby(terminal_.x, Var(a), terminal_.prediction, Var(pulled)).value();
    }
    switch (options_.costate) {
      case Costate::full: return full_costates(in, std::move(a), visit);
      case Costate::continuous: return continuous_costates(in, std::move(a), visit);
      case Costate::reparametrised: {
        // e_j in terms of the base: e_j + u_j.
        const auto noise = [&](int j, const Tensor& prediction) {
          const double scale = chain.C[j] / chain.std[j];
          const Var u = axpby(scale, Var(paths.predictions[j].slice(begin, n)), -scale, Var(prediction));
          return add(u, Var(sde::step_noise(j, in.state(j), paths.key.from(begin)))).value();
        };
        const Reparametrisation::Terms terms = matrices_->terms(in, std::move(a), noise, visit);
        const auto copy = [&](const Tensor& from, const Tensor& to, int j) {
          if (from.defined()) to[j].slice(begin, n).copy_from(from.reshape({n, -1}));
        };
        for (int j = 1; j <= matrices_->horizon(); ++j)
          copy(terms.own[j], batch.own, j), copy(terms.later[j], batch.later, j);
        return;
      }
      default: return lean_costates(in, std::move(a), visit);
    }
  });
  double largest = 0;
  for (int k = 0; k < last; ++k) {
    double s = 0;
    for (std::int64_t i = 0; i < pieces; ++i) s += norms[static_cast<std::size_t>(k * pieces + i)];
    largest = s > largest || std::isnan(s) ? s : largest;
  }
  metrics.costate_norm = std::max(metrics.costate_norm, std::sqrt(largest / static_cast<double>(rows)));
  if (problem_.device != Device::meta && !std::isfinite(largest))
    fail(Fault::numerical, {"value-gradient regression: the costate of iteration ", iteration(),
                            " is not finite; |a| grows along the network: use more steps or a smaller reward multiplier"});
}

void ValueGradientRegression::value_costates(CostateBatch& batch, const std::vector<int>& steps, ValueGradientMetrics& metrics) {
  if (!learns_value()) return;
  const sde::Chain& chain = problem_.chain;
  const int last = chain.steps();
  const Trajectories& paths = batch.paths;
  const std::int64_t rows = batch.rows();
  metrics.value_loss = value_->fit(batch, kl_weights_);
  const ValueOptions& o = options_.value;
  if (damping_.empty()) damping_.assign(static_cast<std::size_t>(last), 1.0);
  if (o.contraction_every > 0 && iteration() % o.contraction_every == 0) {
    const std::int64_t probes = std::min(o.contraction_rows, rows);
    contraction_ = {0, 0};
    for (const int k : controlled_) {
      Curvature c = value_->curvature(k + 1, paths.states[k + 1].slice(0, probes), sde::rows_of(paths.labels, 0, probes));
      const double scale = chain.std[k] * chain.std[k] / kl_weights_[k];
      c.lowest *= scale, c.highest *= scale;
      if (c.highest >= 1)
        fail(Fault::numerical, {"policy iteration: at step ", k, " std^2/b times the curvature of the value is ", c.highest,
                                "; from 1 on the step has no optimum: raise kl_weights, take more steps or a smaller reward "
                                "multiplier"});
      if (o.damping) damping_[k] = c.lowest < 0 ? 1 / (1 - c.lowest) : 1.0;
      contraction_ = {std::min(contraction_.lowest, c.lowest), std::max(contraction_.highest, c.highest)};
    }
  }
  metrics.contraction = contraction_;

  const double lambda = problem_.reward_multiplier;
  std::vector<Tensor> values(static_cast<std::size_t>(last) + 1);  // V_k(x_k), where asked for
  const auto value_at = [&](int k) {
    if (values[k].defined() && options_.early_steps == 0) return values[k];  // or the cost would depend on the draw
    if (k < last) return values[k] = value_->value(k, paths.states[k], paths.labels);
    std::vector<float> v(batch.reward.begin(), batch.reward.end());
    for (float& f : v) f *= static_cast<float>(lambda);
    return values[k] = Tensor::from(v, {rows}, problem_.device);
  };
  batch.costates.assign(static_cast<std::size_t>(last), Tensor());
  const memory::TagScope scope(memory::Tag::adjoint);
  double largest = 0;
  for (const int k : steps) {
    Tensor a;
    if (options_.costate == Costate::value) {
      a = k + 1 == last && batch.reward_gradient.defined()
              ? batch.reward_gradient
              : neg(Var(value_->gradient(k + 1, paths.states[k + 1], paths.labels))).value();
    } else if (o.pairs == 0) {
      const Tensor gain = reshape(sub(Var(value_at(k)), Var(value_at(k + 1))), {rows, 1}).value();
      const Var e = reshape(Var(sde::step_noise(k, paths.states[k], paths.key)), {rows, -1});
      a = reshape(affine(mul(Var(gain), e), 1 / chain.std[k], 0.0), paths.states[k].shape()).value();
    } else {
      const Var mean = axpby(chain.A[k], Var(paths.states[k]), chain.C[k], Var(paths.predictions[k]));
      for (int pair = 0; pair < o.pairs; ++pair) {
        const Tensor e = Tensor::empty_like(paths.states[k]);
        random_normal(e, options_.seed, Stream::probe, paths.key.first_sample,
                      static_cast<std::uint32_t>(last * (pair + 1) + k));
        const Tensor up = value_->value(k + 1, axpby(1.0, mean, chain.std[k], Var(e)).value(), paths.labels),
                     down = value_->value(k + 1, axpby(1.0, mean, -chain.std[k], Var(e)).value(), paths.labels);
        const Var gain = reshape(sub(Var(down), Var(up)), {rows, 1});
        const Var term = affine(mul(gain, reshape(Var(e), {rows, -1})), 0.5 / (o.pairs * chain.std[k]), 0.0);
        a = plus(reshape(term, paths.states[k].shape()).value(), a);
      }
    }
    if (damping_[k] < 1) {
      // The regression's optimum becomes (1 - w) u + w (-std a/b).
      const double w = damping_[k], scale = (1 - w) * kl_weights_[k] * chain.C[k] / (chain.std[k] * chain.std[k]);
      const Var shift = sub(Var(paths.predictions[k]), Var(paths.base_predictions[k]));
      a = axpby(w, Var(a), -scale, shift).value();
    }
    largest = std::max(largest, sum_squares({&a, 1}));
    batch.costates[k] = std::move(a);
  }
  metrics.costate_norm = std::max(metrics.costate_norm, std::sqrt(largest / static_cast<double>(rows)));
}

}  // namespace costate::finetune
