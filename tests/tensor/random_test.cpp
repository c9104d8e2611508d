// Philox against the published known-answer vectors, the normal law, and independence of splits, threads, element types
// and instruction sets.
#include <costate/tensor/box_muller.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace costate {
namespace {

using Words = std::array<std::uint32_t, 4>;

// The three lines "philox4x32 10" (counter, key, result) of the file tests/kat_vectors of Random123,
// https://github.com/DEShawResearch/random123, released with Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"
// (SC 2011). Compared word by word with verbatim copies of those lines.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  // Digits of pi.
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, CounterLayout) {
  const Philox p{0x0123456789abcdefull, Stream::noise};
  EXPECT_EQ(p.words(0x0000123487654321ull, 7, 9),
            philox4x32({9, 7, 0x87654321, 0x12340000}, {0x89abcdef, 0x01234567}));
}

TEST(BoxMuller, WithinTheStatedErrorOfTheExactNumbers) {
  // The stated bound, 4e-7 (half an ulp of a float in [4, 8) is 2.4e-7; the polynomials add less).
  double worst = 0, largest = 0;
  std::uint64_t state = 1;
  const auto next = [&] { return static_cast<std::uint32_t>((state = state * 6364136223846793005ull + 1442695040888963407ull) >> 32); };
  for (int i = 0; i < 300'000; ++i) {
    std::uint32_t w0 = next(), w1 = next();
    if (i < 256) w0 = static_cast<std::uint32_t>(i) << 8;                    // the tails
    else if (i < 512) w0 = 0xffffffffu - (static_cast<std::uint32_t>(i - 256) << 8);  // radii near zero
    else if (i < 1024) w1 = (static_cast<std::uint32_t>(i - 512) << 23) + (i & 1 ? 0 : 0xffffff00u);  // octants' edges
    float v[2];
    box_muller(w0, w1, v);
    const long double u = ((w0 >> 8) + 0.5L) / 16777216.0L, angle = 2 * 3.14159265358979323846264L * ((w1 >> 8) + 0.5L) / 16777216.0L;
    const long double r = std::sqrt(-2 * std::log(u));
    worst = std::max({worst, std::abs(static_cast<double>(v[0] - r * std::cos(angle))),
                      std::abs(static_cast<double>(v[1] - r * std::sin(angle)))});
    largest = std::max({largest, std::abs(double{v[0]}), std::abs(double{v[1]})});
  }
  EXPECT_LE(worst, 4e-7);
  EXPECT_LE(largest, 5.9);
}

TEST(Random, NormalLaw) {
  constexpr std::int64_t n = 1'000'000;
  const Tensor t = Tensor::empty({1000, 1000}, DType::f64);
  random_normal(t, 42, Stream::noise, 0, 3);
  auto v = t.to_doubles();
  double m[5] = {};
  for (const double x : v)
    for (int k = 1; k <= 4; ++k) m[k] += std::pow(x, k) / n;
  // Five standard errors: Var x = 1, Var x^2 = 2, Var x^3 = 15, Var x^4 = 96.
  const double se = 1 / std::sqrt(double{n});
  EXPECT_NEAR(m[1], 0, 5 * se);
  EXPECT_NEAR(m[2], 1, 5 * std::sqrt(2.0) * se);
  EXPECT_NEAR(m[3], 0, 5 * std::sqrt(15.0) * se);
  EXPECT_NEAR(m[4], 3, 5 * std::sqrt(96.0) * se);
  // Kolmogorov's distance: P(sqrt(n) D > 2.2) = 1.3e-4.
  std::sort(v.begin(), v.end());
  double distance = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double f = 0.5 * std::erfc(-v[static_cast<std::size_t>(i)] / std::sqrt(2.0));
    distance = std::max({distance, std::abs(f - double(i) / n), std::abs(f - double(i + 1) / n)});
  }
  EXPECT_LT(distance * std::sqrt(double{n}), 2.2);
  // Neighbours, of elements and of steps, are uncorrelated: five standard errors.
  const Tensor next = Tensor::empty({1000, 1000}, DType::f64);
  random_normal(next, 42, Stream::noise, 0, 4);
  const auto a = t.values<double>(), b = next.values<double>();
  double within = 0, across = 0;
  for (std::size_t i = 0; i + 1 < a.size(); ++i) within += a[i] * a[i + 1] / n, across += a[i] * b[i] / n;
  EXPECT_NEAR(within, 0, 5 * se);
  EXPECT_NEAR(across, 0, 5 * se);
}

