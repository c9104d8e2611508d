// Convolution as an op: layouts kept beside parameters, memory to the byte, and what a frozen filter costs.
#include <costate/autograd/ops.h>
#include <costate/tensor/flops.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

namespace costate {
namespace {

Tensor noise(const Shape& shape, std::uint32_t which, Device device = Device::cpu) {
  Tensor t = Tensor::empty(shape, DType::f32, device);
  random_normal(t, 5, Stream::user, 0, which);
  return t;
}
Tensor parameter(const Shape& shape, std::uint32_t which, Device device = Device::cpu) {
  const memory::TagScope scope(memory::Tag::parameters);
  return noise(shape, which, device);
}
bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0;
}
constexpr auto packed_tag = static_cast<std::size_t>(memory::Tag::packed);

const Conv2d same{1, 1, 1, 1, 1};

struct Results {
  Tensor y, dx;
};
Results results(const Tensor& x, const Tensor& w, const Conv2d& o = same) {
  Tape tape;
  const Var v = tape.watch(x);
  const Var y = conv2d(v, w, Var(), o);
  return {y.value(), tape.vjp(y, noise(y.shape(), 3), {&v, 1})[0]};
}

TEST(Conv2d, LayoutsOfParametersFollowEveryWrite) {
  // A filter for Winograd's method and one for the direct one.
  for (const Conv2d& o : {same, Conv2d{2, 1, 1, 1, 1}}) {
    Tensor w = parameter({32, 3, 3, 32}, 1);
    const Tensor x = noise({4, 12, 12, 32}, 2);
    const Results before = results(x, w, o);
    const auto packed = memory::live().by_tag[packed_tag];
    EXPECT_EQ(packed > 0, kernels(Device::cpu)
                                  .conv_packed_bytes({.n = 4,
                                                      .height = 12,
                                                      .width = 12,
                                                      .channels = 32,
                                                      .out_height = 12,
                                                      .out_width = 12,
                                                      .out_channels = 32,
                                                      .kernel_height = 3,
                                                      .kernel_width = 3,
                                                      .top = 1,
                                                      .left = 1}) > 0);
    EXPECT_TRUE(same_bits(results(x, w, o).y, before.y));
    w.mutate<float>()[7] += 1;  // in place: nobody shares it
    const Results after = results(x, w, o);
    EXPECT_FALSE(same_bits(after.y, before.y));
    EXPECT_FALSE(same_bits(after.dx, before.dx));
    EXPECT_EQ(memory::live().by_tag[packed_tag], packed);  // remade in its place
    const Results fresh = results(x, parameter({32, 3, 3, 32}, 1).clone(), o);
    EXPECT_TRUE(same_bits(fresh.y, before.y));
    const Results plain = results(x, w.clone(), o);
    EXPECT_TRUE(same_bits(plain.y, after.y));
    EXPECT_TRUE(same_bits(plain.dx, after.dx));
  }
}

TEST(Conv2d, OneFilterForImagesOfSeveralSizes) {
  // 5 x 5 pixels fill the tiles of Winograd's method badly: this size is computed directly, from a layout of
  // its own.
  const Tensor w = parameter({32, 3, 3, 32}, 1);
  for (int round = 0; round < 2; ++round)
    for (const std::int64_t side : {12, 5, 3, 12}) {
      const Tensor x = noise({9, side, side, 32}, 2);
      const Results a = results(x, w), b = results(x, w.clone());
      // Sums of 288 products of size 1 reach some 80; each method errs by a few 1e-6 of that.
      for (std::int64_t i = 0; i < a.y.numel(); ++i)
        ASSERT_NEAR(a.y.values<float>()[i], b.y.values<float>()[i], 5e-4);
      for (std::int64_t i = 0; i < a.dx.numel(); ++i)
        ASSERT_NEAR(a.dx.values<float>()[i], b.dx.values<float>()[i], 5e-4);
    }
}

memory::Usage peak_of_a_step(Device device, bool frozen, bool parameters) {
  const Shape shape{32, 3, 3, 32};
  const Tensor w = parameters ? parameter(shape, 1, device) : noise(shape, 1, device);
  const Tensor v = parameters ? parameter({40, 2, 2, 32}, 4, device) : noise({40, 2, 2, 32}, 4, device);
  const Tensor x = noise({6, 12, 13, 32}, 2, device);
  const memory::PeakScope scope;
  Tape tape;
  const Var vars[] = {tape.watch(x), frozen ? Var(w) : tape.watch(w), frozen ? Var(v) : tape.watch(v)};
  const Var y = average_pool(
      pad(conv2d(conv2d(vars[0], vars[1], Var(), same), vars[2], Var(), {2, 0, 1, 0, 1}), 1, 1, 0, 1), 2);
  const auto g = std::move(tape).vjp(sum(upsample_nearest(y, 2)), std::span(vars, frozen ? 1 : 3));
  return scope.peak();
}

TEST(Conv2d, PlansAreExactWorkspacesIncluded) {
  for (const int n : {1, 2, 3}) {
    set_threads(n);
    for (const bool frozen : {false, true})
      for (const bool parameters : {false, true}) {
        const memory::Usage plan = peak_of_a_step(Device::meta, frozen, parameters),
                            ledger = peak_of_a_step(Device::cpu, frozen, parameters);
        EXPECT_EQ(plan, ledger) << memory::to_string(plan) << " against " << memory::to_string(ledger);
        EXPECT_GT(ledger.total, 0);
      }
  }
  set_threads(1);
}

TEST(Conv2d, FrozenFiltersStoreNoImages) {
  const Tensor x = noise({4, 16, 16, 32}, 1), w = parameter({32, 3, 3, 32}, 2);
  conv2d(x, w, Var(), same);  // packs
  Tape tape;
  const Var v = tape.watch(x);
  const auto before = memory::live().total;
  Var y = conv2d(v, w, Var(), same);
  for (int i = 0; i < 5; ++i) y = conv2d(y, w, Var(), same);
  EXPECT_EQ(memory::live().total - before, y.value().bytes());  // of six results the last
}

// A filter of one pixel sees each pixel alone, which is a linear layer, but for padding: the frame is zero.
TEST(Conv2d, FiltersOfOnePixelSeeThePaddingOfEverySide) {
  const Tensor x = noise({1, 2, 3, 2}, 1), w = noise({4, 1, 1, 2}, 2);
  const std::vector<double> inner = conv2d(x, w, Var(), {}).value().to_doubles();
  for (const Conv2d& o : {Conv2d{1, 1, 0, 0, 0}, Conv2d{1, 0, 1, 0, 0}, Conv2d{1, 0, 0, 1, 0}, Conv2d{1, 0, 0, 0, 1}}) {
    const Tensor y = conv2d(x, w, Var(), o).value();
    ASSERT_EQ(y.shape(), (Shape{1, 2 + o.top + o.bottom, 3 + o.left + o.right, 4}));
    const std::vector<double> padded = y.to_doubles();
    std::size_t at = 0;
    for (int row = -o.top; row < 2 + o.bottom; ++row)
      for (int column = -o.left; column < 3 + o.right; ++column)
        for (int channel = 0; channel < 4; ++channel) {
          const bool inside = row >= 0 && row < 2 && column >= 0 && column < 3;
          EXPECT_NEAR(padded[at++], inside ? inner[static_cast<std::size_t>((row * 3 + column) * 4 + channel)] : 0, 1e-6);
        }
  }
}

TEST(Conv2d, CountsTwoOperationsATapOfEachOutput) {
  const Tensor x = noise({2, 9, 7, 4}, 1), w = noise({6, 3, 2, 2}, 2);
  const std::int64_t before = flops();
  const Var y = conv2d(x, w, Var(), {.stride = 2, .top = 1, .right = 1, .groups = 2});
  EXPECT_EQ(y.shape(), (Shape{2, 4, 4, 6}));
  EXPECT_EQ(flops() - before, 2 * (2 * 4 * 4 * 6) * (3 * 2 * 2));
}

TEST(Conv2d, EmptyBatches) {
  Tape tape;
  const Var x = tape.watch(Tensor::zeros({0, 5, 5, 3})), w = tape.watch(noise({4, 3, 3, 3}, 1));
  const Var y = conv2d(x, w, Var(), same);
  EXPECT_EQ(y.shape(), (Shape{0, 5, 5, 4}));
  const Var wrt[] = {x, w};
  const auto g = tape.vjp(y, Tensor::zeros(y.shape()), wrt);
  EXPECT_EQ(g[0].shape(), x.shape());
  for (const float e : g[1].values<float>()) EXPECT_EQ(e, 0);
}

}  // namespace
}  // namespace costate
