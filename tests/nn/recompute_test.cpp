// Networks whose blocks are computed again in the sweep: the bits of the stored gradients, and less memory.
#include "pullback.h"
#include "small_unet.h"

#include <costate/finetune/network_field.h>
#include <costate/nn/dit.h>
#include <costate/nn/lora.h>
#include <costate/nn/mlp.h>
#include <costate/nn/recompute.h>

namespace costate::nn {
namespace {

void expect_same(const Pulled& a, const Pulled& b) {
  EXPECT_TRUE(same_bits(a.prediction, b.prediction));
  ASSERT_EQ(a.gradients.size(), b.gradients.size());
  double norm = 0;
  for (std::size_t i = 0; i < a.gradients.size(); ++i) {
    EXPECT_TRUE(same_bits(a.gradients[i], b.gradients[i])) << "gradient " << i;
    for (const double g : a.gradients[i].to_doubles()) norm += g * g;
  }
  EXPECT_GT(norm, 0);
}

// Same bits whatever is differentiated, with and without adapters, and a plan that is exact. `fresh` makes the model as it
// starts: the plan is compared there, as randomised parameters are not in the ledger as parameters.
template <class Make>
void expect_recomputed(const Make& fresh, const Shape& shape, const Tensor& labels, const std::string& target,
                       double deviation = 0.1) {
  const Network m = randomised(fresh(Device::cpu), deviation), lean = m.recompute_blocks();
  for (const Wrt wrt : {Wrt::x, Wrt::parameters, Wrt::both}) {
    SCOPED_TRACE(static_cast<int>(wrt));
    const Pulled stored = pullback(m, shape, labels, wrt), again = pullback(lean, shape, labels, wrt);
    expect_same(stored, again);
    EXPECT_LT(again.kept.total, stored.kept.total);
    EXPECT_LT(again.peak.total, stored.peak.total);
    expect_same(stored, pullback(lean.recompute_blocks(false), shape, labels, wrt));
    const Tensor planned_labels =
        labels.defined() ? Tensor::zeros(labels.shape(), DType::i32, Device::meta) : Tensor();
    const memory::Usage planned =
        pullback(Network(fresh(Device::meta)).recompute_blocks(), shape, planned_labels, wrt, Device::meta).peak;
    const memory::Usage measured = pullback(Network(fresh(Device::cpu)).recompute_blocks(), shape, labels, wrt).peak;
    EXPECT_EQ(planned, measured) << to_string(planned) << " / " << to_string(measured);
  }
  // Adapters alone are trained: the frozen weights beside them are no operands. Their second halves start at zero.
  Network adapted = Adapters{with_lora(m, {.rank = 3, .alpha = 6, .targets = {target}, .seed = 5})};
  std::uint32_t n = 100;
  visit(adapted, [&](const std::string&, Var& p) { p = Var(random_tensor(p.shape(), n++, DType::f32)); });
  for (const Wrt wrt : {Wrt::x, Wrt::both})
    expect_same(pullback(adapted, shape, labels, wrt), pullback(adapted.recompute_blocks(), shape, labels, wrt));
  // Guidance runs the network twice on one tape, which adds two terms to every gradient.
  if (labels.defined()) {
    const Network twice = finetune::guided(m, 1.5);
    expect_same(pullback(twice, shape, labels, Wrt::both), pullback(twice.recompute_blocks(), shape, labels, Wrt::both));
  }
}

Tensor some_labels() { return Tensor::from(std::vector<std::int32_t>{1, 0}, {2}); }

TEST(Recompute, UNetHasTheSameGradients) {
  UNetOptions o = small_unet();
  const auto make = [&](Device device) {
    Init init(3, DType::f32, device);
    const UNet m = make_unet(o, init);
    return o.dropout > 0 ? m.with_dropout({7, 100, 5}) : m;
  };
  expect_recomputed(make, {2, 8, 8, 1}, some_labels(), "to_*");
  o.resnet_time_scale_shift = "scale_shift", o.downsample_type = o.upsample_type = "resnet", o.dropout = 0.2;
  o.act_fn = "gelu", o.mid_block_scale_factor = 2;
  expect_recomputed(make, {2, 8, 8, 1}, some_labels(), "conv1");
}

TEST(Recompute, DitHasTheSameGradients) {
  DitOptions o;
  o.channels = 1, o.height = o.width = 8, o.patch = 2, o.hidden = 32, o.depth = 8, o.heads = 2, o.classes = 3;
  const auto make = [&](Device device) {
    Init init(3, DType::f32, device);
    return make_dit(o, init);
  };
  expect_recomputed(make, {8, 8, 8, 1}, Tensor::from(std::vector<std::int32_t>{0, 1, 2, 3, 2, 1, 0, 0}, {8}), "*");
}

TEST(Recompute, MlpHasTheSameGradients) {
  MlpOptions o;
  o.dim = 3, o.hidden = 16, o.depth = 11, o.classes = 3;
  const auto make = [&](Device device) {
    Init init(3, DType::f32, device);
    return make_velocity_mlp(o, init);
  };
  const Tensor labels = Tensor::from(std::vector<std::int32_t>(64, 1), {64});
  expect_recomputed(make, {64, 3}, labels, "layers.*", 0.4);
  o.residual = o.norm = true;
  expect_recomputed(make, {64, 3}, labels, "layers.*", 0.4);
}

// What the tape keeps does not grow with what is inside a block: of a DiT with respect to x and parameters, the tokens in
// front of every block, and what is outside of the blocks; a sweep adds one block.
TEST(Recompute, KeepsInputsOfBlocks) {
  DitOptions o;
  o.channels = 1, o.height = o.width = 8, o.patch = 2, o.hidden = 32, o.heads = 2;
  const auto cost = [&](int depth, bool again) {
    o.depth = depth;
    Init init(3);
    return pullback(Network(randomised(make_dit(o, init))).recompute_blocks(again), {2, 8, 8, 1}, Tensor(), Wrt::x);
  };
  const std::int64_t tokens = 2 * 16 * 32 * 4;  // of one (2, 16, 32) in bytes
  const Pulled two = cost(2, true), three = cost(3, true), eight = cost(8, true);
  EXPECT_EQ(three.kept.total - two.kept.total, tokens);
  EXPECT_EQ(eight.kept.total - two.kept.total, 6 * tokens);
  EXPECT_EQ(eight.peak.total - two.peak.total, 6 * tokens);
  const Pulled stored = cost(8, false);
  EXPECT_LT(3 * eight.peak.total, stored.peak.total)
      << "recomputed " << to_string(eight.peak) << ", stored " << to_string(stored.peak);
}

TEST(Recompute, RefusesInWords) {
  struct Plain {
    Var w{Tensor::full({1}, 2.0)};
    Var operator()(const Var& x, const Var&, const Tensor&) const { return mul(x, w); }
    void visit(const Visitor& v) { v("w", w); }
  };
  expect_error(Fault::argument, "has no blocks", [] { Network(Plain()).recompute_blocks(); });
  EXPECT_TRUE(Network(Plain()).recompute_blocks(false).defined());
  // A block that differentiates what is neither its parameter nor an input.
  Tape tape;
  const Var stray = tape.watch(Tensor::full({2, 2}, 1.0)), x = tape.watch(Tensor::full({2, 2}, 3.0));
  expect_error(Fault::argument, "captured a tracked value", [&] {
    recompute_block(Plain(), {x}, [stray](const Plain&, std::span<const Var> in) { return mul(in[0], stray); });
  });
  // Nothing is tracked: the block itself.
  EXPECT_FALSE(recompute_block(Plain(), {Var(Tensor::full({2}, 3.0))}, [](const Plain& b, std::span<const Var> in) {
                 return mul(in[0], b.w);
               }).tracked());
}

}  // namespace
}  // namespace costate::nn
