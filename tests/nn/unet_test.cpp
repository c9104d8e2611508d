// The UNet as a network: time, classes, sizes, dropout, adapters, refusals; what a frozen network costs.
#include "nn_support.h"

#include <costate/nn/dit.h>
#include <costate/nn/lora.h>
#include <costate/nn/optim.h>
#include <costate/nn/unet.h>

#include <cmath>

namespace costate::nn {
namespace {

UNetOptions small() {
  UNetOptions o;
  o.in_channels = o.out_channels = 1, o.block_out_channels = {8, 16}, o.layers_per_block = 1,
  o.norm_num_groups = 4;
  o.down_block_types = {"DownBlock2D", "AttnDownBlock2D"};
  o.up_block_types = {"AttnUpBlock2D", "UpBlock2D"};
  o.num_class_embeds = 4, o.null_class = 3;
  return o;
}
// As made, the last layers of branches are zero: every parameter random instead, small enough for a mild
// network.
template <class Model>
Model randomised(Model m) {
  std::uint32_t n = 0;
  visit(m, [&](const std::string& name, Var& p) {
    const bool scale = name.find("norm") != std::string::npos && name.ends_with("weight");
    p = affine(Var(random_tensor(p.shape(), n++, p.dtype())), 0.1, scale ? 1.0 : 0.0);
  });
  return m;
}
UNet random_unet(const UNetOptions& o, DType dtype = DType::f64, Device device = Device::cpu) {
  Init init(3, dtype, device);
  return randomised(make_unet(o, init));
}
double largest_difference(const Tensor& a, const Tensor& b) {
  const auto u = a.to_doubles(), v = b.to_doubles();
  double d = 0;
  for (std::size_t i = 0; i < u.size(); ++i) d = std::max(d, std::abs(u[i] - v[i]));
  return d;
}
Var halves(std::int64_t rows, DType dtype = DType::f64) { return Var(Tensor::full({rows}, 0.5, dtype)); }

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
  const UNet m = make_unet(small(), init);
  const Var x(random_tensor({2, 8, 8, 1}, 1, DType::f32));
  for (const double v : m(x, halves(2, DType::f32), Tensor()).value().to_doubles()) EXPECT_EQ(v, 0);
}

TEST(UNet, IsANetworkOfTimeFromZeroToOne) {
  const UNet m = random_unet(small());
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
  UNetOptions o = small();
  o.out_channels = 2;
  const UNet both = random_unet(o);
  EXPECT_TRUE(same_bits(both(x, t, labels).value(), narrow(both.raw(x, thousands, labels), 3, 0, 1).value()));
}

TEST(UNet, DropoutInTrainingOnly) {
  UNetOptions o = small();
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
  const Network plain = random_unet(small());
  EXPECT_TRUE(same_bits(plain.with_dropout(key)(x, t, Tensor()).value(), plain(x, t, Tensor()).value()));
}

TEST(UNet, TakesAdaptersInConvolutionsAndLinearLayers) {
  const UNet m = random_unet(small());
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

// What a pullback keeps for the sweep, asks for at most, and leaves behind, by the ledger.
struct Cost {
  memory::Usage kept, peak, left;
};
memory::Usage difference(memory::Usage a, const memory::Usage& b) {
  a.total -= b.total;
  for (int i = 0; i < memory::tag_count; ++i) a.by_tag[i] -= b.by_tag[i];
  return a;
}
template <class Model>
Cost pullback_cost(const Model& m, bool watch_parameters) {
  const Var x0(random_tensor({2, 8, 8, 1}, 1, DType::f32)), t = halves(2, DType::f32);
  const Tensor cotangent = random_tensor({2, 8, 8, 1}, 2, DType::f32);
  Cost cost;
  // The second time: layouts that are kept beside parameters from their first use on are there.
  for (int time = 0; time < 2; ++time) {
    const memory::Usage before = memory::live();
    const memory::PeakScope scope;
    Tape tape;
    std::vector<Var> watched;
    Model tracked = watch_parameters ? watch(m, tape, watched) : m;
    watched.push_back(tape.watch(x0.value()));
    Var y = tracked(watched.back(), t, Tensor());
    cost.kept = difference(memory::live(), before);
    const auto gradients = std::move(tape).vjp(y, cotangent, watched);
    y = Var();
    cost.left = difference(memory::live(), before);
    cost.peak = difference(scope.peak(), before);
  }
  return cost;
}
std::int64_t ledger_bytes(const Tensor& t) { return (t.bytes() + 63) / 64 * 64; }

template <class Model>
void expect_free_weights(const Model& m) {
  const Cost frozen = pullback_cost(m, false), trained = pullback_cost(m, true);
  const auto tag = [](const memory::Usage& u, memory::Tag t) { return u.by_tag[static_cast<int>(t)]; };
  // A frozen network leaves the gradient of its input, two pictures, and nothing else; nothing was charged to
  // parameters, to layouts of parameters, or to gradients of parameters.
  const std::int64_t dx = ledger_bytes(Tensor::zeros({2, 8, 8, 1}));
  EXPECT_EQ(frozen.left.total, dx) << to_string(frozen.left);
  for (const memory::Tag t : {memory::Tag::gradients, memory::Tag::parameters, memory::Tag::packed})
    EXPECT_EQ(tag(frozen.peak, t), 0) << memory::name(t);
  std::int64_t gradients = dx;
  for (const Tensor& p : parameters(m)) gradients += ledger_bytes(p);
  EXPECT_EQ(trained.left.total, gradients) << to_string(trained.left);
  // Operands that only the weights' gradients need are not kept either.
  EXPECT_LT(frozen.kept.total, trained.kept.total);
  EXPECT_LT(frozen.peak.total, trained.peak.total);
}

TEST(UNet, InputOnlyPullbackCostsNothingForWeights) { expect_free_weights(random_unet(small(), DType::f32)); }
TEST(Dit, InputOnlyPullbackCostsNothingForWeights) {
  DitOptions o;
  o.channels = 1, o.height = o.width = 8, o.patch = 2, o.hidden = 32, o.depth = 2, o.heads = 2;
  Init init(3);
  expect_free_weights(randomised(make_dit(o, init)));
}

// Peak bytes of two updates of AdamW on the mean square of the output.
template <class Make>
memory::Usage training_peak(Device device, const Make& make) {
  const memory::PeakScope scope;
  const memory::Usage before = memory::live();
  {
    Init init(3, DType::f32, device);
    auto m = make(init);
    AdamW adamw;
    for (int step = 0; step < 2; ++step) {
      std::vector<Tensor> gradients;
      {
        Tape tape;
        std::vector<Var> watched;
        const auto tracked = watch(m, tape, watched);
        const Var x(Tensor::full({3, 8, 8, 1}, 0.5, DType::f32, device)),
            t(Tensor::full({3}, 0.5, DType::f32, device));
        const Var loss = mean(square(tracked(x, t, Tensor())));
        gradients = std::move(tape).vjp(loss, watched);
      }
      adamw.step(handles(m), gradients, 0.01);
    }
  }
  memory::Usage peak = scope.peak();
  peak.total -= before.total;
  for (int i = 0; i < memory::tag_count; ++i) peak.by_tag[i] -= before.by_tag[i];
  return peak;
}
template <class Make>
void expect_exact_plan(const Make& make) {
  const memory::Usage measured = training_peak(Device::cpu, make),
                      planned = training_peak(Device::meta, make);
  EXPECT_EQ(measured, planned) << to_string(measured) << " / " << to_string(planned);
  EXPECT_GT(measured.total, 0);
}

TEST(UNet, MetaPredictsThePeakOfTrainingToTheByte) {
  UNetOptions o = small();
  expect_exact_plan([&](Init& init) { return make_unet(o, init); });
  o.resnet_time_scale_shift = "scale_shift", o.downsample_type = o.upsample_type = "resnet", o.dropout = 0.1;
  o.downsample_padding = 0, o.time_embedding_type = "learned", o.num_train_timesteps = 1000;
  expect_exact_plan([&](Init& init) { return make_unet(o, init).with_dropout({1, 2, 3}); });
}
TEST(Dit, MetaPredictsThePeakOfTrainingToTheByte) {
  DitOptions o;
  o.channels = 1, o.height = o.width = 8, o.patch = 2, o.hidden = 32, o.depth = 2, o.heads = 2, o.classes = 3;
  expect_exact_plan([&](Init& init) { return make_dit(o, init); });
}

TEST(UNet, RefusesInWords) {
  Init init(1, DType::f32, Device::meta);
  const auto with = [&](const auto& change, const std::string& words) {
    UNetOptions o = small();
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

  const UNet m = random_unet(small(), DType::f32);
  const Var x(Tensor::zeros({2, 8, 8, 1})), t(Tensor::zeros({2}));
  expect_error(Fault::argument, "multiples of 2", [&] { m(Var(Tensor::zeros({2, 8, 7, 1})), t, Tensor()); });
  expect_error(Fault::argument, "(rows, height, width, 1)", [&] {
    m(Var(Tensor::zeros({2, 8, 8, 3})), t, Tensor());
  });
  expect_error(Fault::argument, "t has shape (3,)", [&] { m(x, Var(Tensor::zeros({3})), Tensor()); });
  expect_error(Fault::argument, "i32 of shape (2,)", [&] { m(x, t, Tensor::zeros({2})); });
  expect_error(Fault::argument, "make_unet", [&] { UNet()(Var(Tensor::zeros({2, 8, 8, 3})), t, Tensor()); });
  UNetOptions o = small();
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
