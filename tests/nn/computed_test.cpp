// Networks that compute in bf16: predictions and gradients within the rounding of f32's, parameters and gradients in f32, and
// what is kept.
#include "pullback.h"
#include "small_unet.h"

#include <costate/nn/computed.h>
#include <costate/nn/dit.h>
#include <costate/nn/lora.h>
#include <costate/nn/mlp.h>
#include <costate/nn/optim.h>
#include <costate/tensor/parallel.h>

#include <cmath>
#include <functional>

namespace costate::nn {
namespace {

double relative(std::span<const Tensor> a, std::span<const Tensor> b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto x = a[i].to_doubles(), y = b[i].to_doubles();
    for (std::size_t j = 0; j < x.size(); ++j) difference += (x[j] - y[j]) * (x[j] - y[j]), size += y[j] * y[j];
  }
  return std::sqrt(difference / size);
}
double activations(const memory::Usage& u) {
  return static_cast<double>(u.by_tag[static_cast<int>(memory::Tag::activations)]);
}
bool equal(const Pulled& a, const Pulled& b) {
  bool same = same_bits(a.prediction, b.prediction) && a.gradients.size() == b.gradients.size();
  for (std::size_t i = 0; same && i < a.gradients.size(); ++i) same = same_bits(a.gradients[i], b.gradients[i]);
  return same;
}
Network in_bf16(const Network& m) { return Computed{m, DType::bf16}; }

Network mlp(Device device) {
  MlpOptions o;
  o.dim = 8, o.hidden = 64, o.depth = 6, o.residual = true, o.norm = true, o.classes = 3;
  Init init(3, DType::f32, device);
  return Network(make_velocity_mlp(o, init));
}
Network dit(Device device) {
  DitOptions o;
  o.channels = 1, o.height = o.width = 8, o.patch = 2, o.hidden = 32, o.depth = 4, o.heads = 2, o.classes = 3;
  Init init(3, DType::f32, device);
  return Network(make_dit(o, init));
}
Network unet(Device device) {
  Init init(3, DType::f32, device);
  return Network(make_unet(small_unet(), init));
}

struct Case {
  const char* name;
  Network (*make)(Device);
  Shape shape;
  double share;  // of f32's activations that a tape keeps: half, and the statistics, which stay f32
};
const Case cases[] = {{"MLP", mlp, {64, 8}, 0.53}, {"DiT", dit, {8, 8, 8, 1}, 0.54}, {"UNet", unet, {4, 8, 8, 1}, 0.56}};

Tensor labels_for(const Shape& shape, Device device) { return Tensor::full({shape[0]}, 1, DType::i32, device); }
Network randomised_on_cpu(const Case& c) {
  const memory::TagScope scope(memory::Tag::parameters);
  return randomised(c.make(Device::cpu));
}
Pulled pulled(const Network& m, const Case& c, Wrt wrt = Wrt::both, Device device = Device::cpu) {
  return pullback(m, c.shape, labels_for(c.shape, device), wrt, device);
}

// Every op rounds its result, in the root mean square by 0.41 2^-8 = 2^-9.3 of it, and so does every rule; errors of this size
// that are independent add in quadrature along the ops of a path through the network, up to some sixty in the UNet: 2^-6.3. A
// gradient goes there and back, through derivatives at rounded values: 2^-5.8. Room of twice that and a little.
TEST(Computed, PredictionsAndGradientsAreThoseOfF32WithinTheRounding) {
  for (const Case& c : cases) {
    const Network m = randomised_on_cpu(c);
    const Pulled f32 = pulled(m, c), bf16 = pulled(in_bf16(m), c);
    EXPECT_EQ(bf16.prediction.dtype(), DType::f32) << c.name;
    const double error = relative({&bf16.prediction, 1}, {&f32.prediction, 1}),
                 of_gradients = relative(bf16.gradients, f32.gradients);
    EXPECT_LT(error, 0x1p-5) << c.name;
    EXPECT_GT(error, 0x1p-11) << c.name;
    EXPECT_LT(of_gradients, 3 * 0x1p-6) << c.name;
    RecordProperty(std::string(c.name) + "_prediction", std::to_string(error));
    RecordProperty(std::string(c.name) + "_gradients", std::to_string(of_gradients));
    RecordProperty(std::string(c.name) + "_share", std::to_string(activations(bf16.kept) / activations(f32.kept)));
    for (const Tensor& g : bf16.gradients) EXPECT_EQ(g.dtype(), DType::f32) << c.name;
    EXPECT_LT(activations(bf16.kept), c.share * activations(f32.kept)) << c.name;
    EXPECT_GT(activations(bf16.kept), 0.49 * activations(f32.kept)) << c.name;
  }
}

TEST(Computed, PeaksArePredictedToTheByte) {
  for (const Case& c : cases)
    for (const bool recompute : {false, true}) {
      const auto peak = [&](Device device) {
        return pulled(in_bf16(c.make(device)).recompute_blocks(recompute), c, Wrt::both, device).peak;
      };
      EXPECT_EQ(peak(Device::cpu), peak(Device::meta)) << c.name;
    }
}

// Copies made once, blocks computed again, another number of threads: the same bits.
TEST(Computed, BitsDoNotDependOnHowItIsCalled) {
  for (const Case& c : cases) {
    const Network m = in_bf16(randomised_on_cpu(c));
    const Pulled once = pulled(m, c);
    EXPECT_TRUE(equal(once, pulled(m.recompute_blocks(), c))) << c.name;
    set_threads(3);
    EXPECT_TRUE(equal(once, pulled(m, c))) << c.name;
    set_threads(1);
    const Pulled by_x = pulled(m, c, Wrt::x), prepared = pulled(m.prepared(), c, Wrt::x);
    EXPECT_TRUE(equal(by_x, prepared)) << c.name;
    EXPECT_LT(prepared.peak.total, by_x.peak.total) << c.name;  // by the copies
  }
}

TEST(Computed, DoublesAndTheModelItselfStayAsTheyAre) {
  MlpOptions o;
  o.dim = 3, o.hidden = 8, o.depth = 2;
  Init init(3, DType::f64);
  const VelocityMlp m = randomised(make_velocity_mlp(o, init));
  const Computed computed{m, DType::bf16};
  const Var x(random_tensor({4, 3}, 1)), t(Tensor::full({4}, 0.5, DType::f64));
  EXPECT_TRUE(same_bits(computed(x, t, Tensor()).value(), m(x, t, Tensor()).value()));
  EXPECT_TRUE(same_bits(computed.prepared()(x, t, Tensor()).value(), m(x, t, Tensor()).value()));
  const Network network = in_bf16(mlp(Device::cpu));
  for (const Tensor& p : parameters(network)) EXPECT_EQ(p.dtype(), DType::f32);
  EXPECT_EQ(names(network), names(mlp(Device::cpu)));
}

// Adapters are trained in f32 beside copies of frozen weights.
TEST(Computed, Adapters) {
  const Case& c = cases[1];
  const Network base = randomised_on_cpu(c);
  const auto adapted = [](const Network& m) {
    Network a = Adapters{with_lora(m, {.rank = 2, .alpha = 4, .targets = {"qkv", "fc1"}, .seed = 1})};
    return randomised(std::move(a), 0.3);
  };
  const Pulled f32 = pulled(adapted(base), c), bf16 = pulled(adapted(in_bf16(base)), c);
  ASSERT_EQ(f32.gradients.size(), bf16.gradients.size());
  EXPECT_LT(relative({&bf16.prediction, 1}, {&f32.prediction, 1}), 0x1p-5);
  EXPECT_LT(relative(bf16.gradients, f32.gradients), 0x1p-5);
  EXPECT_TRUE(equal(bf16, pulled(adapted(in_bf16(base)), c)));
  EXPECT_TRUE(equal(pulled(adapted(in_bf16(base)).prepared(), c, Wrt::x), pulled(adapted(in_bf16(base)), c, Wrt::x)));
}

// Times as the diffusion literature counts them, up to 1000, have more digits than bf16: their sinusoids are made in f32.
TEST(Computed, TimesAreNotRounded) {
  for (const Case& c : cases) {
    const Network m = randomised_on_cpu(c), half = in_bf16(m);
    const Var x(random_tensor(c.shape, 1, DType::f32));
    const Tensor labels = labels_for(c.shape, Device::cpu);
    const auto at = [&](const Network& n, double t) {
      return n(x, Var(Tensor::full({c.shape[0]}, t)), labels).value();
    };
    // 0.5 and 0.5009765625 = 0.5 + 2^-10 are one number in bf16. What the prediction changes by is seen above the rounding.
    const Tensor there = at(m, 0.5009765625), here = at(m, 0.5), there16 = at(half, 0.5009765625), here16 = at(half, 0.5);
    EXPECT_FALSE(same_bits(there16, here16)) << c.name;
    EXPECT_FALSE(same_bits(there, here)) << c.name;
  }
}

// Regression of a smooth function: the loss reached is that of f32 up to a hundredth of what there was to learn.
TEST(Computed, TrainingReachesTheSameLoss) {
  const auto trained = [](bool half) {
    const memory::TagScope scope(memory::Tag::parameters);
    MlpOptions o;
    o.dim = 2, o.hidden = 32, o.depth = 3;
    Init init(5);
    Network m(make_velocity_mlp(o, init));
    if (half) m = in_bf16(m);
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
      optimiser.step(handles(m), g, 3e-3);
    }
    return loss;
  };
  const std::vector<double> f32 = trained(false), bf16 = trained(true);
  EXPECT_NE(f32.back(), bf16.back());
  EXPECT_LT(f32.back(), 0.1 * f32.front());
  EXPECT_NEAR(bf16.back(), f32.back(), 0.01 * f32.front());
}

}  // namespace
}  // namespace costate::nn
