// Low-rank adapters: what they compute, which layers they go to, and their files.
#include <costate/nn/lora.h>
#include <costate/nn/mlp.h>
#include <costate/nn/network.h>
#include <costate/nn/optim.h>

#include <cmath>

#include "../tensor/safetensors_support.h"
#include "nn_support.h"

namespace costate::nn {
namespace {

using testing_files::TemporaryFolder;

VelocityMlp network(DType dtype = DType::f32) {
  MlpOptions o;
  o.hidden = 12, o.depth = 3, o.classes = 3, o.class_width = 4, o.norm = true;
  Init init(3, dtype);
  VelocityMlp m = make_velocity_mlp(o, init);
  m.output.weight = Var(init.uniform(m.output.weight.shape(), 12));
  return m;
}

struct Call {
  Tensor x, t, labels;
};
Call call(DType dtype = DType::f32) {
  const std::vector<std::int32_t> labels{0, 3, 1, 2, 2};
  const Tensor t = Tensor::full({5}, 0.3, dtype);
  return {random_tensor({5, 2}, 1, dtype), t, Tensor::from(labels, {5})};
}
template <class Model>
Tensor run(const Model& m, const Call& c) {
  return m(Var(c.x), Var(c.t), c.labels).value();
}

// Adapters with something in them.
VelocityMlp adapted(const VelocityMlp& base, int rank = 2, double alpha = 3) {
  VelocityMlp m =
      with_lora(base, {.rank = rank, .alpha = alpha, .targets = {"layers.*", "output"}, .seed = 5});
  std::uint32_t which = 30;
  visit_layers(m, [&](const std::string&, Var& weight, Lora& lora, int) {
    lora.up = Var(random_tensor(lora.up.shape(), which++, weight.dtype()));
  });
  return m;
}

// The sum of the two products is exact where B is zero; an activation is then an op of its own instead of the last pass of
// the product, whose vector code may round otherwise.
TEST(Lora, AFreshAdapterChangesNoBit) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    VelocityMlp base = network(dtype);
    const VelocityMlp with_activations = with_lora(base, {.rank = 2, .alpha = 16, .targets = {"*"}});
    const std::vector<double> a = run(with_activations, call(dtype)).to_doubles(), b = run(base, call(dtype)).to_doubles();
    for (std::size_t i = 0; i < a.size(); ++i)
      EXPECT_NEAR(a[i], b[i], (dtype == DType::f32 ? 1e-6 : 1e-14) * (1 + std::abs(b[i])));
    for (Linear& layer : base.layers) layer.activation = Activation::none;
    const VelocityMlp fresh = with_lora(base, {.rank = 2, .alpha = 16, .targets = {"*"}});
    ASSERT_EQ(lora_layers(fresh).size(), 4u);
    EXPECT_TRUE(same_bits(run(fresh, call(dtype)), run(base, call(dtype))));
  }
}

TEST(Lora, ARankBeyondTheLayerIsARankAllTheSame) {
  const VelocityMlp base = network(DType::f64), many = adapted(base, 20);  // the output is (2, 12)
  const Tensor a = run(many, call(DType::f64));
  EXPECT_GT(largest_difference(a, run(base, call(DType::f64))), 1e-3);
  EXPECT_LE(largest_difference(run(merged(many), call(DType::f64)), a), 1e-12);
}

TEST(Lora, SharesTheBaseAndShowsItsAdaptersAlone) {
  const VelocityMlp base = network();
  const Adapters tuned{with_lora(base, {.rank = 2, .alpha = 2, .targets = {"layers.1", "output"}})};
  EXPECT_EQ(names(tuned), (std::vector<std::string>{"layers.1.lora_A.weight", "layers.1.lora_B.weight",
                                                    "output.lora_A.weight", "output.lora_B.weight"}));
  EXPECT_EQ(parameter_count(tuned), 2 * (12 + 12) + 2 * (12 + 2));
  const auto a = parameters(base), b = parameters(without_lora(tuned.model));
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i].shares_storage_with(b[i]));
  // PEFT's initialisation: uniform in +-1/sqrt(in), with variance 1/(3 in).
  const LoraLayer first = lora_layers(tuned.model).front();
  EXPECT_EQ(first.rank, 2);
  EXPECT_EQ(first.scale, 1.0);
  for (const double v : tuned.model.layers[1].lora.down.value().to_doubles())
    EXPECT_LE(std::abs(v), 1 / std::sqrt(12.0));
  for (const double v : tuned.model.layers[1].lora.up.value().to_doubles()) EXPECT_EQ(v, 0);
}

