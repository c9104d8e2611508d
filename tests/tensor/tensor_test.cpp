#include <costate/tensor/packed.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace costate {
namespace {

Tensor counting(const Shape& shape) {
  std::vector<float> v(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i);
  return Tensor::from(v, shape);
}

TEST(Tensor, ViewsShareAndWritingUnshares) {
  Tensor a = counting({4, 3});
  Tensor row = a[2];
  EXPECT_EQ(row.shape(), (Shape{3}));
  EXPECT_EQ(row.to_doubles(), (std::vector<double>{6, 7, 8}));
  EXPECT_TRUE(row.shares_storage_with(a));
  EXPECT_EQ(a.slice(1, 2).reshape({-1})[5].item(), 8);
  row.mutate<float>()[0] = 100;
  EXPECT_FALSE(row.shares_storage_with(a));
  EXPECT_EQ(a[2].to_doubles()[0], 6);
  a.mutate<float>()[0] = -1;  // the only owner writes where it is
  EXPECT_EQ(a.to_doubles()[0], -1);
}

TEST(Tensor, CopyOnWriteKeepsTheTag) {
  const auto before = memory::live();
  Tensor a;
  {
    const memory::TagScope scope(memory::Tag::parameters);
    a = counting({16});
  }
  Tensor b = a;
  b.mutate<float>()[0] = 1;
  const auto after = memory::live();
  EXPECT_EQ(after.by_tag[int(memory::Tag::parameters)] - before.by_tag[int(memory::Tag::parameters)], 128);
  EXPECT_EQ(after.by_tag[int(memory::Tag::activations)], before.by_tag[int(memory::Tag::activations)]);
}

TEST(Tensor, EveryWriteIsCounted) {
  // Packed layouts of a parameter are stale when the version differs.
  const Tensor t = Tensor::zeros({2, 2});
  const auto version = [&] { return t.storage()->version.load(); };
  auto v = version();
  t.fill(1);
  EXPECT_NE(version(), std::exchange(v, version()));
  t.copy_from(Tensor::zeros({2, 2}));
  EXPECT_NE(version(), std::exchange(v, version()));
  random_normal(t, 1, Stream::user, 0, 0);
  EXPECT_NE(version(), std::exchange(v, version()));
}

TEST(Tensor, Converts) {
  const Tensor a = Tensor::from(std::vector<double>{1.5, -2.25, 3}, {3});
  EXPECT_EQ(a.to(DType::f32).to(DType::f64).to_doubles(), a.to_doubles());
  EXPECT_EQ(a.to(DType::i32).to_doubles(), (std::vector<double>{1, -2, 3}));
  EXPECT_TRUE(a.to(DType::f64).shares_storage_with(a));
  const Tensor m = a.to(Device::meta);
  EXPECT_TRUE(m.is_meta());
  EXPECT_EQ(m.raw(), nullptr);
  EXPECT_TRUE(std::isnan(Tensor::scalar(1, DType::f32, Device::meta).item()));
}

TEST(Tensor, EmptyTensorsAreTensors) {
  const Tensor e = Tensor::zeros({0, 3});
  EXPECT_EQ(e.clone().numel(), 0);
  EXPECT_EQ(e.reshape({3, 0}).shape(), (Shape{3, 0}));
  EXPECT_EQ(e.slice(0, 0).numel(), 0);
  EXPECT_TRUE(e.to(DType::f64).values<double>().empty());
}

TEST(Tensor, MalformedCallsAreRefused) {
  const Tensor t = counting({2, 3}), none;
  constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max();
  const std::function<void()> calls[] = {
      [&] { (void)Tensor::empty({huge / 2}); },
      [&] { (void)Tensor::empty({std::int64_t{1} << 45}); },
      [&] { (void)Tensor::from(std::vector<float>{1, 2}, {3}); },
      [&] { (void)t.values<double>(); },
      [&] { (void)none.values<float>(); },
      [&] { (void)t.to(Device::meta).values<float>(); },
      [&] { (void)t.to(Device::meta).to(Device::cpu); },
      [&] { (void)t.item(); },
      [&] { (void)none.item(); },
      [&] { (void)t.reshape({4}); },
      [&] { (void)t.reshape({-1, -1}); },
      [&] { (void)t.reshape({-1, 4}); },
      [&] { (void)t.reshape({-1, 0}); },
      [&] { (void)t.reshape({-2, 3}); },
      [&] { (void)t.slice(1, 2); },
      [&] { (void)t.slice(huge, huge); },
      [&] { (void)t.slice(-1, 1); },
      [&] { (void)t[2]; },
      [&] { (void)Tensor::scalar(1).slice(0, 1); },
      [&] { (void)none.clone(); },
      [&] { (void)none.to(DType::f64); },
      [&] { (void)none.to(Device::meta); },
      [&] { (void)none.reshape({1}); },
      [&] { none.fill(1); },
      [&] { none.copy_from(t); },
      [&] { Tensor().copy_from(Tensor()); },
      [&] { Tensor().unshare(); },
      [&] { t.copy_from(none); },
      [&] { t.copy_from(Tensor::zeros({3, 2})); },
      [&] { t.copy_from(t.to(DType::f64)); },
      [&] { random_normal(none, 1, Stream::user, 0, 0); },
      [&] { random_normal(Tensor::zeros({2}, DType::i32), 1, Stream::user, 0, 0); },
      [&] { random_uniform(t, 1, Stream::user, std::uint64_t{1} << 48, 0); },
      [&] { random_uniform(t, 1, static_cast<Stream>(1u << 16), 0, 0); },
      [&] { permutation(-1, 0, 0); },
  };
  int n = 0;
  for (const auto& call : calls) {
    try {
      call();
      ADD_FAILURE() << "call " << n << " was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::argument) << n;
      EXPECT_NE(std::string(e.what()).find(':'), std::string::npos) << e.what();
    }
    ++n;
  }
}

TEST(Packed, OnlyParametersAndOnlyFresh) {
  Tensor plain = counting({64, 64});
  EXPECT_FALSE(packed(plain, true).offered);
  const memory::TagScope scope(memory::Tag::parameters);
  Tensor p = counting({64, 64});
  const void* a = packed(p, true).data;
  if (!a) GTEST_SKIP() << "this table packs nothing";
  EXPECT_EQ(packed(p, true).data, a);
  const auto bytes = static_cast<std::size_t>(kernels(p).packed_bytes(DType::f32, Precision::f32, 64, 64));
  const std::vector<std::byte> old(static_cast<const std::byte*>(a), static_cast<const std::byte*>(a) + bytes);
  p.mutate<float>()[5] = -1;
  const void* b = packed(p, true).data;
  ASSERT_NE(b, nullptr);
  EXPECT_NE(std::vector<std::byte>(static_cast<const std::byte*>(b), static_cast<const std::byte*>(b) + bytes), old);
  EXPECT_FALSE(packed(p.slice(0, 32), true).offered);  // another matrix within the same storage
}

}  // namespace
}  // namespace costate
