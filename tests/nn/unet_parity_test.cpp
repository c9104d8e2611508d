// The UNet against diffusers' UNet2DModel (tests/reference/make_unet_fixtures.py): seven configurations that
// between them use every option.
#include "parity.h"

#include <costate/nn/unet.h>

namespace costate::nn {
namespace {

struct Case {
  std::string name;
  UNetOptions options;
  Shape x;
  std::vector<double> t;
  Tensor labels;
};

UNetOptions two_levels() {
  UNetOptions o;
  o.block_out_channels = {8, 16}, o.layers_per_block = 1, o.norm_num_groups = 4;
  o.down_block_types = {"DownBlock2D", "AttnDownBlock2D"};
  o.up_block_types = {"AttnUpBlock2D", "UpBlock2D"};
  return o;
}

Case golden() {
  UNetOptions o = two_levels();
  o.flip_sin_to_cos = false, o.freq_shift = 1, o.downsample_padding = 0, o.norm_eps = 1e-6;
  o.attention_head_dim = std::nullopt;
  return {"golden", o, {2, 3, 8, 8}, {7, 250}, Tensor()};
}

std::vector<Case> cases() {
  UNetOptions heads;
  heads.in_channels = heads.out_channels = 1;
  heads.block_out_channels = {8, 12, 16}, heads.norm_num_groups = 4, heads.attention_head_dim = 4;
  heads.num_class_embeds = 5, heads.mid_block_scale_factor = 1.4142135623730951;
  heads.down_block_types = {"DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"};
  heads.up_block_types = {"UpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D"};

  UNetOptions scale_shift = two_levels();
  scale_shift.out_channels = 6, scale_shift.center_input_sample = true;
  scale_shift.resnet_time_scale_shift = "scale_shift", scale_shift.class_embed_type = "timestep";
  scale_shift.downsample_type = scale_shift.upsample_type = "resnet";
  scale_shift.down_block_types = {"AttnDownBlock2D", "AttnDownBlock2D"};
  scale_shift.up_block_types = {"AttnUpBlock2D", "AttnUpBlock2D"};

  UNetOptions fourier = two_levels();
  fourier.time_embedding_type = "fourier", fourier.time_embedding_dim = 20, fourier.add_attention = false;
  fourier.downsample_padding = 0;
  fourier.down_block_types = {"DownBlock2D", "DownBlock2D"};
  fourier.up_block_types = {"UpBlock2D", "UpBlock2D"};

  UNetOptions learned = two_levels();
  learned.time_embedding_type = "learned", learned.num_train_timesteps = 20,
  learned.class_embed_type = "identity";
  learned.resnet_time_scale_shift = "scale_shift", learned.attn_norm_num_groups = 2, learned.act_fn = "relu";

  UNetOptions odd;
  odd.in_channels = odd.out_channels = 2, odd.block_out_channels = {9, 12, 15}, odd.layers_per_block = 1;
  odd.norm_num_groups = 3, odd.attention_head_dim = 3, odd.freq_shift = 1, odd.act_fn = "gelu";
  odd.mid_block_type = std::nullopt;
  odd.down_block_types = {"ResnetDownsampleBlock2D", "UNetResAttnDownBlock2D", "DownBlock2D"};
  odd.up_block_types = {"UpBlock2D", "UNetResAttnUpBlock2D", "ResnetUpsampleBlock2D"};

  UNetOptions digits;
  digits.in_channels = digits.out_channels = 1, digits.block_out_channels = {8, 8, 16};
  digits.norm_num_groups = 4, digits.attention_head_dim = std::nullopt, digits.dropout = 0.1;
  digits.down_block_types = {"DownBlock2D", "DownBlock2D", "AttnDownBlock2D"};
  digits.up_block_types = {"AttnUpBlock2D", "UpBlock2D", "UpBlock2D"};

  const auto classes = [](std::vector<std::int32_t> l) { return Tensor::from(l, {2}); };
  const Tensor vectors = by_rule({2, 32}, DType::f64, [](double i) { return std::sin(0.2 * i + 0.5); });
  return {golden(),
          {"heads", heads, {2, 1, 16, 16}, {3, 999}, classes({2, 4})},
          {"scale_shift", scale_shift, {2, 3, 8, 8}, {12, 500}, classes({3, 9})},
          {"fourier", fourier, {2, 3, 12, 8}, {0.5, 3.0}, Tensor()},
          {"learned", learned, {2, 3, 8, 8}, {3, 19}, vectors},
          {"odd", odd, {2, 2, 8, 8}, {1, 77}, Tensor()},
          {"digits", digits, {2, 1, 28, 28}, {20, 640}, Tensor()}};
}

UNet network(const Case& c, DType dtype) {
  Init init(1, dtype);
  return filled(make_unet(c.options, init));
}
Computed computed(const Case& c, const UNet& m, DType dtype) {
  return compute(m, c.x, dtype, [&](const UNet& tracked, const Var& x) {
    const auto rows = static_cast<std::int64_t>(c.t.size());
    return tracked.raw(x, Var(Tensor::from(c.t, {rows}).to(dtype)), c.labels);
  });
}
Computed computed(const Case& c, DType dtype) { return computed(c, network(c, dtype), dtype); }

TEST(UNetParity, DoublePrecision) {
  // 1e-9 is the requirement; what is left of it is the last bits of sines and exponentials.
  for (const Case& c : cases()) expect_parity(computed(c, DType::f64), "unet_" + c.name, 1e-9, 1e-9, 1e-12);
}

TEST(UNetParity, SinglePrecision) {
  for (const Case& c : cases()) {
    // 1e-5 of the largest element is the requirement. The gradients of some of these networks, whose
    // parameters are a sine and no training's, amplify a rounding of the parameters to more than that in any
    // implementation (in PyTorch's too): there, four times what such a rounding does in double precision.
    const Computed exact = computed(c, DType::f64);
    double sensitivity = 0;
    for (std::uint32_t draw = 0; draw < 4; ++draw) {
      const Computed moved = computed(c, perturbed(network(c, DType::f64), 1000 * draw), DType::f64);
      sensitivity = std::max(sensitivity, change(exact.dx, moved.dx));
    }
    EXPECT_LT(sensitivity, 1e-4) << c.name;
    expect_parity(computed(c, DType::f32), "unet_" + c.name, 1e-5, std::max(1e-5, 4 * sensitivity), 1e-6);
  }
}

TEST(UNetParity, GoldenVectorFromTheFillRuleAlone) {
  const Computed r = computed(golden(), DType::f64);
  // Published with twelve decimals.
  const double first[] = {.228964712988, .585405370048, .772982618715,
                          .668759986658, .456533161052, .277527556502};
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(r.y[i], first[i], 1e-11);
  const double last[] = {.020321708547, .065420406895, .009372063953};  // y[1, 2, 7, 5:]
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(r.y[r.y.size() - 3 + i], last[i], 1e-11);
  double sum = 0, squares = 0, dx = 0;
  for (const double v : r.y) sum += v, squares += v * v;
  for (const double v : r.dx) dx += v * v;
  EXPECT_NEAR(sum, -7.038483385636, 1e-10);
  EXPECT_NEAR(std::sqrt(squares), 6.786045221787, 1e-11);
  EXPECT_NEAR(r.loss, -10.172470659423, 1e-10);
  EXPECT_NEAR(r.dx[0], .865824526704, 1e-9);
  EXPECT_NEAR(r.dx[1], .829934143615, 1e-9);
  EXPECT_NEAR(r.dx[2], -.056697504511, 1e-9);
  EXPECT_NEAR(std::sqrt(dx), 37.711445582761, 1e-9 * 37.7);
  EXPECT_NEAR(r.total, 1394.912788309837, 1e-9 * 1394);
  const auto conv_in = r.gradients.at("conv_in.weight").to_doubles();
  EXPECT_NEAR(conv_in[0], -26.432071125680, 1e-8);
  EXPECT_NEAR(conv_in[1], -17.392954514406, 1e-8);
  EXPECT_NEAR(conv_in[2], -.516554116797, 1e-8);
  std::int64_t count = 0;
  for (const auto& [name, g] : r.gradients) count += g.numel();
  EXPECT_EQ(r.gradients.size(), 144u);
  EXPECT_EQ(count, 45259);
}

}  // namespace
}  // namespace costate::nn
