// The parts of a UNet: residual block, attention over pixels, sampler, level.
#pragma once
#include <costate/nn/conv.h>
#include <optional>

namespace costate::nn::unet {

enum class Nonlinearity : std::uint8_t { silu, relu, gelu };

// activation(norm(x) (1 + scale) + shift), in one pass where there is one.
Var activated(const GroupNorm& norm, const Var& x, Nonlinearity a, const Var& scale = {},
              const Var& shift = {});
Var activated(const Var& x, Nonlinearity a);

enum class Resample : std::uint8_t { none, down, up };
Var resampled(const Var& x, Resample r);  // mean of 2 x 2 pixels, or every pixel twice both ways

// Masks of dropout: a seed for every layer from one, see DropoutKey. Probability 0: none.
struct Dropping {
  double probability = 0;
  std::uint64_t seed = 0, first_sample = 0;
  std::uint32_t step = 0;
  Var operator()(const Var& x, std::uint64_t layer) const;
};

// What every residual block of a call sees beside its input.
struct Context {
  Var embedding;  // activation of the embedding of time and class, (n, embedding)
  Dropping dropping;
};

// h = conv1(resample(act(norm1(x)))); s = time_emb_proj(embedding);
// h = act(norm2(h + s)), or act(norm2(h) (1 + s_1) + s_2) with the halves of s when scale_shift;
// (shortcut(resample(x)) + conv2(dropout(h))) / divisor
struct Resnet {
  GroupNorm norm1, norm2;
  Conv conv1, conv2, conv_shortcut;  // conv_shortcut: 1 x 1, undefined when the channels stay the same
  Linear time_emb_proj;
  Nonlinearity act = Nonlinearity::silu;
  Resample resample = Resample::none;
  bool scale_shift = false;
  double divisor = 1;
  std::uint64_t number = 0;  // tells the masks of dropout apart

  Var operator()(const Var& x, const Context& c) const;
  void visit(const Visitor& v);
};

// (x + to_out(attention(q, k, v of norm(x)))) / divisor over the pixels.
struct PixelAttention {
  GroupNorm group_norm;  // undefined: none
  Linear to_q, to_k, to_v, to_out;
  int heads = 1;
  double divisor = 1;

  Var operator()(const Var& x) const;
  void visit(const Visitor& v);
};

// Half or twice the size: a convolution (after every pixel was doubled) or a residual block that resamples.
struct Sampler {
  std::optional<Conv> conv;
  std::optional<Resnet> resnet;
  Resample resample = Resample::none;  // of the convolution

  bool defined() const { return conv || resnet; }
  Var operator()(const Var& x, const Context& c) const;
  void visit(const Visitor& v);
};

// One level of the way down or up, or the middle (whose first residual block has no attention behind it).
struct Level {
  std::vector<Resnet> resnets;
  std::vector<PixelAttention> attentions;  // none, or one a residual block
  std::vector<Sampler> samplers;           // none or one
  std::string_view samplers_name;          // "downsamplers", "upsamplers"

  void visit(const Visitor& v);
};

// How levels are made.
struct Plan {
  std::int64_t embedding = 0;
  int groups = 32;
  double eps = 1e-5;
  Nonlinearity act = Nonlinearity::silu;
  bool scale_shift = false;
  std::uint64_t made = 0;  // residual blocks so far
};
Resnet make_resnet(Init& init, Plan& plan, std::int64_t in, std::int64_t out, double divisor = 1,
                   Resample resample = Resample::none);
// `groups` 0: no norm. Heads of `head_dim` channels, 0: one head.
PixelAttention make_attention(Init& init, const Plan& plan, std::int64_t channels, int groups,
                              std::int64_t head_dim, double divisor = 1);

}  // namespace costate::nn::unet
