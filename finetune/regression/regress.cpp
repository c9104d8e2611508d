// The loss of a batch and its gradient.
#include <costate/autograd/ops.h>
#include <costate/finetune/chunks.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/sum_squares.h>

#include <algorithm>
#include <cmath>

namespace costate::finetune {

Gradients ValueGradientRegression::regress(CostateBatch& batch, const std::vector<int>& steps, const std::vector<double>& weights,
                                           ValueGradientMetrics& metrics) const {
  const sde::Chain& chain = problem_.chain;
  const Trajectories& paths = batch.paths;
  const std::int64_t rows = batch.rows(), per_piece = sde::chunk_rows(rows);
  Tensor row_weight;
  if (!weights.empty()) {
    const std::vector<float> w(weights.begin(), weights.end());
    row_weight = Tensor::from(w, {rows}, problem_.device);
  }
  // A chunk is some rows of one step; activations that were kept are those of sampling's chunks; the matrices of a
  // reparametrisation serve all rows of a step.
  const bool reparametrised = batch.own.defined();
  const Chunks chunks(rows, reparametrised ? rows : training_rows(problem_.sample_shape.numel()));
  const std::int64_t per_step = batch.kept.empty() ? chunks.count() : (rows + per_piece - 1) / per_piece;
  const auto total = static_cast<std::int64_t>(steps.size()) * per_step;
  const double weight = 1.0 / static_cast<double>(options_.batch * static_cast<std::int64_t>(steps.size()));
  std::vector<double> control(static_cast<std::size_t>(total)), clipped(control.size()), norms(control.size());
  const auto loss_of = [&](const Var& prediction, const Var& costate, std::int64_t c, std::int64_t begin, std::int64_t n) {
    const int k = steps[c / per_step];
    const double std = chain.std[k], shift = chain.C[k], b = kl_weights_[k];
    const bool in_control = options_.loss_space == ValueGradientOptions::LossSpace::control;
    const Var base(paths.base_predictions[k].slice(begin, n));
    // Units of the velocity: dv/dprediction at t_k.
    const double unit = in_control ? 1.0
                                   : sde::conversion(chain.prediction, sde::Parametrisation::velocity, chain.schedule,
                                                     chain.t[k]).prediction;
    const Var residual = matching_residual(in_control ? shift / std : unit, prediction, base,
                                           in_control ? std / b : unit * std * std / (shift * b), costate);
    const Tensor difference = sub(Var(prediction.value()), base).value();
    const double squared = sum_squares({&difference, 1});
    control[c] = squared * (shift / std) * (shift / std);
    if (options_.loss_clip == 0 && !row_weight.defined()) return affine(sum(square(residual)), weight, 0.0);
    Var squares = sum(reshape(square(residual), {n, -1}), 1);
    if (options_.loss_clip > 0) {
      if (!squares.value().is_meta())
        for (const double s : squares.value().to_doubles()) clipped[c] += s >= options_.loss_clip;
      squares = minimum(squares, Var(Tensor::scalar(options_.loss_clip, DType::f32, problem_.device)));
    }
    if (row_weight.defined()) squares = mul(squares, Var(row_weight.slice(begin, n)));
    return affine(sum(squares), weight, 0.0);
  };
  const auto predict = [&](const nn::Network& network, std::int64_t c, std::int64_t begin, std::int64_t n) {
    const int k = steps[c / per_step];
    const Tensor x = paths.states[k].slice(begin, n);
    return network(Var(x), Var(sde::step_time(chain, k, x)), sde::rows_of(paths.labels, begin, n));
  };
  Gradients g;
  if (reparametrised) {
    const bool learned = matrices_->learned();
    const std::int64_t bytes = parameter_bytes(network()) + (learned ? parameter_bytes(matrices_->network()) : 0);
    g = sum_chunks(bytes, total, [&](std::int64_t c) {
      Tape tape;
      std::vector<Var> watched;
      const Var loss = [&] {
        const memory::TagScope scope(memory::Tag::activations);
        const nn::Network tuned = nn::watch(network(), tape, watched);
        const nn::Network matrices = learned ? nn::watch(matrices_->network(), tape, watched) : nn::Network();
        const Var a = matrices_->costate(learned ? &matrices : nullptr, steps[c], batch.own, batch.later);
        norms[c] = sum_squares({&a.value(), 1});
        return loss_of(predict(tuned, c, 0, rows), reshape(a, paths.states[0].shape()), c, 0, rows);
      }();
      return gradient_of(std::move(tape), loss, watched);
    });
  } else if (batch.kept.empty()) {
    g = sum_gradients(network(), total, [&](const nn::Network& network, std::int64_t c) {
      const std::int64_t begin = chunks.first(c % per_step), n = chunks.rows(c % per_step);
      return loss_of(predict(network, c, begin, n), Var(batch.costates[steps[c / per_step]].slice(begin, n)), c, begin, n);
    });
  } else {
    g = sum_chunks(parameter_bytes(network()), total, [&](std::int64_t c) {
      const RecordedPass pass = std::move(batch.kept[c]);
      const std::int64_t begin = c % per_step * per_piece, n = pass.prediction.extent(0);
      const Var loss = [&] {
        const memory::TagScope scope(memory::Tag::activations);
        return loss_of(pass.prediction, Var(batch.costates[steps[c / per_step]].slice(begin, n)), c, begin, n);
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
    metrics.costate_norm = std::max(metrics.costate_norm, std::sqrt(norms[c] / static_cast<double>(rows)));
  }
  return g;
}

}  // namespace costate::finetune
