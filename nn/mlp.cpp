#include <costate/nn/mlp.h>
#include <costate/nn/recompute.h>

#include <algorithm>
#include <cmath>

namespace costate::nn {
namespace {
const double hidden_gain = std::sqrt(2.0);

// A run of hidden layers; all but the network's first one have a norm, if there are norms, and a sum, if residual.
Var hidden_layers(std::span<const Linear> layers, std::span<const LayerNorm> norms, bool residual, bool first, Var h) {
  const std::size_t bare = first ? 1 : 0;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (i < bare) {
      h = layers[i](h);
      continue;
    }
    const Var in = norms.empty() ? h : norms[i - bare](h);
    h = residual ? add(h, layers[i](in)) : layers[i](in);
  }
  return h;
}

// The same as a block.
struct HiddenLayers {
  std::vector<Linear> layers;
  std::vector<LayerNorm> norms;
  bool residual, first;
  void visit(const Visitor& v) {
    v("layers", layers);
    v("norms", norms);
  }
};

}  // namespace

Var VelocityMlp::operator()(const Var& x, const Var& t, const Tensor& labels) const {
  require(!layers.empty() && (!options.norm || norms.size() + 1 == layers.size()),
          "velocity network: it has ", layers.size(), " hidden layers and ", norms.size(),
          " normalisations; make it with make_velocity_mlp");
  const std::int64_t rows = x.extent(0);
  require(x.rank() >= 1 && rows > 0 && x.numel() == rows * options.dim, "velocity network: x has shape ",
          x.shape(), "; expected rows of ", options.dim, " features");
  require(t.rank() == 1 && t.extent(0) == rows, "velocity network: t has shape ", t.shape(), "; expected (",
          rows, ",)");
  require(options.classes > 0 || !labels.defined(),
          "velocity network: labels were given to a network without classes");
  const Var flat = reshape(x, {rows, options.dim});
  const Var time = cast(
      options.time_frequencies > 0 ? time_features(t, options.time_frequencies) : reshape(t, {rows, 1}), x.dtype());
  Var h;
  if (options.classes > 0) {
    const Var c = embedding(labels, rows);
    h = concat({&flat, &time, &c}, 1);
  } else {
    h = concat({&flat, &time}, 1);
  }
  if (recompute) {
    const auto depth = static_cast<std::ptrdiff_t>(layers.size()),
               run = static_cast<std::ptrdiff_t>(std::ceil(std::sqrt(static_cast<double>(depth))));
    for (std::ptrdiff_t begin = 0; begin < depth; begin += run) {
      const std::ptrdiff_t end = std::min(begin + run, depth);
      HiddenLayers block{{layers.begin() + begin, layers.begin() + end}, {}, options.residual, begin == 0};
      if (options.norm) block.norms = {norms.begin() + std::max<std::ptrdiff_t>(begin - 1, 0), norms.begin() + end - 1};
      h = recompute_block(block, {h}, [](const HiddenLayers& b, std::span<const Var> in) {
        return hidden_layers(b.layers, b.norms, b.residual, b.first, in[0]);
      });
    }
  } else {
    h = hidden_layers(layers, norms, options.residual, true, h);
  }
  return reshape(output(h), x.shape());
}

VelocityMlp VelocityMlp::recompute_blocks(bool on) const {
  VelocityMlp copy = *this;
  copy.recompute = on;
  return copy;
}

void VelocityMlp::visit(const Visitor& v) {
  v("embedding", embedding);
  v("layers", layers);
  v("norms", norms);
  v("output", output);
}

VelocityMlp make_velocity_mlp(const MlpOptions& o, Init& init) {
  require(o.dim >= 1 && o.hidden >= 1 && o.depth >= 1, "velocity network: dim ", o.dim, ", hidden ", o.hidden,
          ", depth ", o.depth, "; each must be at least 1");
  require(o.classes >= 0 && o.class_width >= 1 && o.time_frequencies >= 0, "velocity network: classes ",
          o.classes, ", class_width ", o.class_width, ", time_frequencies ", o.time_frequencies,
          " are out of range");
  VelocityMlp m;
  m.options = o;
  std::int64_t in = o.dim + (o.time_frequencies > 0 ? 2 * o.time_frequencies : 1);
  if (o.classes > 0) {
    m.embedding = make_class_embedding(init, o.classes, o.class_width);
    in += o.class_width;
  }
  for (int i = 0; i < o.depth; ++i) {
    m.layers.push_back(make_linear(init, i == 0 ? in : o.hidden, o.hidden, o.activation, hidden_gain));
    if (i > 0 && o.norm) m.norms.push_back({Var(init.full({o.hidden}, 1.0)), Var(init.zeros({o.hidden}))});
  }
  m.output = {Var(init.zeros({o.dim, o.hidden})), Var(init.zeros({o.dim}))};
  return m;
}

Var Classifier::features(const Var& x) const {
  Var h = reshape(x, {x.extent(0), -1});
  for (const Linear& layer : layers) h = layer(h);
  return h;
}

Classifier make_classifier(std::int64_t dim, std::int64_t hidden, int depth, std::int64_t classes,
                           Init& init) {
  require(dim >= 1 && hidden >= 1 && depth >= 1 && classes >= 2, "classifier: dim ", dim, ", hidden ", hidden,
          ", depth ", depth, ", classes ", classes, " are out of range");
  Classifier c;
  for (int i = 0; i < depth; ++i)
    c.layers.push_back(make_linear(init, i == 0 ? dim : hidden, hidden, Activation::silu, hidden_gain));
  c.output = make_linear(init, hidden, classes);
  return c;
}

Var log_likelihood(const Var& logits, const Tensor& labels) {
  require(logits.rank() == 2 && labels.rank() == 1 && labels.extent(0) == logits.extent(0) &&
              labels.dtype() == DType::i32,
          "log_likelihood: logits of shape ", logits.shape(), " and labels of ", labels.dtype(), " of shape ",
          labels.shape());
  // The chosen entries by a mask: rows of the identity matrix, one a label.
  const std::int64_t rows = logits.extent(0), classes = logits.extent(1);
  const bool meta = logits.value().is_meta();
  Tensor mask = Tensor::zeros(logits.shape(), logits.dtype(), meta ? Device::meta : Device::cpu);
  if (!meta) {
    const Tensor on_host = labels.to(Device::cpu);
    const auto index = on_host.values<std::int32_t>();
    const auto set = [&](auto values) {
      for (std::int64_t i = 0; i < rows; ++i) {
        require(index[i] >= 0 && index[i] < classes, "log_likelihood: label ", index[i], " is outside 0 to ",
                classes - 1);
        values[i * classes + index[i]] = 1;
      }
    };
    if (mask.dtype() == DType::f32)
      set(mask.mutate<float>());
    else
      set(mask.mutate<double>());
  }
  return sum(mul(log_softmax(logits), Var(mask.to(logits.device()))), 1);
}

Var cross_entropy(const Var& logits, const Tensor& labels) {
  return neg(mean(log_likelihood(logits, labels)));
}

}  // namespace costate::nn
