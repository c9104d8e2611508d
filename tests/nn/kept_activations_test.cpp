// Networks whose activations are kept in bf16: the results of f32, gradients within the rounding, and what is kept.
#include "pullback.h"
#include "small_unet.h"

#include <costate/autograd/ops.h>
#include <costate/nn/dit.h>
#include <costate/nn/mlp.h>
#include <costate/nn/optim.h>
#include <costate/tensor/precision.h>

#include <cmath>

namespace costate::nn {
namespace {

Pulled pullback(const Network& m, const Shape& shape, DType kept, Device device) {
  const KeptTypeScope keeping(kept);
  return pullback(m, shape, Tensor(), Wrt::parameters, device);
}

// All gradients together, as an optimiser that clips their norm sees them: relative error.
double error(const Pulled& a, const Pulled& b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.gradients.size(); ++i) {
    const auto x = a.gradients[i].to_doubles(), y = b.gradients[i].to_doubles();
    for (std::size_t j = 0; j < x.size(); ++j) difference += (x[j] - y[j]) * (x[j] - y[j]), size += y[j] * y[j];
  }
  return std::sqrt(difference / size);
}

// A value errs by 2^-9.3 in the root mean square; sums of independent errors keep that share, which grows with the root of
// how many rules a cotangent passes, some tens here: 2^-7. What a plan says is exact.
template <class Make>
void expect_kept(const Make& make, const Shape& shape, double share) {
  const Network m = [&] {
    const memory::TagScope scope(memory::Tag::parameters);
    return randomised(make(Device::cpu));
  }();
  const Pulled f32 = pullback(m, shape, DType::f32, Device::cpu), bf16 = pullback(m, shape, DType::bf16, Device::cpu);
  EXPECT_TRUE(same_bits(f32.prediction, bf16.prediction));
  EXPECT_LT(error(bf16, f32), 0x1p-6);
  EXPECT_GT(error(bf16, f32), 0x1p-13);
  const auto activations = [](const memory::Usage& u) {
    return static_cast<double>(u.by_tag[static_cast<int>(memory::Tag::activations)]);
  };
  EXPECT_LT(activations(bf16.kept), share * activations(f32.kept));
  EXPECT_LT(bf16.peak.total, f32.peak.total);
  EXPECT_EQ(pullback(make(Device::cpu), shape, DType::bf16, Device::cpu).peak,
            pullback(make(Device::meta), shape, DType::bf16, Device::meta).peak);
}

TEST(KeptActivations, OfAnMlp) {
  MlpOptions o;
  o.dim = 8, o.hidden = 64, o.depth = 6;
  expect_kept(
      [&](Device device) {
        Init init(3, DType::f32, device);
        return Network(make_velocity_mlp(o, init));
      },
      {64, 8}, 0.55);
}
TEST(KeptActivations, OfADit) {
  DitOptions o;
  o.channels = 1, o.height = o.width = 8, o.patch = 2, o.hidden = 32, o.depth = 4, o.heads = 2;
  expect_kept(
      [&](Device device) {
        Init init(3, DType::f32, device);
        return Network(make_dit(o, init));
      },
      {8, 8, 8, 1}, 0.58);
}
TEST(KeptActivations, OfAUNet) {
  UNetOptions o = small_unet();
  o.num_class_embeds.reset(), o.null_class.reset();
  expect_kept(
      [&](Device device) {
        Init init(3, DType::f32, device);
        return Network(make_unet(o, init));
      },
      {2, 8, 8, 1}, 0.62);
}

// Regression of a smooth function: the loss reached is that of f32 up to a hundredth of what there was to learn.
TEST(KeptActivations, TrainingReachesTheSameLoss) {
  const auto trained = [](DType kept) {
    const KeptTypeScope keeping(kept);
    const memory::TagScope scope(memory::Tag::parameters);
    MlpOptions o;
    o.dim = 2, o.hidden = 32, o.depth = 3;
    Init init(5);
    Network m(make_velocity_mlp(o, init));
    const Tensor x = random_tensor({256, 2}, 7, DType::f32), t = Tensor::full({256}, 0.5);
    const Tensor target = sin(affine(Var(x), 2, 0.3)).value();
    AdamW optimiser({.lr = 3e-3});
    std::vector<double> loss;
    for (int n = 0; n < 150; ++n) {
      const memory::TagScope inner(memory::Tag::activations);
      Tape tape;
      std::vector<Var> watched;
      const Network tracked = watch(m, tape, watched);
      const Var l = mean(square(sub(tracked(Var(x), Var(t), Tensor()), Var(target))));
      loss.push_back(l.value().item());
      std::vector<Tensor> g = std::move(tape).vjp(l, watched);
      std::vector<Tensor*> p;
      visit(m, [&](const std::string&, Var& v) { p.push_back(&v.value()); });
      optimiser.step(p, g, 3e-3);
    }
    return loss;
  };
  const std::vector<double> f32 = trained(DType::f32), bf16 = trained(DType::bf16);
  EXPECT_EQ(f32.front(), bf16.front());
  EXPECT_NE(f32.back(), bf16.back());
  EXPECT_LT(f32.back(), 0.1 * f32.front());
  EXPECT_NEAR(bf16.back(), f32.back(), 0.01 * f32.front());
}

}  // namespace
}  // namespace costate::nn
