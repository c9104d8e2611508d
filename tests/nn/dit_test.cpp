// The diffusion transformer as a network: shapes, time, null class, learned variance, first values, refusals.
#include "nn_support.h"

#include <costate/nn/dit.h>
#include <costate/nn/lora.h>
#include <costate/nn/network.h>
#include <costate/nn/save.h>

#include <unistd.h>
#include <cmath>
#include <filesystem>

namespace costate::nn {
namespace {

DitOptions small() {
  DitOptions o;
  o.channels = 1, o.height = 8, o.width = 12, o.patch = 4, o.hidden = 16, o.depth = 2, o.heads = 2,
  o.classes = 3;
  return o;
}
Dit random_dit(const DitOptions& o, DType dtype = DType::f64) {
  Init init(3, dtype);
  return randomised(make_dit(o, init), 0.3);
}

TEST(Dit, StartsAtZeroWithBlocksThatChangeNothing) {
  Init init(1);
  const Dit m = make_dit(small(), init);
  const Var x(random_tensor({2, 8, 12, 1}, 1, DType::f32)), t(Tensor::full({2}, 0.5));
  for (const double v : m(x, t, Tensor()).value().to_doubles()) EXPECT_EQ(v, 0);
  const Var h(random_tensor({2, 6, 16}, 2, DType::f32)), c(random_tensor({2, 16}, 3, DType::f32));
  EXPECT_TRUE(same_bits(m.blocks[0](h, c, 2, facebook_dialect).value(), h.value()));
  // Glorot: at most sqrt(6 / (in + out)), and close to it among 768 draws.
  double largest = 0;
  for (const double w : m.blocks[0].qkv.weight.value().to_doubles()) largest = std::max(largest, std::abs(w));
  EXPECT_LE(largest, std::sqrt(6.0 / 64) * (1 + 1e-6));
  EXPECT_GT(largest, 0.95 * std::sqrt(6.0 / 64));
  double squares = 0;
  for (const double w : m.time0.weight.value().to_doubles()) squares += w * w;
  // The mean of 4096 squares of deviation 0.02: within 5 standard errors, sqrt(2/4096) each.
  EXPECT_NEAR(squares / 4096 / 4e-4, 1, 5 * std::sqrt(2.0 / 4096));
}

// One tensor of q, k and v, and three: the same numbers, for the sweep too.
TEST(Dit, PackedAttentionIsAttention) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor packed = random_tensor({2, 7, 36}, 1, dtype),
                 cotangent = random_tensor({2, 7, 12}, 2, dtype);
    Tape tape;
    const Var a = tape.watch(packed), b = tape.watch(packed);
    const Var y = attention(a, 3);
    const Var z = attention(narrow(b, 2, 0, 12), narrow(b, 2, 12, 12), narrow(b, 2, 24, 12), 3);
    EXPECT_TRUE(same_bits(y.value(), z.value()));
    EXPECT_TRUE(same_bits(tape.vjp(y, cotangent, {&a, 1})[0], tape.vjp(z, cotangent, {&b, 1})[0]));
  }
}

TEST(Dit, IsANetworkOfTimeFromZeroToOne) {
  DitOptions o = small();
  const Dit m = random_dit(o);
  const Network n = m;
  const Var x(random_tensor({2, 8, 12, 1}, 1)), t(Tensor::from(std::vector<double>{0.25, 0.75}, {2}));
  const Tensor labels = Tensor::from(std::vector<std::int32_t>{2, 0}, {2});
  const Var thousands(Tensor::from(std::vector<double>{250, 750}, {2}));
  EXPECT_TRUE(same_bits(n(x, t, labels).value(), m.raw(x, thousands, labels).value()));
  // A picture of one channel may go without its axis and comes back without it.
  const Var flat = n(reshape(x, {2, 8, 12}), t, labels);
  EXPECT_EQ(flat.shape(), (Shape{2, 8, 12}));
  EXPECT_EQ(flat.value().to_doubles(), n(x, t, labels).value().to_doubles());
  // Without labels: the null class, the row behind the others.
  const Tensor null = Tensor::from(std::vector<std::int32_t>{3, 3}, {2});
  EXPECT_TRUE(same_bits(n(x, t, Tensor()).value(), n(x, t, null).value()));
  EXPECT_GT(largest_difference(n(x, t, Tensor()).value(), n(x, t, labels).value()), 1e-3);
  // A network that was trained on timesteps 999..0 from noise to data.
  o.timestep = {-999, 999};
  Dit pretrained = m;
  pretrained.options = o;
  const Var backwards(Tensor::from(std::vector<double>{749.25, 249.75}, {2}));
  EXPECT_TRUE(same_bits(pretrained(x, t, labels).value(), m.raw(x, backwards, labels).value()));
  // Each row on its own.
  const Var second = n(Var(x.value().slice(1, 1)), Var(t.value().slice(1, 1)), labels.slice(1, 1));
  EXPECT_LE(largest_difference(second.value(), n(x, t, labels).value().slice(1, 1)), 1e-14);
}

