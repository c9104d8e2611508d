// What networks cost: nothing for frozen weights, and the memory that the meta device predicts.
#include "small_unet.h"

#include <costate/nn/dit.h>
#include <costate/nn/optim.h>
#include <costate/tensor/flops.h>

namespace costate::nn {
namespace {

// What a pullback keeps for the sweep, asks for at most, and leaves behind, by the ledger; what it computes.
struct Cost {
  memory::Usage kept, peak, left;
  std::int64_t flops;
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
    const std::int64_t flops_before = flops();
    const memory::PeakScope scope;
    Tape tape;
    std::vector<Var> watched;
    Model tracked = watch_parameters ? watch(m, tape, watched) : m;
    watched.push_back(tape.watch(x0.value()));
    Var y = tracked(watched.back(), t, Tensor());
    cost.kept = difference(memory::live(), before);
    const auto gradients = std::move(tape).vjp(y, cotangent, watched);
    cost.flops = flops() - flops_before;
    y = Var();
    cost.left = difference(memory::live(), before);
    cost.peak = difference(scope.peak(), before);
  }
  return cost;
}
std::int64_t ledger_bytes(const Tensor& t) { return (t.bytes() + 63) / 64 * 64; }

// Products of the first layer of the embedding of time: nothing in front of it is differentiated.
template <class Model>
std::int64_t to_time_input(Model m) {
  std::int64_t work = 0;
  visit(m, [&](const std::string& name, Var& p) {
    if (name.ends_with("time_embedding.linear_1.weight") || name.ends_with("t_embedder.mlp.0.weight"))
      work += 2 * 2 * p.numel();
  });
  return work;
}

// `embedding`: tails of the names of the layers between time and the blocks that use it.
template <class Model>
void expect_free_weights(const Model& m, std::int64_t attention_flops, const std::vector<std::string>& embedding) {
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

  // The gradient of a layer's weight is as much work as the layer. Besides, watching the parameters makes the sweep go on
  // from the blocks to the embedding of time, which the input does not reach: a product the size of each layer there.
  const std::int64_t before = flops();
  m(Var(random_tensor({2, 8, 8, 1}, 1, DType::f32)), halves(2, DType::f32), Tensor());
  const std::int64_t forward = flops() - before;
  std::int64_t to_time = 0;
  Model copy = m;
  visit(copy, [&](const std::string& name, Var& p) {
    for (const std::string& tail : embedding)
      if (name.ends_with(tail)) to_time += 2 * 2 * p.numel();
  });
  EXPECT_GT(to_time, 0);
  EXPECT_EQ(trained.flops - frozen.flops, forward - attention_flops + to_time);
  // What is left is the forward pass, every layer's transpose (without those of the embedding) and attention's own: five
  // products where the forward pass has two.
  EXPECT_EQ(frozen.flops, forward + forward - attention_flops - to_time - to_time_input(m) + attention_flops / 2 * 5);
}

TEST(UNetCost, InputOnlyPullbackCostsNothingForWeights) {
  // Four attentions over 4 x 4 pixels of 16 channels, two products each, two pictures.
  expect_free_weights(random_unet(small_unet(), DType::f32), 4 * 2 * (2 * 2 * 16 * 16 * 16),
                      {"time_emb_proj.weight", "time_embedding.linear_2.weight"});
}
TEST(DitCost, InputOnlyPullbackCostsNothingForWeights) {
  DitOptions o;
  o.channels = 1, o.height = o.width = 8, o.patch = 2, o.hidden = 32, o.depth = 2, o.heads = 2;
  Init init(3);
  // Two blocks over 16 tokens of width 32.
  expect_free_weights(randomised(make_dit(o, init)), 2 * 2 * (2 * 2 * 16 * 16 * 32),
                      {"adaLN_modulation.1.weight", "t_embedder.mlp.2.weight"});
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

TEST(UNetCost, MetaPredictsThePeakOfTrainingToTheByte) {
  UNetOptions o = small_unet();
  expect_exact_plan([&](Init& init) { return make_unet(o, init); });
  o.resnet_time_scale_shift = "scale_shift", o.downsample_type = o.upsample_type = "resnet", o.dropout = 0.1;
  o.downsample_padding = 0, o.time_embedding_type = "learned", o.num_train_timesteps = 1000;
  expect_exact_plan([&](Init& init) { return make_unet(o, init).with_dropout({1, 2, 3}); });
}
TEST(DitCost, MetaPredictsThePeakOfTrainingToTheByte) {
  DitOptions o;
  o.channels = 1, o.height = o.width = 8, o.patch = 2, o.hidden = 32, o.depth = 2, o.heads = 2, o.classes = 3;
  expect_exact_plan([&](Init& init) { return make_dit(o, init); });
}

}  // namespace
}  // namespace costate::nn
