#include <costate/nn/unet/blocks.h>

namespace costate::nn::unet {
namespace {

// x / divisor
Var divided(Var x, double divisor) { return divisor == 1 ? x : affine(x, 1 / divisor, 0.0); }

}  // namespace

Var activated(const Var& x, Nonlinearity a) {
  switch (a) {
    case Nonlinearity::relu:
      return relu(x);
    case Nonlinearity::gelu:
      return gelu_erf(x);
    default:
      return silu(x);
  }
}

Var activated(const GroupNorm& norm, const Var& x, Nonlinearity a, const Var& scale, const Var& shift) {
  switch (a) {
    case Nonlinearity::silu:
      return norm(x, Activation::silu, scale, shift);
    case Nonlinearity::relu:
      return norm(x, Activation::relu, scale, shift);
    default:
      return activated(norm(x, Activation::none, scale, shift), a);
  }
}

Var resampled(const Var& x, Resample r) {
  switch (r) {
    case Resample::down:
      return average_pool(x, 2);
    case Resample::up:
      return upsample_nearest(x, 2);
    default:
      return x;
  }
}

Var Dropping::operator()(const Var& x, std::uint64_t layer) const {
  if (probability == 0) return x;
  return dropout(x, probability, seed ^ (0x9E3779B97F4A7C15u * (layer + 1)), first_sample, step);
}

Var Resnet::operator()(const Var& x, const Context& c) const {
  const Var h = conv1(resampled(activated(norm1, x, act), resample));
  const Var s = time_emb_proj(c.embedding);
  const std::int64_t out = h.extent(3);
  const Var z = scale_shift ? activated(norm2, h, act, narrow(s, 1, 0, out), narrow(s, 1, out, out))
                            : activated(norm2, add(h, reshape(s, {s.extent(0), 1, 1, out})), act);
  const Var branch = conv2(c.dropping(z, number));
  const Var in = resampled(x, resample);
  return divided(add(conv_shortcut.weight.defined() ? conv_shortcut(in) : in, branch), divisor);
}

void Resnet::visit(const Visitor& v) {
  v("norm1", norm1);
  v("conv1", conv1);
  v("time_emb_proj", time_emb_proj);
  v("norm2", norm2);
  v("conv2", conv2);
  if (conv_shortcut.weight.defined()) v("conv_shortcut", conv_shortcut);
}

Var PixelAttention::operator()(const Var& x) const {
  const std::int64_t n = x.extent(0), channels = x.extent(3);
  const Var tokens = reshape(group_norm.defined() ? group_norm(x) : x, {n, -1, channels});
  const Var y = to_out(attention(to_q(tokens), to_k(tokens), to_v(tokens), heads));
  return divided(add(x, reshape(y, x.shape())), divisor);
}

void PixelAttention::visit(const Visitor& v) {
  v("group_norm", group_norm);
  v("to_q", to_q);
  v("to_k", to_k);
  v("to_v", to_v);
  v("to_out.0", to_out);
}

Var Sampler::operator()(const Var& x, const Context& c) const {
  if (resnet) return (*resnet)(x, c);
  return (*conv)(resample == Resample::up ? resampled(x, resample) : x);
}

void Sampler::visit(const Visitor& v) {
  if (resnet) resnet->visit(v);
  if (conv) v("conv", *conv);
}

void Level::visit(const Visitor& v) {
  v("attentions", attentions);
  v("resnets", resnets);
  v(samplers_name, samplers);
}

Resnet make_resnet(Init& init, Plan& plan, std::int64_t in, std::int64_t out, double divisor,
                   Resample resample) {
  Resnet r;
  r.norm1 = make_group_norm(init, in, plan.groups, plan.eps);
  r.conv1 = make_conv(init, in, out, 3);
  r.time_emb_proj = make_linear(init, plan.embedding, plan.scale_shift ? 2 * out : out);
  r.norm2 = make_group_norm(init, out, plan.groups, plan.eps);
  r.conv2 = make_conv(init, out, out, 3, 0.0);
  if (in != out) r.conv_shortcut = make_conv(init, in, out, 1);
  r.act = plan.act, r.resample = resample, r.scale_shift = plan.scale_shift, r.divisor = divisor;
  r.number = plan.made++;
  return r;
}

PixelAttention make_attention(Init& init, const Plan& plan, std::int64_t channels, int groups,
                              std::int64_t head_dim, double divisor) {
  PixelAttention a;
  if (groups > 0) a.group_norm = make_group_norm(init, channels, groups, plan.eps);
  const std::int64_t width = head_dim == 0 ? channels : head_dim, heads = channels / width;
  a.heads = static_cast<int>(heads);
  a.to_q = make_linear(init, channels, heads * width);
  a.to_k = make_linear(init, channels, heads * width);
  a.to_v = make_linear(init, channels, heads * width);
  a.to_out = {Var(init.zeros({channels, heads * width})), Var(init.zeros({channels}))};
  a.divisor = divisor;
  return a;
}

}  // namespace costate::nn::unet
