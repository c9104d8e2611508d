// bf16 on the device: every op and its rule, every kernel's ways (strides, long sums, wide heads, odd lengths), networks, and
// fine-tuning, against the cpu, which widens operands and rounds results.
#include <costate/autograd/tape.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/finetune/reward/analytic.h>
#include <costate/nn/computed.h>
#include <costate/nn/dit.h>
#include <costate/nn/init.h>
#include <costate/nn/mlp.h>
#include <costate/nn/unet.h>
#include <costate/sde/chain.h>
#include <costate/sde/grid.h>

#include "autograd/samples.h"
#include "on_device.h"

namespace costate {
namespace {

// Of the largest element. Both sides round, by 2^-8 of a number at most, and a device in some places twice: a product behind its
// library and behind its activation, scaled cotangents before a product. Where they do so differently they differ by one unit
// of the last place, 2^-7, and a square behind it doubles that; rules read such results and round on. Attention on tensor cores
// rounds each term of a sum by 2^-8 besides (attention_test.cpp has the bounds), the absolute values of whose terms add up to
// little more than the largest element.
constexpr double tolerance = 0x1p-6;

std::vector<Tensor> pulled(const std::function<Var(Inputs)>& f, const std::vector<Tensor>& inputs, Device device) {
  Tape tape;
  std::vector<Var> vars;
  for (const Tensor& t : inputs) vars.push_back(tape.watch(t.to(DType::f32).to(DType::bf16).to(device)));
  const Var y = f(vars);
  EXPECT_EQ(y.dtype(), DType::bf16);
  const Tensor cotangent = noise(y.shape(), DType::f32, Device::cpu, 1).to(DType::bf16).to(device);
  std::vector<Tensor> all{y.value()};
  for (Tensor& g : tape.vjp(y, cotangent, vars)) all.push_back(std::move(g));
  return all;
}

void expect_close(const std::function<std::vector<Tensor>(Device)>& run, const std::string& what) {
  const std::vector<Tensor> expected = run(Device::cpu), found = in_every_order([&] { return run(device()); });
  ASSERT_EQ(expected.size(), found.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(expected[i].dtype(), found[i].dtype());
    expect_near(expected[i], found[i], tolerance, what + ", result " + std::to_string(i));
  }
}

TEST(CudaBf16, EveryOpAndItsRule) {
  std::uint32_t n = 0;
  for (const Sample& s : samples()) {
    const auto inputs = inputs_of(s, n++);
    expect_close([&](Device d) { return pulled(s.f, inputs, d); }, s.op);
  }
}

TEST(CudaBf16, AllWaysOfTheKernels) {
  struct Case {
    const char* name;
    std::function<Var(Inputs)> f;
    std::vector<Shape> shapes;
  };
  const std::vector<Case> cases = {
      {"vectors and what is left", [](Inputs x) { return silu(x[0]); }, {{4099}}},
      {"views that no vector can be read from", [](Inputs x) { return exp(narrow(x[0], 0, 1, 2)); }, {{3, 33}}},
      {"strides", [](Inputs x) { return mul(x[0], x[1]); }, {{7, 33, 5}, {33, 1}}},
      {"long rows", [](Inputs x) { return sum(x[0], 1); }, {{3, 700}}},
      {"rows in parts", [](Inputs x) { return sum(x[0]); }, {{40000}}},
      {"columns in parts", [](Inputs x) { return sum(x[0], 0); }, {{1500, 40}}},
      {"softmax of long rows", [](Inputs x) { return softmax(x[0]); }, {{2, 700}}},
      {"layer norm of long rows", [](Inputs x) { return layer_norm(x[0], 1e-5); }, {{2, 700}}},
      {"modulated layer norm of long rows", [](Inputs x) { return modulated_layer_norm(x[0], x[1], x[2], 1e-5); },
       {{2, 3, 700}, {2, 700}, {2, 700}}},
      {"group norm of many channels", [](Inputs x) { return group_norm(x[0], x[1], x[2], 4, 1e-5, Activation::silu); },
       {{2, 6, 6, 80}, {80}, {80}}},
      {"a product of an odd length", [](Inputs x) { return linear(x[0], x[1], x[2], Activation::silu); }, {{70, 33}, {66, 33}, {66}}},
      {"a product of an even length", [](Inputs x) { return linear(x[0], x[1], x[2], Activation::silu); }, {{70, 34}, {66, 34}, {66}}},
      {"a stack of products", [](Inputs x) { return matmul(x[0], x[1], true, true); }, {{3, 20, 17}, {3, 9, 20}}},
      {"a convolution with its bias behind", [](Inputs x) { return conv2d(x[0], x[1], x[2], {2, 1, 1, 1, 1}); },
       {{2, 7, 7, 6}, {10, 3, 3, 6}, {10}}},
      {"a convolution of many pixels", [](Inputs x) { return conv2d(x[0], x[1], Var(), {1, 1, 1, 1, 1}); },
       {{1, 66, 66, 2}, {2, 3, 3, 2}}},
      {"attention of large tiles", [](Inputs x) { return attention(x[0], 1); }, {{1, 70, 3 * 40}}},
      {"attention of heads of 100", [](Inputs x) { return attention(x[0], 1); }, {{1, 20, 300}}},
      {"attention of wide heads", [](Inputs x) { return attention(x[0], x[1], x[2], 1); }, {{1, 9, 140}, {1, 12, 140}, {1, 12, 140}}},
      {"dropout", [](Inputs x) { return dropout(x[0], 0.4, 5, 1, 2); }, {{5, 37}}},
      {"patches", [](Inputs x) { return permute(reshape(x[0], {2, 4, 2, 4, 2, 3}), {0, 1, 3, 2, 4, 5}); }, {{2, 8, 8, 3}}},
      {"pad", [](Inputs x) { return pad(x[0], 1, 0, 2, 3); }, {{2, 4, 3, 2}}},
  };
  for (const Case& c : cases) {
    std::vector<Tensor> inputs;
    for (const Shape& shape : c.shapes)
      inputs.push_back(noise(shape, DType::f32, Device::cpu, static_cast<std::uint32_t>(inputs.size() + 3)));
    expect_close([&](Device d) { return pulled(c.f, inputs, d); }, c.name);
  }
}

TEST(CudaBf16, CastsAndFillsHaveTheBitsOfTheCpu) {
  const Tensor x = noise({1000}, DType::f32, Device::cpu, 1), there = x.to(device());
  for (const DType type : {DType::f32, DType::f64}) {
    const Tensor a = x.to(DType::bf16).to(type), b = there.to(DType::bf16).to(type).to(Device::cpu);
    EXPECT_EQ(a.to_doubles(), b.to_doubles());
  }
  EXPECT_EQ(Tensor::full({5}, 1.0 / 3, DType::bf16, device()).to_doubles(), Tensor::full({5}, 1.0 / 3, DType::bf16).to_doubles());
}

}  // namespace
}  // namespace costate

