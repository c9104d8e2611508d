// The UNet of denoising diffusion models (Ho, Jain, Abbeel, arXiv 2006.11239; Dhariwal and Nichol, arXiv
// 2105.05233) with the semantics, options and parameter names of diffusers' UNet2DModel:
//   a convolution in; levels of residual blocks (and attention) with a downsampler between; a middle of two
//   residual blocks about an attention; the levels upwards, each block of which sees the matching output of
//   the way down beside its input; group norm, SiLU and a convolution out.
// Inside, pictures are (n, height, width, channels).
#pragma once
#include <costate/nn/network.h>
#include <costate/nn/timestep.h>
#include <costate/nn/unet/blocks.h>
#include <optional>

namespace costate::nn {

// The keys of a diffusers config.json under their names and with its defaults; nothing is null there that is
// not optional here. Keys that describe data or files (sample_size, ...) are not among them.
struct UNetOptions {
  std::int64_t in_channels = 3, out_channels = 3;
  bool center_input_sample = false;                // x becomes 2 x - 1
  std::string time_embedding_type = "positional";  // or "fourier", "learned"
  std::optional<std::int64_t> time_embedding_dim;  // nothing: 4 block_out_channels[0]
  double freq_shift = 0;        // positional: a_k = t exp(-ln(10000) k / (half - freq_shift))
  bool flip_sin_to_cos = true;  // positional: cosines first
  std::vector<std::string> down_block_types{"DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D",
                                            "AttnDownBlock2D"};
  std::optional<std::string> mid_block_type = "UNetMidBlock2D";  // nothing: no middle
  std::vector<std::string> up_block_types{"AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"};
  std::vector<std::int64_t> block_out_channels{224, 448, 672, 896};
  std::int64_t layers_per_block = 2;
  double mid_block_scale_factor = 1;    // the middle's sums with their inputs are divided by this
  std::int64_t downsample_padding = 1;  // 0: one row of zeros at the bottom and one column at the right
  std::string downsample_type = "conv", upsample_type = "conv";  // of attention blocks; or "resnet"
  double dropout = 0;                                            // in training only: see with_dropout
  std::string act_fn = "silu";  // or "swish" (the same), "relu", "gelu" (by erf)
  // Channels of a head; there are channels / this heads, rounded down. Nothing: one head. Old files that lack
  // the key but name attention layers query, key, value and proj_attn mean nothing, not 8.
  std::optional<std::int64_t> attention_head_dim = 8;
  std::int64_t norm_num_groups = 32;
  std::optional<std::int64_t> attn_norm_num_groups;  // of the middle's attention; nothing: norm_num_groups,
                                                     // but with "scale_shift" no norm
  double norm_eps = 1e-5;
  std::string resnet_time_scale_shift = "default";  // or "scale_shift"
  bool add_attention = true;                        // in the middle
  std::optional<std::string> class_embed_type;      // "timestep", "identity"; nothing: a table, if any
  std::optional<std::int64_t> num_class_embeds;     // rows of the table
  std::optional<std::int64_t> num_train_timesteps;  // rows of the learned table of times

  // Not of diffusers: how t in [0, 1] becomes a timestep, and the row of the table that unlabelled calls use
  // (the null class of classifier-free guidance; nothing: unlabelled calls are refused).
  TimestepMap timestep;
  std::optional<std::int64_t> null_class;
};

// Throws Error(argument) with the key, the index and what would be supported.
void check(const UNetOptions& options);

struct UNet {
  UNetOptions options;
  Conv conv_in, conv_out;
  Var time_table;         // time_proj.weight: frequencies of "fourier" (a buffer), rows of "learned"
  Linear time1, time2;    // time_embedding
  Var class_table;        // class_embedding.weight, (rows, embedding)
  Linear class1, class2;  // class_embedding of "timestep"
  std::vector<unet::Level> down, up;
  std::optional<unet::Level> middle;
  GroupNorm norm_out;
  std::optional<DropoutKey> dropout;  // set: in training
  bool recompute = false;             // compute the blocks' activations again in the sweep, see nn/recompute.h:
                                      // residual blocks, attentions and samplers, one by one

  // What diffusers' network puts out: x (n, height, width, in_channels), timestep (n,) as the network counts
  // it, labels (n,) of i32, for "timestep" also of floating point, for "identity" (n, embedding) -> (n,
  // height, width, out_channels). height and width are multiples of 2^(levels - 1).
  Var raw(const Var& x, const Var& timestep, const Tensor& labels) const;
  // As a network of (x, t in [0, 1], labels): the first in_channels of raw at options.timestep(t), in the
  // shape of x, (n, height, width, in_channels) or, for one channel, (n, height, width).
  Var operator()(const Var& x, const Var& t, const Tensor& labels) const;
  UNet with_dropout(const DropoutKey& key) const;
  UNet recompute_blocks(bool on = true) const;
  void visit(const Visitor& v);
};

// Checks the options first. Weights uniform with variance 1/fan-in; the last layer of every residual branch
// and of the network is zero (as Ho et al. do), so that the first prediction is 0.
UNet make_unet(const UNetOptions& options, Init& init);

}  // namespace costate::nn