TEST(Dit, LearnedVarianceIsNoPartOfThePrediction) {
  DitOptions o = small();
  o.channels = 2, o.learn_sigma = true;
  const Dit m = random_dit(o);
  const Var x(random_tensor({2, 8, 12, 2}, 1)), t(Tensor::full({2}, 0.5, DType::f64));
  const Var all = m.raw(x, Var(Tensor::full({2}, 500, DType::f64)), Tensor());
  EXPECT_EQ(all.shape(), (Shape{2, 8, 12, 4}));
  EXPECT_TRUE(same_bits(m(x, t, Tensor()).value(), narrow(all, 3, 0, 2).value()));
}

TEST(Dit, PositionsAreKeptInFilesAndNotTrained) {
  const Dit m = random_dit(small(), DType::f32);
  for (const std::string& name : names(m)) EXPECT_NE(name, "pos_embed");
  EXPECT_EQ(names(m).size(), 31u);
  const auto path = std::filesystem::temp_directory_path() / ("costate_dit_" + std::to_string(::getpid()));
  save(path.string(), m);
  Init init(8);
  Dit other = make_dit(small(), init);
  other.positions = Var(Tensor::zeros(other.positions.shape()));
  const LoadReport report = load(path.string(), other);
  std::filesystem::remove(path);
  EXPECT_TRUE(report.missing.empty() && report.unexpected.empty());
  EXPECT_TRUE(same_bits(other.positions.value(), m.positions.value()));
  EXPECT_TRUE(same_bits(other.blocks[1].qkv.weight.value(), m.blocks[1].qkv.weight.value()));
}

TEST(Dit, TakesAdaptersInEveryLinearLayer) {
  const Dit m = random_dit(small(), DType::f32);
  LoraOptions lora;
  lora.rank = 2, lora.targets = {"qkv", "proj"};
  EXPECT_EQ(names(Adapters{with_lora(m, lora)}).size(), 2u * 2 * 2);
  lora.targets = {"*"};
  EXPECT_EQ(names(Adapters{with_lora(m, lora)}).size(), 2u * (2 + 2 * 5 + 2));
}

TEST(Dit, RefusesInWords) {
  Init init(1);
  const auto with = [&](const auto& change, const std::string& words) {
    DitOptions o = small();
    change(o);
    expect_error(Fault::argument, words, [&] { make_dit(o, init); });
  };
  with([](DitOptions& o) { o.patch = 3; }, "patch 3");
  with([](DitOptions& o) { o.hidden = 18; }, "multiple of 4");
  with([](DitOptions& o) { o.heads = 3; }, "heads 3");
  with([](DitOptions& o) { o.depth = 0; }, "depth 0");
  with([](DitOptions& o) { o.mlp_ratio = 1.03; }, "mlp_ratio 1.03");
  with([](DitOptions& o) { o.classes = -1; }, "classes -1");
  with([](DitOptions& o) { o.channels = 0; }, "x 0 (height");
  const Dit m = make_dit(small(), init);
  const Var x(Tensor::zeros({2, 8, 12, 1})), t(Tensor::zeros({2}));
  expect_error(Fault::argument, "(rows, 8, 12, 1)", [&] {
    m(Var(Tensor::zeros({2, 8, 8, 1})), t, Tensor());
  });
  expect_error(Fault::argument, "t has shape (3,)", [&] { m(x, Var(Tensor::zeros({3})), Tensor()); });
  expect_error(Fault::argument, "gather_rows", [&] {
    m(x, t, Tensor::from(std::vector<std::int32_t>{0, 4}, {2}));
  });
  const Var rgb(Tensor::zeros({2, 32, 32, 3}));
  expect_error(Fault::argument, "make_dit", [&] { Dit()(rgb, t, Tensor()); });
  DitOptions o = small();
  o.classes = 0;
  const Dit plain = make_dit(o, init);
  expect_error(Fault::argument, "without classes", [&] {
    plain(x, t, Tensor::from(std::vector<std::int32_t>{0, 1}, {2}));
  });
}

}  // namespace
}  // namespace costate::nn
