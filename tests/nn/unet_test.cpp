// The UNet as a network: time, classes, sizes, dropout, adapters, refusals.
#include "small_unet.h"

#include <costate/nn/lora.h>

#include <cmath>

namespace costate::nn {
namespace {

TEST(UNet, StartsAtZeroWithTheSizeOfDdpmOnCifar) {
  UNetOptions o;
  o.block_out_channels = {128, 256, 256, 256}, o.attention_head_dim = std::nullopt, o.norm_eps = 1e-6;
  o.down_block_types = {"DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"};
  o.up_block_types = {"UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"};
  o.downsample_padding = 0, o.flip_sin_to_cos = false, o.freq_shift = 1;
  Init planned(1, DType::f32, Device::meta);
  const UNet cifar = make_unet(o, planned);
  EXPECT_EQ(parameter_count(cifar), 35746307);  // as published
  EXPECT_EQ(names(cifar).size(), 328u);
  Init init(1);
  const UNet m = make_unet(small_unet(), init);
  const Var x(random_tensor({2, 8, 8, 1}, 1, DType::f32));
  for (const double v : m(x, halves(2, DType::f32), Tensor()).value().to_doubles()) EXPECT_EQ(v, 0);
}

TEST(UNet, IsANetworkOfTimeFromZeroToOne) {
  const UNet m = random_unet(small_unet());
  const Network n = m;
  const Var x(random_tensor({2, 8, 12, 1}, 1)), t(Tensor::from(std::vector<double>{0.25, 0.75}, {2}));
  const Tensor labels = Tensor::from(std::vector<std::int32_t>{2, 0}, {2});
  const Var thousands(Tensor::from(std::vector<double>{250, 750}, {2}));
  EXPECT_TRUE(same_bits(n(x, t, labels).value(), m.raw(x, thousands, labels).value()));
  const Var flat = n(reshape(x, {2, 8, 12}), t, labels);
  EXPECT_EQ(flat.shape(), (Shape{2, 8, 12}));
  EXPECT_EQ(flat.value().to_doubles(), n(x, t, labels).value().to_doubles());
  const Tensor null = Tensor::from(std::vector<std::int32_t>{3, 3}, {2});
  EXPECT_TRUE(same_bits(n(x, t, Tensor()).value(), n(x, t, null).value()));
  EXPECT_GT(largest_difference(n(x, t, Tensor()).value(), n(x, t, labels).value()), 1e-4);
  UNet pretrained = m;
  pretrained.options.timestep = {-999, 999};
  const Var backwards(Tensor::from(std::vector<double>{749.25, 249.75}, {2}));
  EXPECT_TRUE(same_bits(pretrained(x, t, labels).value(), m.raw(x, backwards, labels).value()));
  // Each row on its own. 1e-13: sums in another order.
  const Var second = n(Var(x.value().slice(1, 1)), Var(t.value().slice(1, 1)), labels.slice(1, 1));
  EXPECT_LE(largest_difference(second.value(), n(x, t, labels).value().slice(1, 1)), 1e-13);
  // A variance that is put out too is no part of the prediction.
  UNetOptions o = small_unet();
  o.out_channels = 2;
  const UNet both = random_unet(o);
  EXPECT_TRUE(same_bits(both(x, t, labels).value(), narrow(both.raw(x, thousands, labels), 3, 0, 1).value()));
}

TEST(UNet, DropoutInTrainingOnly) {
  UNetOptions o = small_unet();
  o.dropout = 0.3;
  const Network n = random_unet(o);
  const Var x(random_tensor({4, 8, 8, 1}, 1)), t = halves(4);
  const Tensor still = n(x, t, Tensor()).value();
  const DropoutKey key{7, 100, 5};
  const Tensor a = n.with_dropout(key)(x, t, Tensor()).value();
  EXPECT_TRUE(same_bits(a, n.with_dropout(key)(x, t, Tensor()).value()));
  EXPECT_GT(largest_difference(a, still), 1e-3);
  EXPECT_GT(largest_difference(a, n.with_dropout({7, 100, 6})(x, t, Tensor()).value()), 1e-3);
  EXPECT_GT(largest_difference(a, n.with_dropout({8, 100, 5})(x, t, Tensor()).value()), 1e-3);
  // The masks of a sample do not depend on the batch it is in.
  const Var tail(x.value().slice(2, 2));
  const Tensor b = n.with_dropout({7, 102, 5})(tail, halves(2), Tensor()).value();
  EXPECT_LE(largest_difference(b, a.slice(2, 2)), 1e-13);
  // Without probability, and in models without dropout, a key changes nothing.
  const Network plain = random_unet(small_unet());
  EXPECT_TRUE(same_bits(plain.with_dropout(key)(x, t, Tensor()).value(), plain(x, t, Tensor()).value()));
}

TEST(UNet, TakesAdaptersInConvolutionsAndLinearLayers) {
  const UNet m = random_unet(small_unet());
  LoraOptions lora;
  lora.rank = 2, lora.targets = {"to_q", "to_k", "to_v", "to_out.0"};
  EXPECT_EQ(names(Adapters{with_lora(m, lora)}).size(), 2u * 4 * 4);  // down 1, middle 1, up 2
  lora.targets = {"conv1"};
  UNet tuned = with_lora(m, lora);
  const Var x(random_tensor({2, 8, 8, 1}, 1)), t = halves(2);
  EXPECT_LE(largest_difference(tuned(x, t, Tensor()).value(), m(x, t, Tensor()).value()),
            1e-14);  // B starts at zero
  std::uint32_t n = 50;
  visit_layers(tuned, [&](const std::string&, Var&, Lora& l, int) {
    if (l.defined()) l.up = affine(Var(random_tensor(l.up.shape(), n++)), 0.1, 0.0);
  });
  const Tensor with = tuned(x, t, Tensor()).value();
  EXPECT_GT(largest_difference(with, m(x, t, Tensor()).value()), 1e-3);
  // 1e-12: the same products in another order.
  EXPECT_LE(largest_difference(with, merged(tuned)(x, t, Tensor()).value()), 1e-12);
}

TEST(UNet, RefusesInWords) {
  Init init(1, DType::f32, Device::meta);
  const auto with = [&](const auto& change, const std::string& words) {
    UNetOptions o = small_unet();
    change(o);
    expect_error(Fault::argument, words, [&] { make_unet(o, init); });
  };
  for (const char* type : {"SkipDownBlock2D", "KDownBlock2D", "CrossAttnDownBlock2D",
                           "SimpleCrossAttnDownBlock2D", "AttnSkipDownBlock2D", "UpBlock2D", ""})
    with([&](UNetOptions& o) { o.down_block_types[1] = type; },
         "down_block_types[1] is '" + std::string(type) + "'");
  with([](UNetOptions& o) { o.up_block_types[0] = "CrossAttnUpBlock2D"; },
       "up_block_types[0] is 'CrossAttnUpBlock2D'");
  with([](UNetOptions& o) { o.mid_block_type = "UNetMidBlock2DCrossAttn"; },
       "mid_block_type is 'UNetMidBlock2DCrossAttn'");
  with([](UNetOptions& o) { o.act_fn = "mish"; }, "act_fn is 'mish'");
  with([](UNetOptions& o) { o.time_embedding_type = "sine"; }, "time_embedding_type is 'sine'");
  with([](UNetOptions& o) { o.time_embedding_type = "learned"; }, "num_train_timesteps is missing");
  with([](UNetOptions& o) { o.resnet_time_scale_shift = "spatial"; }, "resnet_time_scale_shift is 'spatial'");
  with([](UNetOptions& o) { o.downsample_type = "fir"; }, "downsample_type is 'fir'");
  with([](UNetOptions& o) { o.upsample_type = "fir"; }, "upsample_type is 'fir'");
  with([](UNetOptions& o) { o.downsample_padding = 2; }, "downsample_padding is 2");
  with([](UNetOptions& o) { o.block_out_channels = {8, 18}; }, "block_out_channels[1] is 18");
  with([](UNetOptions& o) { o.block_out_channels = {8, 16, 16}; }, "all three must agree");
  with([](UNetOptions& o) { o.block_out_channels = {}; }, "block_out_channels is empty");
  with([](UNetOptions& o) { o.attention_head_dim = 32; },
       "attention_head_dim 32 is more than the 16 channels");
  with([](UNetOptions& o) { o.attn_norm_num_groups = 3; }, "attn_norm_num_groups 3");
  with([](UNetOptions& o) { o.class_embed_type = "projection"; }, "class_embed_type is 'projection'");
  with([](UNetOptions& o) { o.dropout = 1; }, "dropout is 1");
  with([](UNetOptions& o) { o.null_class = 4; }, "null_class 4");
  with([](UNetOptions& o) { o.layers_per_block = 0; }, "layers_per_block is 0");
  with([](UNetOptions& o) { o.mid_block_scale_factor = 0; }, "mid_block_scale_factor is 0");
  with([](UNetOptions& o) { o.freq_shift = 4; }, "freq_shift is 4");

  const UNet m = random_unet(small_unet(), DType::f32);
  const Var x(Tensor::zeros({2, 8, 8, 1})), t(Tensor::zeros({2}));
  expect_error(Fault::argument, "multiples of 2", [&] { m(Var(Tensor::zeros({2, 8, 7, 1})), t, Tensor()); });
  expect_error(Fault::argument, "(rows, height, width, 1)", [&] {
    m(Var(Tensor::zeros({2, 8, 8, 3})), t, Tensor());
  });
  expect_error(Fault::argument, "t has shape (3,)", [&] { m(x, Var(Tensor::zeros({3})), Tensor()); });
  expect_error(Fault::argument, "i32 of shape (2,)", [&] { m(x, t, Tensor::zeros({2})); });
  expect_error(Fault::argument, "make_unet", [&] { UNet()(Var(Tensor::zeros({2, 8, 8, 3})), t, Tensor()); });
  UNetOptions o = small_unet();
  o.null_class = std::nullopt;
  const UNet pretrained = random_unet(o, DType::f32);
  expect_error(Fault::argument, "without a null_class", [&] { pretrained(x, t, Tensor()); });
  o.num_class_embeds = std::nullopt;
  const UNet plain = random_unet(o, DType::f32);
  expect_error(Fault::argument, "without classes", [&] {
    plain(x, t, Tensor::from(std::vector<std::int32_t>{0, 1}, {2}));
  });
  o.time_embedding_type = "learned", o.num_train_timesteps = 1000;
  const UNet table = random_unet(o, DType::f32);
  expect_error(Fault::argument, "0 to 999", [&] { table(x, Var(Tensor::full({2}, 1.0)), Tensor()); });
}

}  // namespace
}  // namespace costate::nn
