#include <costate/finetune/policy_gradient/critic.h>

#include <costate/autograd/ops.h>
#include <costate/finetune/chunks.h>
#include <costate/finetune/policy_gradient/neuron_reset.h>

#include <cmath>

namespace costate::finetune {
namespace {

constexpr std::int64_t label_width = 16, limit = 128;  // rows of a training chunk

Tensor column(std::span<const double> values, std::int64_t first, std::int64_t n, double otherwise, Device device) {
  std::vector<float> part(static_cast<std::size_t>(n), static_cast<float>(otherwise));
  for (std::int64_t i = 0; i < n && !values.empty(); ++i) part[i] = static_cast<float>(values[first + i]);
  return Tensor::from(part, {n}, device);
}

}  // namespace

Var ValueMlp::inputs(const Var& x, const Var& t, const Tensor& labels) const {
  std::vector<Var> parts{reshape(x, {x.extent(0), -1})};
  if (time_frequencies > 0) parts.push_back(nn::time_features(t, time_frequencies));
  if (embedding.table.defined()) parts.push_back(embedding(labels, x.extent(0)));
  if (parts.size() == 1) return parts[0];
  if (parts.size() == 2) return concat({&parts[0], &parts[1]}, 1);
  return concat({&parts[0], &parts[1], &parts[2]}, 1);
}

Var ValueMlp::operator()(const Var& x, const Var& t, const Tensor& labels, const nn::DropoutKey* key) const {
  Var h = inputs(x, t, labels);
  for (std::size_t i = 0; i < hidden.size(); ++i) {
    h = hidden[i](h);
    if (key && dropout > 0) h = costate::dropout(h, dropout, key->seed + i, key->first_sample, key->step);
  }
  return reshape(output(h), {x.extent(0)});
}

nn::Linear fresh_critic_layer(nn::Init& init, std::int64_t in, std::int64_t out, bool linear, bool last) {
  if (linear)
    return {Var(init.normal({out, in}, 1.0 / static_cast<double>(in + 1))), Var(init.zeros({out})), Activation::none};
  return nn::make_linear(init, in, out, last ? Activation::none : Activation::relu, last ? 1.0 : std::sqrt(2.0));
}

Critic::Critic(const CriticOptions& o, std::int64_t features, std::int64_t classes, std::uint64_t seed, Device device)
    : options_(o), seed_(seed), optimiser_(o.adamw) {
  require(!o.widths.empty(), "critic: there are no hidden layers");
  for (const std::int64_t w : o.widths) require(w >= 1, "critic: a hidden layer of ", w, " neurons");
  require(o.time_frequencies >= 0 && o.dropout >= 0 && o.dropout < 1 && o.lr > 0 && o.clip_norm >= 0 && o.updates >= 0 &&
              o.batch >= 1 && o.warmup >= 0 && o.value_clip >= 0 && o.reset_every >= 1 && o.threshold >= 0,
          "critic: time_frequencies ", o.time_frequencies, ", dropout ", o.dropout, ", lr ", o.lr, ", clip_norm ", o.clip_norm,
          ", updates ", o.updates, ", batch ", o.batch, ", warmup ", o.warmup, ", value_clip ", o.value_clip, ", reset_every ",
          o.reset_every, ", threshold ", o.threshold, " are out of range");
  const memory::TagScope scope(memory::Tag::parameters);
  nn::Init init(seed, DType::f32, device);
  network_.time_frequencies = o.time_frequencies, network_.dropout = o.dropout;
  std::int64_t in = features + 2 * o.time_frequencies;
  if (classes > 0) network_.embedding = nn::make_class_embedding(init, classes, label_width), in += label_width;
  for (const std::int64_t w : o.widths) {
    network_.hidden.push_back(fresh_critic_layer(init, in, w, o.linear, false));
    in = w;
  }
  network_.output = fresh_critic_layer(init, in, 1, o.linear, true);
}

void Critic::calibrate(double shift, double scale) {
  shift_ = shift, scale_ = scale > 0 ? scale : 1, calibrated_ = true;
}

std::vector<double> Critic::values(const CriticRows& rows) const {
  const std::int64_t n = rows.x.extent(0);
  std::vector<double> out(static_cast<std::size_t>(n));
  const Chunks chunks(n, limit);
  parallel(chunks.count(), [&](std::int64_t c) {
    const std::int64_t first = chunks.first(c), count = chunks.rows(c);
    const Tensor f = network_(Var(rows.x.slice(first, count)), Var(rows.t.slice(first, count)),
                              sde::rows_of(rows.labels, first, count)).value();
    if (f.is_meta()) return;
    const std::vector<double> v = f.to_doubles();
    for (std::int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<std::size_t>(first + i);
      out[at] =
          (rows.offset.empty() ? 0 : rows.offset[at]) + (rows.gain.empty() ? 1 : rows.gain[at]) * (shift_ + scale_ * v[i]);
    }
  });
  return out;
}

double Critic::update(const CriticRows& rows, const CriticTargets& targets) {
  const std::int64_t n = rows.x.extent(0);
  const Device device = rows.x.device();
  // (V - target)/scale = gain F + (offset + gain shift - target)/scale.
  std::vector<double> rest(targets.target.size()), low, high;
  for (std::size_t i = 0; i < rest.size(); ++i) {
    const double offset = rows.offset.empty() ? 0 : rows.offset[i], gain = rows.gain.empty() ? 1 : rows.gain[i];
    rest[i] = (offset + gain * shift_ - targets.target[i]) / scale_;
    // The residual where V is at the edges of the band about its old value.
    if (options_.value_clip > 0) {
      low.push_back((targets.old[i] - targets.target[i]) / scale_ - options_.value_clip);
      high.push_back(low.back() + 2 * options_.value_clip);
    }
  }
  const double weight = 0.5 / static_cast<double>(targets.paths);
  const Chunks chunks(n, limit);
  const Gradients g = sum_gradients(network_, chunks.count(), [&](const ValueMlp& network, std::int64_t c) {
    const std::int64_t first = chunks.first(c), count = chunks.rows(c);
    const nn::DropoutKey key{seed_, static_cast<std::uint64_t>(first), static_cast<std::uint32_t>(updates_)};
    const Var f = network(Var(rows.x.slice(first, count)), Var(rows.t.slice(first, count)),
                          sde::rows_of(rows.labels, first, count), &key);
    const Var residual = multiply_add(f, Var(column(rows.gain, first, count, 1.0, device)),
                                      Var(column(rest, first, count, 0.0, device)));
    Var squares = square(residual);
    if (options_.value_clip > 0) {
      const Var cut = minimum(maximum(residual, Var(column(low, first, count, 0.0, device))),
                              Var(column(high, first, count, 0.0, device)));
      squares = maximum(squares, square(cut));
    }
    return affine(sum(squares), weight, 0.0);
  });
  const double norm = nn::gradient_norm(g.parameters);
  if (device != Device::meta && !(std::isfinite(g.loss) && std::isfinite(norm)))
    fail(Fault::numerical, {"critic: update ", updates_, " has loss ", g.loss, " and gradient norm ", norm,
                            "; the parameters are those before it"});
  auto parameters = mutable_parameters(network_);
  optimiser_.step(parameters, g.parameters, options_.lr, nn::clip_factor(norm, options_.clip_norm));
  ++updates_;
  return g.loss;
}

void Critic::visit_state(StateVisitor& v) {
  v.parameters("network", network_);
  v("optimiser", optimiser_), v("shift", shift_), v("scale", scale_), v("calibrated", calibrated_);
  v("updates", updates_), v("resets", resets_);
}

double Critic::reset(const CriticRows& rows, bool due) {
  const auto scores = neuron_scores(network_, rows.x, rows.t, rows.labels);
  NeuronMasks masks;
  std::int64_t dormant = 0, all = 0;
  for (const auto& layer : scores) {
    masks.emplace_back();
    for (const double s : layer) {
      const bool sleeps = s <= options_.threshold;
      dormant += sleeps, ++all;
      masks.back().push_back(options_.reset == CriticOptions::Reset::all ||
                             (options_.reset == CriticOptions::Reset::active && !sleeps) ||
                             (options_.reset == CriticOptions::Reset::dormant && sleeps));
    }
  }
  if (due) {
    nn::Init init(seed_ + 1 + static_cast<std::uint64_t>(resets_++), DType::f32, rows.x.device());
    reset_neurons(network_, optimiser_, masks, options_.linear, init);
  }
  return all ? static_cast<double>(dormant) / static_cast<double>(all) : 0;
}

}  // namespace costate::finetune
