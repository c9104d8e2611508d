// Initial parameters: their moments, and that they depend on nothing but seed and number.
#include "nn_support.h"

#include <costate/nn/init.h>
#include <costate/nn/mlp.h>
#include <costate/tensor/parallel.h>

#include <cmath>

namespace costate::nn {
namespace {

struct Moments {
  double mean = 0, variance = 0, largest = 0;
};
Moments moments(const Tensor& t) {
  const auto v = t.to_doubles();
  Moments m;
  for (const double x : v)
    m.mean += x / static_cast<double>(v.size()), m.largest = std::max(m.largest, std::abs(x));
  for (const double x : v) m.variance += (x - m.mean) * (x - m.mean) / static_cast<double>(v.size());
  return m;
}
double correlation(const Tensor& a, const Tensor& b) {
  const auto x = a.to_doubles(), y = b.to_doubles();
  const Moments mx = moments(a), my = moments(b);
  double c = 0;
  for (std::size_t i = 0; i < x.size(); ++i) c += (x[i] - mx.mean) * (y[i] - my.mean);
  return c / static_cast<double>(x.size()) / std::sqrt(mx.variance * my.variance);
}

TEST(Init, HasTheVarianceItPromises) {
  // n = 200,000 draws: the mean has standard error sqrt(variance / n); the variance has variance * sqrt((k -
  // 1) / n), k the kurtosis, 9/5 for the uniform and 3 for the normal law. All within four of them, for fixed
  // seeds.
  const double n = 200000;
  Init init(1);
  const Tensor u = init.uniform({400, 500}, 500, std::sqrt(2.0)), g = init.normal({400, 500}, 0.3);
  const Moments mu = moments(u), mg = moments(g);
  const double vu = 2.0 / 500, vg = 0.09;
  EXPECT_NEAR(mu.mean, 0, 4 * std::sqrt(vu / n));
  EXPECT_NEAR(mu.variance, vu, 4 * vu * std::sqrt(0.8 / n));
  EXPECT_LE(mu.largest, std::sqrt(3 * vu) * (1 + 1e-6));
  EXPECT_GE(mu.largest, std::sqrt(3 * vu) * 0.999);
  EXPECT_NEAR(mg.mean, 0, 4 * std::sqrt(vg / n));
  EXPECT_NEAR(mg.variance, vg, 4 * vg * std::sqrt(2 / n));
  // Parameters and seeds are independent: the correlation of independent samples has standard error 1 /
  // sqrt(n).
  Init same(1), other(2);
  const Tensor first = same.uniform({400, 500}, 500), second = same.uniform({400, 500}, 500);
  EXPECT_NEAR(correlation(first, second), 0, 4 / std::sqrt(n));
  EXPECT_NEAR(correlation(first, other.uniform({400, 500}, 500)), 0, 4 / std::sqrt(n));
}

TEST(Init, DependsOnSeedAndNumberAlone) {
  Init a(7), b(7);
  const Tensor wa = a.uniform({30, 40}, 40), va = a.normal({17}, 1);
  const Tensor wb = b.uniform({30, 40}, 40), vb = b.uniform({5}, 5);  // another second parameter
  EXPECT_TRUE(same_bits(wa, wb));
  EXPECT_NE(va.to_doubles()[0], vb.to_doubles()[0]);
  // Constants take no number: a layer with or without bias leaves the next weight as it is.
  Init c(7), d(7);
  c.uniform({3}, 3), d.uniform({3}, 3);
  c.zeros({100});
  EXPECT_TRUE(same_bits(c.normal({50}, 1), d.normal({50}, 1)));
}

TEST(Init, DoesNotDependOnThreadsTypeOrDevice) {
  const int before = threads();
  Init one(3), many(3), wide(3, DType::f64), meta(3, DType::f32, Device::meta);
  set_threads(1);
  const Tensor a = one.uniform({300, 70}, 70);
  set_threads(3);
  const Tensor b = many.uniform({300, 70}, 70);
  set_threads(before);
  EXPECT_TRUE(same_bits(a, b));
  const Tensor c = wide.uniform({300, 70}, 70);
  ASSERT_EQ(c.dtype(), DType::f64);
  // The same draws, scaled in another precision: two roundings of numbers up to 2 * sqrt(3/70).
  const auto x = a.to_doubles(), y = c.to_doubles();
  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], y[i], 1e-7);
  const Tensor d = meta.uniform({300, 70}, 70);
  EXPECT_TRUE(d.is_meta());
  EXPECT_EQ(d.shape(), a.shape());
}

TEST(Init, ParametersAreChargedAsParameters) {
  const auto tag = static_cast<std::size_t>(memory::Tag::parameters);
  const auto before = memory::live().by_tag[tag];
  Init init(1);
  const Linear layer = make_linear(init, 64, 16);
  EXPECT_EQ(memory::live().by_tag[tag] - before, 64 * 16 * 4 + 16 * 4);
  for (const double b : layer.bias.value().to_doubles()) EXPECT_EQ(b, 0);
  expect_error(Fault::argument, "fan-in 0", [&] { init.uniform({3, 0}, 0); });
}

}  // namespace
}  // namespace costate::nn
