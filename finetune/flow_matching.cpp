#include <costate/finetune/flow_matching.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/chunks.h>
#include <costate/finetune/distributed/shared_sum.h>
#include <costate/finetune/training_state.h>
#include <costate/nn/embed.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <cmath>

namespace costate::finetune {

FlowMatching::FlowMatching(nn::Network network, const data::Dataset& data, bool conditional,
                           const FlowMatchingOptions& options, Device device)
    : options_(options), network_(std::move(network)), optimiser_(options.adamw), ema_(options.ema_decay, true) {
  data::check(data);
  require(options.batch >= 1, "flow matching: batch ", options.batch, "; expected at least 1");
  require(options.micro_batch >= 0, "flow matching: micro_batch ", options.micro_batch, "; it must not be negative");
  require(options.time_margin >= 0 && options.time_margin < 0.5, "flow matching: time_margin ", options.time_margin,
          " is outside [0, 0.5)");
  require(!conditional || data.classes > 0, "flow matching: a conditional network needs labels; the data (",
          data.description, ") has none");
  require(options.prediction != sde::Parametrisation::score,
          "flow matching: networks that predict the score are not trained here; train velocity, epsilon, x1 or v_prediction and convert");
  const memory::TagScope scope(memory::Tag::data);
  std::vector<std::int64_t> extents{data.count};
  extents.insert(extents.end(), data.item_shape.begin(), data.item_shape.end());
  items_ = Tensor::from(data.values, Shape(extents), device);
  if (conditional) {
    labels_ = Tensor::from(data.labels, {data.count}, device);
    null_class_ = data.classes;
  }
}

void FlowMatching::visit_state(StateVisitor& v) {
  v("network", network_), v("optimiser", optimiser_), v("average", ema_), v("iteration", iteration_);
  if (v.restoring()) epoch_ = -1;  // its order is a function of its number
}

nn::Network FlowMatching::average() const {
  nn::Network copy = nn::clone(network_);
  if (!ema_.enabled() || ema_.average().empty()) return copy;
  std::size_t i = 0;
  nn::visit(copy, [&](const std::string&, Var& p) { p.value().copy_from(ema_.average()[i++]); });
  return copy;
}

Gradients FlowMatching::gradient(std::int64_t first, std::span<const std::int32_t> index) const {
  const std::int64_t batch = options_.batch, rows = static_cast<std::int64_t>(index.size()), count = items_.extent(0),
                     dim = items_.numel() / count;
  const DType dtype = items_.dtype();
  const auto first_sample = static_cast<std::uint64_t>(iteration_ * batch + first);
  const Tensor picked = Tensor::from(index, {rows}, items_.device());
  const Var table(items_.reshape({count, dim}));
  const Tensor x1 = gather_rows(table, picked).value();
  const Tensor x0 = Tensor::empty_like(x1);
  random_normal(x0, options_.seed, Stream::coupling, first_sample, 0);
  Tensor labels;
  if (labels_.defined()) {
    std::vector<std::int32_t> chosen(index.size());
    if (!labels_.is_meta()) {
      const Tensor on_host = labels_.to(Device::cpu);
      for (std::size_t i = 0; i < index.size(); ++i) chosen[i] = on_host.values<std::int32_t>()[index[i]];
    }
    labels = nn::drop_labels(Tensor::from(chosen, {rows}, items_.device()), null_class_, options_.label_drop, options_.seed,
                             first_sample, 0);
  }
  // Stratified times: row i draws from the i-th of `batch` equal intervals; which item meets which time is random.
  std::vector<double> t(index.size()), alpha(t.size()), beta(t.size()), on_x1(t.size()), on_x0(t.size());
  const Philox philox{options_.seed, Stream::time};
  for (std::int64_t i = 0; i < rows; ++i) {
    const double u = (static_cast<double>(first + i) + philox.uniform(first_sample + static_cast<std::uint64_t>(i), 0, 0)) /
                     static_cast<double>(batch);
    t[i] = options_.time_margin + (1 - 2 * options_.time_margin) * u;
    const sde::PathPoint p = options_.schedule.at(t[i]);
    alpha[i] = p.alpha, beta[i] = p.beta;
    switch (options_.prediction) {
      case sde::Parametrisation::velocity: on_x1[i] = p.alpha_dot, on_x0[i] = p.beta_dot; break;
      case sde::Parametrisation::v_prediction: on_x1[i] = -p.beta, on_x0[i] = p.alpha; break;
      case sde::Parametrisation::x1: on_x1[i] = 1, on_x0[i] = 0; break;
      default: on_x1[i] = 0, on_x0[i] = 1; break;
    }
  }
  const auto column = [&](const std::vector<double>& v) { return Tensor::from(v, {rows, 1}, items_.device()).to(dtype); };
  const Tensor times = column(t).reshape({rows});
  const auto mix = [&](const Tensor& a, const Tensor& b) {
    return multiply_add(Var(a), Var(x1), mul(Var(b), Var(x0))).value();
  };
  const Tensor x = mix(column(alpha), column(beta)), target = mix(column(on_x1), column(on_x0));

  const Chunks chunks(rows, training_rows(dim));
  const double weight = 1.0 / static_cast<double>(batch * dim);
  return sum_gradients(network_, chunks.count(), [&](const nn::Network& network, std::int64_t c) {
    const std::int64_t begin = chunks.first(c), n = chunks.rows(c);
    const Shape item = items_.shape().with(0, n);
    const nn::Network training = network.with_dropout({options_.seed, first_sample + static_cast<std::uint64_t>(begin), 0});
    const Var prediction = training(Var(x.slice(begin, n).reshape(item)), Var(times.slice(begin, n)),
                                    sde::rows_of(labels, begin, n));
    const Var error = sub(reshape(prediction, {n, dim}), Var(target.slice(begin, n)));
    return affine(sum(square(error)), weight, 0.0);
  });
}

FlowMatchingMetrics FlowMatching::step() {
  const std::int64_t batch = options_.batch, count = items_.extent(0);
  // The items of this batch: positions of an endless stream of shuffled epochs.
  std::vector<std::int32_t> index(static_cast<std::size_t>(batch));
  for (std::int64_t i = 0; i < batch; ++i) {
    const std::int64_t position = iteration_ * batch + i;
    if (position / count != epoch_) {
      epoch_ = position / count;
      order_ = permutation(count, options_.seed, static_cast<std::uint64_t>(epoch_));
    }
    index[i] = static_cast<std::int32_t>(order_[position % count]);
  }
  const std::int64_t size = options_.micro_batch ? std::min(options_.micro_batch, batch) : batch,
                     pieces = (batch + size - 1) / size;
  SharedSum sum("flow matching", pieces);
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    if (!sum.mine(piece)) continue;
    const std::int64_t first = piece * size;
    sum.add(piece, gradient(first, std::span(index).subspan(static_cast<std::size_t>(first),
                                                            static_cast<std::size_t>(std::min(size, batch - first)))));
  }
  const Gradients g = sum.finish();
  const double norm = nn::gradient_norm(g.parameters), lr = options_.lr(iteration_);
  if (!items_.is_meta() && !(std::isfinite(g.loss) && std::isfinite(norm)))
    fail(Fault::numerical, {"flow matching: iteration ", iteration_, " has loss ", g.loss, " and gradient norm ", norm,
                            "; the parameters are those before it"});
  auto parameters = mutable_parameters(network_);
  optimiser_.step(parameters, g.parameters, lr, nn::clip_factor(norm, options_.clip_norm));
  ema_.update(nn::parameters(network_));
  ++iteration_;
  return {g.loss, norm, lr};
}

}  // namespace costate::finetune