TEST(Lora, TrainsAdaptersAndLeavesTheBase) {
  const VelocityMlp base = network();
  const std::vector<Tensor> before = parameters(clone(base));
  Network tuned = Adapters{Network(with_lora(base, {.rank = 2, .alpha = 4, .targets = {"*"}}))};
  const Call c = call();
  AdamW optimiser;
  Ema ema(0.5, false);
  const auto loss = [&](const Network& n, Tape* tape, std::vector<Var>& watched) {
    const Network on = tape ? watch(n, *tape, watched) : n;
    return mean(square(sub(on(Var(c.x), Var(c.t), c.labels), Var(random_tensor({5, 2}, 9, DType::f32)))));
  };
  std::vector<Var> none;
  const double first = loss(tuned, nullptr, none).value().item();
  for (int i = 0; i < 60; ++i) {
    Tape tape;
    std::vector<Var> watched;
    const Var l = loss(tuned, &tape, watched);
    ASSERT_EQ(watched.size(), 8u);
    const std::vector<Tensor> g = std::move(tape).vjp(l, watched);
    optimiser.step(handles(tuned), g, 0.03);
    ema.update(parameters(tuned));
  }
  EXPECT_LT(loss(tuned, nullptr, none).value().item(), 0.5 * first);
  EXPECT_EQ(ema.average().size(), 8u);
  const std::vector<Tensor> after = parameters(base);
  for (std::size_t i = 0; i < after.size(); ++i) EXPECT_TRUE(same_bits(before[i], after[i]));
}

TEST(Lora, MergedIsTheSameFunctionAndDroppedIsTheBase) {
  const VelocityMlp base = network(DType::f64), tuned = adapted(base), flat = merged(tuned);
  EXPECT_TRUE(lora_layers(flat).empty());
  const Call c = call(DType::f64);
  const std::vector<double> a = run(tuned, c).to_doubles(), b = run(flat, c).to_doubles(),
                            o = run(base, c).to_doubles();
  double change = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(a[i], b[i], 1e-12 * (1 + std::abs(a[i])));  // other roundings of the same sum
    change = std::max(change, std::abs(a[i] - o[i]));
  }
  EXPECT_GT(change, 0.1);
  EXPECT_TRUE(same_bits(run(without_lora(tuned), c), run(base, c)));
  // What is merged belongs to the merged model; the layers without adapters are shared.
  EXPECT_FALSE(flat.output.weight.value().shares_storage_with(base.output.weight.value()));
  EXPECT_TRUE(flat.output.bias.value().shares_storage_with(base.output.bias.value()));
}

TEST(Lora, FilesUnderEveryPrefix) {
  const TemporaryFolder folder;
  const VelocityMlp base = network(), tuned = adapted(base);
  const Call c = call();
  for (const std::string prefix : {"base_model.model.", "unet.", "transformer.", ""}) {
    save_lora(folder / "l", tuned, prefix, {{"note", "x"}});
    const SafetensorsFile file(folder / "l");
    EXPECT_EQ(file.entries().size(), 8u);
    ASSERT_NE(file.find(prefix + "layers.0.lora_A.weight"), nullptr);
    EXPECT_EQ(file.metadata().at("lora_rank"), "2");
    EXPECT_EQ(file.metadata().at("lora_alpha"), "3");
    VelocityMlp read = base;
    EXPECT_EQ(load_lora(folder / "l", read).at("note"), "x");
    EXPECT_TRUE(same_bits(run(read, c), run(tuned, c)));
    EXPECT_TRUE(read.layers[0].weight.value().shares_storage_with(base.layers[0].weight.value()));
  }
  // Scales that differ are told layer by layer.
  VelocityMlp mixed = tuned;
  mixed.output.lora.scale = 0.25;
  save_lora(folder / "mixed", mixed);
  EXPECT_EQ(SafetensorsFile(folder / "mixed").entries().size(), 12u);
  VelocityMlp read = base;
  load_lora(folder / "mixed", read);
  EXPECT_EQ(read.output.lora.scale, 0.25);
  EXPECT_TRUE(same_bits(run(read, c), run(mixed, c)));
}