namespace costate::finetune {
namespace {

using Make = std::function<nn::Network(nn::Init&)>;

nn::Network mlp(nn::Init& init) {
  nn::MlpOptions o;
  o.dim = 6, o.hidden = 16, o.depth = 2, o.classes = 2, o.norm = true, o.residual = true;
  nn::VelocityMlp m = nn::make_velocity_mlp(o, init);
  m.output = nn::make_linear(init, 16, 6);
  return nn::Network(std::move(m));
}
nn::Network unet(nn::Init& init) {
  nn::UNetOptions o;
  o.in_channels = o.out_channels = 1, o.block_out_channels = {8, 8}, o.layers_per_block = 1, o.norm_num_groups = 2;
  o.down_block_types = {"DownBlock2D", "AttnDownBlock2D"}, o.up_block_types = {"AttnUpBlock2D", "UpBlock2D"};
  nn::UNet m = nn::make_unet(o, init);
  m.conv_out = nn::make_conv(init, 8, 1, 3);
  return nn::Network(std::move(m));
}
nn::Network dit(nn::Init& init) {
  nn::DitOptions o;
  o.channels = 1, o.height = 4, o.width = 4, o.patch = 2, o.hidden = 16, o.depth = 1, o.heads = 2;
  nn::Dit m = nn::make_dit(o, init);
  m.output = nn::make_linear(init, 16, 4);
  m.blocks[0].modulation = nn::make_linear(init, 16, 96);
  return nn::Network(std::move(m));
}
nn::Network in_bf16(const nn::Network& m) { return nn::Computed{m, DType::bf16}; }

// The prediction and the gradients of x and of all parameters, flattened into one each.
std::vector<Tensor> pulled(const Make& make, const Shape& sample, std::int32_t label, bool half, Device device) {
  nn::Init init(5, DType::f32, Device::cpu);
  nn::Network m = make(init);
  nn::visit(m, [&](const std::string&, Var& p) { p = Var(p.value().to(device)); });
  nn::visit_state(m, [&](const std::string&, Var& p) { p = Var(p.value().to(device)); });
  if (half) m = in_bf16(m);
  const Shape shape = sample.with_front(3);
  const Tensor labels = label < 0 ? Tensor() : Tensor::full({3}, label, DType::i32, device);
  Tape tape;
  std::vector<Var> watched;
  const nn::Network tracked = nn::watch(m, tape, watched);
  watched.push_back(tape.watch(noise(shape, DType::f32, device, 1)));
  const Var y = tracked(watched.back(), Var(Tensor::full({3}, 0.3, DType::f32, device)), labels);
  EXPECT_EQ(y.dtype(), DType::f32);
  std::vector<Tensor> all{y.value()};
  for (Tensor& g : tape.vjp(y, noise(shape, DType::f32, device, 2), watched)) {
    EXPECT_EQ(g.dtype(), DType::f32);
    all.push_back(std::move(g));
  }
  return all;
}

// |a - b|/|b| of the gradients together, and of the prediction.
std::pair<double, double> differences(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double difference[2] = {}, size[2] = {};
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto x = a[i].to_doubles(), y = b[i].to_doubles();
    for (std::size_t j = 0; j < x.size(); ++j)
      difference[i > 0] += (x[j] - y[j]) * (x[j] - y[j]), size[i > 0] += y[j] * y[j];
  }
  return {std::sqrt(difference[0] / size[0]), std::sqrt(difference[1] / size[1])};
}

// Roundings of 2^-9.3 in the root mean square, some twenty of them in a row and there and back for a gradient, add up in
// quadrature to 2^-7 resp. 2^-6.5; the same holds between two devices that round in different places. Room of twice that.
TEST(CudaBf16, NetworksAndTheirGradients) {
  for (const auto& [name, make, sample, label] :
       {std::tuple{"MLP", Make(mlp), Shape{6}, 1}, std::tuple{"DiT", Make(dit), Shape{4, 4, 1}, -1},
        std::tuple{"UNet", Make(unet), Shape{4, 4, 1}, -1}}) {
    const auto exact = pulled(make, sample, label, false, Device::cpu), here = pulled(make, sample, label, true, Device::cpu);
    const auto& of_make = make;
    const auto& of_sample = sample;
    const int of_label = label;
    const auto there = in_every_order([&] { return pulled(of_make, of_sample, of_label, true, device()); });
    for (const auto& [a, b] : {std::pair{&there, &here}, std::pair{&there, &exact}, std::pair{&here, &exact}}) {
      const auto [of_prediction, of_gradient] = differences(*a, *b);
      EXPECT_LT(of_prediction, 0x1p-6) << name;
      EXPECT_LT(of_gradient, 0x1p-5) << name;
    }
    EXPECT_GT(differences(there, exact).second, 0x1p-12) << name;
  }
}

struct Trained {
  std::vector<double> loss;
  std::vector<Tensor> parameters;
  std::string not_recorded;
};

Trained train(const Make& make, const Shape& sample, bool half, bool graphs, Device device, int iterations,
              std::int64_t batch = 2, double rate = 1e-4) {
  const memory::TagScope scope(memory::Tag::parameters);
  nn::Init init(5, DType::f32, device);
  nn::Network base = make(init);
  if (half) base = in_bf16(base);
  const auto dim = static_cast<std::size_t>(sample.numel());
  ControlProblem problem{sde::exact_memoryless({}, sde::uniform_grid(3)), {}, sample,
                         quadratic_reward(std::vector<double>(dim, 0.3), std::vector<double>(dim, 1.0))};
  problem.base = field_of(base), problem.device = device;
  ValueGradientOptions o;
  o.batch = batch, o.seed = 3, o.learner.lr.peak = rate, o.learner.ema_decay = 0.9, o.learner.adamw.eps = 1e-3, o.graphs = graphs;
  ValueGradientRegression objective(problem, base, o);
  Trained t;
  for (int i = 0; i < iterations; ++i) t.loss.push_back(objective.step()["loss"]);
  for (const Tensor& p : nn::parameters(objective.network())) t.parameters.push_back(p.to(Device::cpu));
  t.not_recorded = objective.not_recorded();
  return t;
}

// Adjoint matching: the loss of f32 within the rounding of predictions, whose differences it squares.
TEST(CudaBf16, FineTuningFollowsThatOfF32) {
  for (const auto& [make, sample] : {std::pair{Make(mlp), Shape{6}}, std::pair{Make(dit), Shape{4, 4, 1}}}) {
    const Trained exact = train(make, sample, false, false, Device::cpu, 3), here = train(make, sample, true, false, Device::cpu, 3),
                  there = train(make, sample, true, false, device(), 3);
    for (std::size_t i = 0; i < exact.loss.size(); ++i) {
      EXPECT_NEAR(here.loss[i], exact.loss[i], 0.05 * exact.loss[i]) << "update " << i;
      EXPECT_NEAR(there.loss[i], exact.loss[i], 0.05 * exact.loss[i]) << "update " << i;
    }
    for (const Tensor& p : there.parameters) EXPECT_EQ(p.dtype(), DType::f32);
  }
}

TEST(CudaBf16, FineTuningLowersTheLossAsThatOfF32Does) {
  const Trained exact = train(mlp, {6}, false, false, Device::cpu, 40, 32, 1e-2),
                half = train(mlp, {6}, true, false, Device::cpu, 40, 32, 1e-2);
  const auto mean_of = [](const std::vector<double>& v, std::size_t begin, std::size_t end) {
    double sum = 0;
    for (std::size_t i = begin; i < end; ++i) sum += v[i];
    return sum / static_cast<double>(end - begin);
  };
  const double first = mean_of(exact.loss, 0, 5), last = mean_of(exact.loss, 35, 40), last16 = mean_of(half.loss, 35, 40);
  EXPECT_LT(last, 0.5 * first);
  EXPECT_NE(exact.loss.back(), half.loss.back());
  EXPECT_NEAR(last16, last, 0.05 * first);
}

// What a graph replays casts the parameters that its last launch left: copies are never stale.
TEST(CudaBf16, RecordedIterationsHaveTheBitsOfOthers) {
  for (const auto& [make, sample] : {std::pair{Make(mlp), Shape{6}}, std::pair{Make(dit), Shape{4, 4, 1}}}) {
    const Trained plain = train(make, sample, true, false, device(), 4), recorded = train(make, sample, true, true, device(), 4);
    EXPECT_EQ(recorded.not_recorded, "");
    EXPECT_EQ(plain.loss, recorded.loss);
    for (std::size_t i = 0; i < plain.parameters.size(); ++i)
      EXPECT_EQ(std::memcmp(plain.parameters[i].raw(), recorded.parameters[i].raw(),
                            static_cast<std::size_t>(plain.parameters[i].bytes())),
                0)
          << "parameter " << i;
  }
}

}  // namespace
}  // namespace costate::finetune
