// Diffusion transformer (Peebles and Xie, arXiv 2212.09748) with adaLN-zero conditioning:
//   h = patches(x) W + b + positions,  c = mlp(sinusoids(timestep)) + class vector,
//   (shift, scale, gate | shift', scale', gate') = Linear(SiLU(c)) for every block:
//   h += gate * attention(LN(h) (1 + scale) + shift),  h += gate' * mlp(LN(h) (1 + scale') + shift'),
//   y = unpatch(Linear(LN(h) (1 + scale) + shift)).
// Parameters have the names of the original checkpoints; q, k and v are the thirds of one matrix.
#pragma once
#include <costate/nn/embed.h>
#include <costate/nn/timestep.h>

namespace costate::nn {

// Two implementations of the same checkpoints differ numerically. Values of both are kept, never mixed.
struct DitDialect {
  double frequency_shift;  // of the timestep's sinusoids: exp(-ln(10000) k / (128 - shift))
  double mlp_norm_eps;     // of the layer norm before the MLP; all others have 1e-6
};
inline constexpr DitDialect facebook_dialect{0.0, 1e-6};
inline constexpr DitDialect diffusers_dialect{1.0, 1e-5};

struct DitOptions {
  std::int64_t channels = 3, height = 32, width = 32;  // of a picture
  std::int64_t patch = 2;                              // side of a patch; divides height and width
  std::int64_t hidden = 384;                           // width of a token, a multiple of 4 and of `heads`
  int depth = 12, heads = 6;
  double mlp_ratio = 4.0;    // hidden features of an MLP = mlp_ratio * hidden, a whole number
  std::int64_t classes = 0;  // 0: unconditional; the table has a further row, the null class
  bool learn_sigma = false;  // twice the channels come out: the prediction, then the variance
  DitDialect dialect = facebook_dialect;
  TimestepMap timestep;
};

struct DitBlock {
  Linear qkv, proj, fc1, fc2;
  Linear modulation;  // (6 hidden, hidden): shift, scale, gate of attention, then of the MLP
  // h (n, tokens, hidden), silu_c (n, hidden)
  Var operator()(const Var& h, const Var& silu_c, int heads, const DitDialect& dialect) const;
  void visit(const Visitor& v);
};

struct Dit {
  DitOptions options;
  Var patch_weight, patch_bias;  // (hidden, patch, patch, channels), (hidden,)
  Var positions;                 // (1, tokens, hidden): a buffer, not trained
  Linear time0, time2;           // 256 -> hidden -> hidden, SiLU between
  ClassEmbedding classes;        // undefined without classes
  std::vector<DitBlock> blocks;
  Linear modulation, output;  // of the final layer: shift and scale; patch^2 out_channels, channel fastest
  bool recompute = false;     // compute the blocks' activations again in the sweep, see nn/recompute.h

  // Everything that the network puts out: x (n, height, width, channels), timestep (n,) as the network counts
  // it, labels (n,) of i32 or undefined (the null class) -> (n, height, width, channels or, with learn_sigma,
  // twice that).
  Var raw(const Var& x, const Var& timestep, const Tensor& labels) const;
  // As a network of (x, t in [0, 1], labels): the first `channels` of raw at options.timestep(t), in the
  // shape of x, which is (n, height, width, channels) or, for one channel, (n, height, width). Guidance
  // combines all of these channels.
  Var operator()(const Var& x, const Var& t, const Tensor& labels) const;
  Dit recompute_blocks(bool on = true) const;
  void visit(const Visitor& v);
};

// Throws Error(argument) that names the option. Linear layers are uniform as Glorot and Bengio 2010 have it,
// vectors of time and class normal with deviation 0.02, modulations and the last layer zero: the first
// prediction is 0 and every block the identity.
Dit make_dit(const DitOptions& options, Init& init);
void check(const DitOptions& options);

// (1, height width, hidden) in f32: sinusoids of the column in the first half of the channels, of the row in
// the second, each [sin(p w_k), cos(p w_k)] with w_k = 10000^(-k / (hidden/4)).
Tensor sinusoidal_positions(std::int64_t height, std::int64_t width, std::int64_t hidden);

}  // namespace costate::nn