TEST(Lora, OtherNamesAndTheScaleThatAFileDoesNotTell) {
  const TemporaryFolder folder;
  const VelocityMlp base = network();
  const Tensor a = random_tensor({2, 12}, 1, DType::f32), b = random_tensor({12, 2}, 2, DType::f32);
  save_safetensors(folder / "l", std::vector<NamedTensor>{{"unet.layers.1.lora.down.weight", a},
                                                          {"unet.layers.1.lora.up.weight", b}});
  VelocityMlp read = base;
  load_lora(folder / "l", read);
  EXPECT_EQ(read.layers[1].lora.scale, 1.0);  // alpha is the rank, as in diffusers
  read = base;
  load_lora(folder / "l", read, 6);
  EXPECT_EQ(read.layers[1].lora.scale, 3.0);
  EXPECT_TRUE(same_bits(read.layers[1].lora.up.value(), b));
}

TEST(Lora, TargetsArePatterns) {
  EXPECT_TRUE(matches_target("to_q", "mid_block.attentions.0.to_q"));
  EXPECT_TRUE(matches_target("*", "a.b"));
  EXPECT_TRUE(matches_target("to_?", "x.to_v"));
  EXPECT_TRUE(matches_target("mid*to_q", "mid_block.attentions.0.to_q"));
  EXPECT_TRUE(matches_target("attentions.*.to_q", "mid_block.attentions.0.to_q"));
  EXPECT_FALSE(matches_target("o_q", "mid_block.attentions.0.to_q"));
  EXPECT_FALSE(matches_target("to_q", "to_q.0"));
  EXPECT_FALSE(matches_target("", "to_q"));
  EXPECT_FALSE(matches_target("a*b*c", "a.b.d"));
}

TEST(Lora, RefusesInWords) {
  const VelocityMlp base = network();
  const auto refused = [&](const LoraOptions& o, const std::string& words) {
    expect_error(Fault::argument, words, [&] { with_lora(base, o); });
  };
  refused({.rank = 0}, "rank 0");
  refused({.rank = 1, .alpha = 0}, "alpha 0");
  refused({.rank = 1, .alpha = std::nan("")}, "alpha nan");
  refused({.rank = 1, .alpha = 1, .targets = {}}, "no targets");
  refused({.rank = 1, .alpha = 1, .targets = {"layers.1", "outptu"}}, "'outptu' fits none of the 4 layers");
  refused({.rank = 1, .alpha = 1, .targets = {"outptu"}}, "the nearest are 'output'");
  refused({.rank = 1, .alpha = 1, .targets = {"norms.0"}}, "fits none");  // a norm takes no adapter
  expect_error(Fault::argument, "has an adapter already", [&] { with_lora(adapted(base), {.rank = 1}); });
  expect_error(Fault::argument, "no adapters to write", [&] { save_lora("/nowhere", base); });
}

TEST(Lora, MalformedFiles) {
  const TemporaryFolder folder;
  const VelocityMlp base = network();
  const Tensor a = random_tensor({2, 12}, 1, DType::f32), b = random_tensor({12, 2}, 2, DType::f32);
  const auto refused = [&](const std::vector<NamedTensor>& tensors, const std::string& words,
                           const SafetensorsMetadata& metadata = {}) {
    save_safetensors(folder / "l", tensors, metadata);
    VelocityMlp read = base;
    expect_error(Fault::data, words, [&] { load_lora(folder / "l", read); });
    EXPECT_TRUE(lora_layers(read).empty());
  };
  const std::string A = "layers.1.lora_A.weight", B = "layers.1.lora_B.weight";
  refused({}, "there is no adapter in it");
  refused({{A, a}}, "has no lora_B");
  refused({{B, b}}, "has no lora_A");
  refused({{A, a}, {B, a}}, "is F32 (2, 12) where f32 (12, 2) is expected");
  refused({{A, a.to(DType::f64)}, {B, b}}, "is F64 (2, 12)");
  refused({{A, Tensor::zeros({0, 12})}, {B, Tensor::zeros({12, 0})}}, "is F32 (0, 12)");
  refused({{A, a}, {B, b}, {"unet." + A, a}}, "comes twice");
  refused({{A, a}, {B, b}, {"layers.1.weight", a}}, "'layers.1.weight' is not the name of an adapter");
  refused({{"layers.9.lora_A.weight", a}, {"layers.9.lora_B.weight", b}},
          "no layer 'layers.9' (the nearest are");
  refused({{A, a}, {B, b}, {"layers.1.alpha", Tensor::zeros({2})}}, "not one number");
  refused({{A, a}, {B, b}, {"layers.1.alpha", Tensor::scalar(-1)}}, "not a positive number");
  refused({{A, a}, {B, b}}, "lora_alpha is 'x'", {{"lora_alpha", "x"}});
  refused({{A, a}, {B, b}}, "lora_alpha is '-2'", {{"lora_alpha", "-2"}});
}

}  // namespace
}  // namespace costate::nn
