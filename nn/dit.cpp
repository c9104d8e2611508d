#include <costate/nn/dit.h>
#include <costate/nn/image.h>
#include <costate/nn/recompute.h>

#include <cmath>

namespace costate::nn {
namespace {

constexpr std::int64_t frequency_features = 256;
constexpr double norm_eps = 1e-6;

std::int64_t mlp_features(const DitOptions& o) {
  return std::llround(o.mlp_ratio * static_cast<double>(o.hidden));
}

// Glorot and Bengio 2010: uniform with variance 2 / (in + out).
Linear glorot(Init& init, std::int64_t in, std::int64_t out, Activation activation = Activation::none) {
  return {Var(init.uniform({out, in}, in + out, std::sqrt(2.0))), Var(init.zeros({out})), activation};
}
Linear normal(Init& init, std::int64_t in, std::int64_t out, Activation activation = Activation::none) {
  return {Var(init.normal({out, in}, 0.02)), Var(init.zeros({out})), activation};
}
Linear zero(Init& init, std::int64_t in, std::int64_t out) {
  return {Var(init.zeros({out, in})), Var(init.zeros({out}))};
}

// Part i of `parts` equal ones of the last axis.
Var part(const Var& x, int i, int parts) {
  const std::int64_t width = x.extent(-1) / parts;
  return narrow(x, x.rank() - 1, i * width, width);
}

// h + gate * branch with one gate (n, hidden) a picture.
Var gated(const Var& h, const Var& gate, const Var& branch) {
  return multiply_add(reshape(gate, {gate.extent(0), 1, gate.extent(1)}), branch, h);
}

}  // namespace

Var DitBlock::operator()(const Var& h, const Var& silu_c, int heads, const DitDialect& dialect) const {
  const Var m = modulation(silu_c);
  const Var mixed = attention(qkv(modulated_layer_norm(h, part(m, 1, 6), part(m, 0, 6), norm_eps)), heads);
  const Var z = gated(h, part(m, 2, 6), proj(mixed));
  return gated(z, part(m, 5, 6),
               fc2(fc1(modulated_layer_norm(z, part(m, 4, 6), part(m, 3, 6), dialect.mlp_norm_eps))));
}

void DitBlock::visit(const Visitor& v) {
  v("attn.qkv", qkv);
  v("attn.proj", proj);
  v("mlp.fc1", fc1);
  v("mlp.fc2", fc2);
  v("adaLN_modulation.1", modulation);
}

Var Dit::raw(const Var& x, const Var& timestep, const Tensor& labels) const {
  const DitOptions& o = options;
  require(static_cast<int>(blocks.size()) == o.depth && positions.defined(), "DiT: it has ", blocks.size(),
          " blocks; make it with make_dit");
  require(x.rank() == 4 && x.extent(0) > 0 && x.extent(1) == o.height && x.extent(2) == o.width &&
              x.extent(3) == o.channels,
          "DiT: x has shape ", x.shape(), "; expected (rows, ", o.height, ", ", o.width, ", ", o.channels,
          ")");
  const std::int64_t n = x.extent(0), p = o.patch, rows = o.height / p, columns = o.width / p;
  check_rows(timestep, n, "the timestep", "DiT");
  require(o.classes > 0 || !labels.defined(), "DiT: labels were given to a network without classes");

  // A patch is a row of p p channels numbers, channel fastest, and so is a filter: the convolution is a
  // product.
  const Var patches = reshape(permute(reshape(x, {n, rows, p, columns, p, o.channels}), {0, 1, 3, 2, 4, 5}),
                              {n, rows * columns, p * p * o.channels});
  Var h = add(linear(patches, reshape(patch_weight, {o.hidden, -1}), patch_bias),
              cast(positions, x.dtype()));
  Var c = time2(
      time0(cast(timestep_features(timestep, frequency_features, true, o.dialect.frequency_shift), x.dtype())));
  if (o.classes > 0) c = add(c, classes(labels, n));
  c = silu(c);
  for (const DitBlock& block : blocks)
    h = recompute ? recompute_block(block, {h, c},
                                    [heads = o.heads, dialect = o.dialect](const DitBlock& b, std::span<const Var> in) {
                                      return b(in[0], in[1], heads, dialect);
                                    })
                  : block(h, c, o.heads, o.dialect);
  const Var m = modulation(c);
  const Var y = output(modulated_layer_norm(h, part(m, 1, 2), part(m, 0, 2), norm_eps));
  const std::int64_t out = o.learn_sigma ? 2 * o.channels : o.channels;
  return reshape(permute(reshape(y, {n, rows, columns, p, p, out}), {0, 1, 3, 2, 4, 5}),
                 {n, o.height, o.width, out});
}

Var Dit::operator()(const Var& x, const Var& t, const Tensor& labels) const {
  const Var pictures = as_pictures(x, options.height, options.width, options.channels, "DiT");
  check_rows(t, x.extent(0), "t", "DiT");
  const Var y = raw(pictures, options.timestep(t), labels);
  return reshape(options.learn_sigma ? narrow(y, 3, 0, options.channels) : y, x.shape());
}

Dit Dit::recompute_blocks(bool on) const {
  Dit copy = *this;
  copy.recompute = on;
  return copy;
}

void Dit::visit(const Visitor& v) {
  v.buffer("pos_embed", positions);
  v("x_embedder.proj.weight", patch_weight);
  v("x_embedder.proj.bias", patch_bias);
  v("t_embedder.mlp.0", time0);
  v("t_embedder.mlp.2", time2);
  v("y_embedder.embedding_table.weight", classes.table);
  v("blocks", blocks);
  v("final_layer.adaLN_modulation.1", modulation);
  v("final_layer.linear", output);
}

void check(const DitOptions& o) {
  require(o.channels >= 1 && o.height >= 1 && o.width >= 1, "DiT: pictures of ", o.height, " x ", o.width,
          " x ", o.channels, " (height, width, channels); each must be at least 1");
  require(o.patch >= 1 && o.height % o.patch == 0 && o.width % o.patch == 0, "DiT: patch ", o.patch,
          " does not divide the picture's ", o.height, " x ", o.width, " pixels");
  require(o.hidden >= 4 && o.hidden % 4 == 0, "DiT: hidden ", o.hidden,
          " is not a multiple of 4, which the positions need");
  require(o.heads >= 1 && o.hidden % o.heads == 0, "DiT: hidden ", o.hidden, " cannot be cut into heads ",
          o.heads);
  require(o.depth >= 1, "DiT: depth ", o.depth, "; expected at least 1");
  const double features = o.mlp_ratio * static_cast<double>(o.hidden);
  require(
      o.mlp_ratio > 0 && features < 1e9 && std::abs(features - std::round(features)) < 1e-9 && features >= 1,
      "DiT: mlp_ratio ", o.mlp_ratio, " times hidden ", o.hidden, " is not a whole number of features");
  require(o.classes >= 0, "DiT: classes ", o.classes, "; expected 0 or more");
}

Dit make_dit(const DitOptions& o, Init& init) {
  check(o);
  Dit m;
  m.options = o;
  const std::int64_t d = o.hidden, patch = o.patch * o.patch * o.channels;
  m.patch_weight = reshape(glorot(init, patch, d).weight, {d, o.patch, o.patch, o.channels});
  m.patch_bias = Var(init.zeros({d}));
  // Through Init for the element type and the device.
  m.positions = Var(init.zeros({1, (o.height / o.patch) * (o.width / o.patch), d}));
  const Tensor table = sinusoidal_positions(o.height / o.patch, o.width / o.patch, d);
  if (!m.positions.value().is_meta())
    m.positions.value().copy_from(table.to(m.positions.dtype()).to(m.positions.device()));
  m.time0 = normal(init, frequency_features, d, Activation::silu);
  m.time2 = normal(init, d, d);
  if (o.classes > 0) m.classes = {Var(init.normal({o.classes + 1, d}, 0.02))};
  for (int i = 0; i < o.depth; ++i)
    m.blocks.push_back({glorot(init, d, 3 * d), glorot(init, d, d),
                        glorot(init, d, mlp_features(o), Activation::gelu_tanh),
                        glorot(init, mlp_features(o), d), zero(init, d, 6 * d)});
  m.modulation = zero(init, d, 2 * d);
  m.output = zero(init, d, o.patch * o.patch * o.channels * (o.learn_sigma ? 2 : 1));
  return m;
}

Tensor sinusoidal_positions(std::int64_t height, std::int64_t width, std::int64_t hidden) {
  require(height >= 1 && width >= 1 && hidden >= 4 && hidden % 4 == 0, "sinusoidal_positions: a grid of ",
          height, " x ", width, " with ", hidden,
          " channels; expected at least one position and a multiple of 4 channels");
  const std::int64_t quarter = hidden / 4;
  std::vector<float> table(static_cast<std::size_t>(height * width * hidden));
  for (std::int64_t row = 0; row < height; ++row)
    for (std::int64_t column = 0; column < width; ++column) {
      float* out = table.data() + (row * width + column) * hidden;
      for (std::int64_t k = 0; k < quarter; ++k) {
        const double w = std::pow(10000.0, -static_cast<double>(k) / static_cast<double>(quarter));
        out[k] = static_cast<float>(std::sin(static_cast<double>(column) * w));
        out[quarter + k] = static_cast<float>(std::cos(static_cast<double>(column) * w));
        out[2 * quarter + k] = static_cast<float>(std::sin(static_cast<double>(row) * w));
        out[3 * quarter + k] = static_cast<float>(std::cos(static_cast<double>(row) * w));
      }
    }
  return Tensor::from(table, {1, height * width, hidden});
}

}  // namespace costate::nn