TEST(Random, UniformLaw) {
  const Tensor t = Tensor::empty({1000, 1000});
  random_uniform(t, 43, Stream::time, 0, 0);
  double mean = 0, square = 0;
  for (const double x : t.to_doubles()) {
    ASSERT_GT(x, 0);
    ASSERT_LT(x, 1);
    mean += x / 1e6, square += x * x / 1e6;
  }
  EXPECT_NEAR(mean, 0.5, 5 * std::sqrt(1.0 / 12) / 1e3);
  EXPECT_NEAR(square, 1.0 / 3, 5 * std::sqrt(4.0 / 45) / 1e3);  // Var x^2 = 1/5 - 1/9
}

TEST(Random, SameNoiseForEverySplitThreadTypeAndTable) {
  for (const std::int64_t width : {1, 2, 3, 4, 7, 65, 5000})
    for (const bool normal : {true, false}) {
      constexpr std::int64_t samples = 13;
      constexpr std::uint64_t first = (std::uint64_t{1} << 32) - 5;  // across the word boundary of the counter
      const auto generate = [&](const Tensor& t, std::uint64_t from) {
        (normal ? random_normal : random_uniform)(t, 77, Stream::coupling, from, 2);
      };
      const Tensor whole = Tensor::empty({samples, width});
      generate(whole, first);
      const auto expected = whole.to_doubles();
      for (std::int64_t i = 0; i < samples; ++i) {  // one by one
        const Tensor one = Tensor::empty({1, width}, DType::f64);
        generate(one, first + static_cast<std::uint64_t>(i));
        const auto values = one.to_doubles();
        for (std::int64_t e = 0; e < width; ++e)
          ASSERT_EQ(values[static_cast<std::size_t>(e)], expected[static_cast<std::size_t>(i * width + e)]);
      }
      for (const int n : {2, 3}) {
        set_threads(n);
        const Tensor t = Tensor::empty({samples, width});
        generate(t, first);
        EXPECT_EQ(t.to_doubles(), expected);
      }
      set_threads(1);
      for (const Kernels* table : cpu_tables()) {
        std::vector<float> out(expected.size());
        table->random(DType::f32, normal, 77, static_cast<std::uint32_t>(Stream::coupling), first, 2, samples, width, out.data());
        EXPECT_EQ(std::vector<double>(out.begin(), out.end()), expected) << table->name;
      }
      const Philox philox{77, Stream::coupling};
      for (std::int64_t e = 0; e < width; ++e) {
        const auto element = static_cast<std::uint32_t>(e);
        EXPECT_EQ(normal ? philox.normal(first, 2, element) : philox.uniform(first, 2, element),
                  expected[static_cast<std::size_t>(e)]);
      }
    }
}

TEST(Random, Permutations) {
  for (const std::int64_t n : {0, 1, 2, 100}) {
    auto p = permutation(n, 5, 0);
    const auto q = permutation(n, 5, 1);
    EXPECT_EQ(p, permutation(n, 5, 0));
    if (n == 100) {
      EXPECT_NE(p, q);
    }
    std::sort(p.begin(), p.end());
    std::vector<std::int64_t> all(static_cast<std::size_t>(n));
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(p, all);
  }
  // Of three items, each of the six orders comes equally often: five standard errors of 1/6 over 6000 draws.
  std::array<int, 27> counts{};
  for (std::uint64_t e = 0; e < 6000; ++e) {
    const auto p = permutation(3, 9, e);
    ++counts[static_cast<std::size_t>(9 * p[0] + 3 * p[1] + p[2])];
  }
  for (const int c : counts)
    if (c) {
      EXPECT_NEAR(c, 1000, 5 * std::sqrt(6000 * (1.0 / 6) * (5.0 / 6)));
    }
  EXPECT_EQ(std::count_if(counts.begin(), counts.end(), [](int c) { return c > 0; }), 6);
}

}  // namespace
}  // namespace costate
