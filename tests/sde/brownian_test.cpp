// Brownian paths: one path at every resolution, its laws, and the pair (w, H).
#include <costate/autograd/ops.h>
#include <costate/sde/brownian.h>
#include <costate/sde/step.h>
#include <gtest/gtest.h>

#include <cmath>

namespace costate::sde {
namespace {

const std::vector<double> kCells = {0, 0.3, 0.45, 1.2};

std::vector<double> values(const Tensor& t) { return t.to_doubles(); }

// Increments of [a, b] and [b, c] as that of [a, c], from the definition of H: I = int (W(r) - W(a)) dr = h (H + w/2).
std::array<double, 2> joined(double h1, double w1, double H1, double h2, double w2, double H2) {
  const double h = h1 + h2, I = h1 * (H1 + w1 / 2) + h2 * w1 + h2 * (H2 + w2 / 2);
  return {w1 + w2, I / h - (w1 + w2) / 2};
}

TEST(Brownian, AWholeCellIsStepNoise) {
  const NoiseKey key{77, 3};
  const BrownianPath path(kCells, key);
  for (const DType dtype : {DType::f32, DType::f64})
    for (int k = 0; k < 3; ++k) {
      const Tensor like = Tensor::empty({5, 7}, dtype);
      const double root = std::sqrt(kCells[k + 1] - kCells[k]);
      const Tensor expected = affine(Var(step_noise(k, like, key)), root, 0).value();
      for (const bool area : {false, true})
        EXPECT_EQ(values(path.increment(kCells[k], kCells[k + 1], {5, 7}, dtype, Device::cpu, area).w), values(expected));
    }
}

// Coarser grids and finer ones, ends in the same and in different cells: [a, c] is [a, b] and [b, c]. Rounding alone: ends
// are exact multiples of 2^-24 of their cells here, so that lengths are as the path sees them.
TEST(Brownian, IncrementsAddUp) {
  const BrownianPath path(kCells, {5, 0});
  const auto at = [](int cell, double share) { return kCells[cell] + share * (kCells[cell + 1] - kCells[cell]); };
  const std::vector<double> times = {0,           at(0, 0.25), at(0, 0x1.abcdp-1), 0.3, 0.45, at(2, 0x1p-24),
                                     at(2, 0.125), at(2, 0.5),  at(2, 1 - 0x1p-24), 1.2};
  const Shape shape{3, 2};
  const auto get = [&](double a, double b) { return path.increment(a, b, shape, DType::f64, Device::cpu, true); };
  for (std::size_t i = 0; i < times.size(); ++i)
    for (std::size_t j = i + 1; j < times.size(); ++j)
      for (std::size_t k = j + 1; k < times.size(); ++k) {
        const double a = times[i], b = times[j], c = times[k];
        const Increment all = get(a, c), left = get(a, b), right = get(b, c);
        for (std::size_t e = 0; e < 6; ++e) {
          const auto sum = joined(b - a, values(left.w)[e], values(left.area)[e], c - b, values(right.w)[e], values(right.area)[e]);
          ASSERT_NEAR(values(all.w)[e], sum[0], 1e-13) << a << " " << b << " " << c;
          // Lengths as differences of times carry 1e-16, of 4e-8: relative 1e-8 of an area of 1e-4.
          ASSERT_NEAR(values(all.area)[e], sum[1], 1e-11) << a << " " << b << " " << c;
        }
      }
}

TEST(Brownian, AskingForTheAreaChangesNothing) {
  const BrownianPath path(kCells, {5, 0});
  for (const auto& [a, b] : std::vector<std::array<double, 2>>{{0, 1.2}, {0.1, 0.2}, {0.1, 0.9}, {0.3, 0.45}, {0.5, 1.2}}) {
    const Increment with = path.increment(a, b, {4}, DType::f64, Device::cpu, true), without = path.increment(a, b, {4}, DType::f64);
    EXPECT_EQ(values(with.w), values(without.w));
    EXPECT_TRUE(with.area.defined());
    EXPECT_FALSE(without.area.defined());
  }
}

// The batch in pieces, and f32 as rounded f64.
TEST(Brownian, IndependentOfTheSplitOfTheBatch) {
  const BrownianPath path(kCells, {9, 100});
  const auto get = [](const BrownianPath& p, std::int64_t rows) {
    return p.increment(0.123, 1.077, {rows, 3}, DType::f64, Device::cpu, true);
  };
  const Increment all = get(path, 10);
  for (const std::int64_t first : {0, 1, 6}) {
    const Increment part = get(path.from(first), 4);
    EXPECT_EQ(values(all.w.slice(first, 4)), values(part.w));
    EXPECT_EQ(values(all.area.slice(first, 4)), values(part.area));
  }
  const auto f32 = values(path.increment(0.123, 1.077, {10, 3}).w), f64 = values(all.w);
  for (std::size_t i = 0; i < f32.size(); ++i) EXPECT_NEAR(f32[i], f64[i], 3e-6);
}

TEST(Brownian, NoTwoCellsOrNodesShareNoise) {
  const BrownianPath path(uniform_grid(2), {1, 0});
  std::vector<std::vector<double>> pieces;
  for (int k = 0; k < 16; ++k) {
    const Increment i = path.increment(k / 16.0, (k + 1) / 16.0, {1}, DType::f64, Device::cpu, true);
    pieces.push_back({values(i.w)[0], values(i.area)[0] * std::sqrt(12.0)});
  }
  for (std::size_t i = 0; i < 32; ++i)
    for (std::size_t j = 0; j < i; ++j) EXPECT_GT(std::abs(std::abs(pieces[i / 2][i % 2]) - std::abs(pieces[j / 2][j % 2])), 1e-7);
}

// All of (w, H) of neighbouring intervals, from whole cells, their halves and pieces of several cells, is Gaussian with
// variance h and h/12 and otherwise uncorrelated: covariances of 80,000 samples within 3 standard errors, which for
// independent normals of variance a and b are sqrt(ab/n), and a sqrt(2/n) for a variance.
TEST(Brownian, Laws) {
  const std::int64_t n = 80'000;
  const std::vector<double> times = {0, 0.09, 0.15, 0.3, 0.7, 0.71, 1.2};
  const BrownianPath path(kCells, {12, 0});
  std::vector<std::vector<double>> columns;
  std::vector<double> variance;
  for (std::size_t k = 0; k + 1 < times.size(); ++k) {
    const double h = times[k + 1] - times[k];
    const Increment i = path.increment(times[k], times[k + 1], {n}, DType::f64, Device::cpu, true);
    columns.push_back(values(i.w)), variance.push_back(h);
    columns.push_back(values(i.area)), variance.push_back(h / 12);
  }
  // 12 means and 78 covariances at once: one of 90 normals is beyond 3 standard errors with probability 0.2. The seed is
  // fixed, and was the first one tried.
  for (std::size_t i = 0; i < columns.size(); ++i) {
    double mean = 0;
    for (const double v : columns[i]) mean += v / static_cast<double>(n);
    EXPECT_LE(std::abs(mean), 3 * std::sqrt(variance[i] / static_cast<double>(n))) << i;
    for (std::size_t j = 0; j <= i; ++j) {
      double covariance = 0;
      for (std::size_t s = 0; s < static_cast<std::size_t>(n); ++s) covariance += columns[i][s] * columns[j][s];
      covariance /= static_cast<double>(n);
      const double error = std::sqrt(variance[i] * variance[j] * (i == j ? 2 : 1) / static_cast<double>(n));
      EXPECT_LE(std::abs(covariance - (i == j ? variance[i] : 0)), 3 * error) << i << " " << j;
    }
  }
}

// H is the integral that it says: against the trapezoidal rule on 1024 points of the same path, whose error given the points
// is normal with variance h^3/12 for a piece of length h, 1/(12 * 1024^2) together; and a cell against its own halves.
TEST(Brownian, AreaIsTheIntegralOfThePath) {
  const int pieces = 1024;
  const BrownianPath path({0, 1}, {3, 0});
  const Shape shape{64};
  const Increment whole = path.increment(0, 1, shape, DType::f64, Device::cpu, true);
  std::vector<double> position(64), integral(64);
  for (int k = 0; k < pieces; ++k) {
    const auto w = values(path.increment(static_cast<double>(k) / pieces, static_cast<double>(k + 1) / pieces, shape, DType::f64).w);
    for (std::size_t i = 0; i < 64; ++i) {
      integral[i] += (position[i] + w[i] / 2) / pieces;
      position[i] += w[i];
    }
  }
  double square_sum = 0;
  for (std::size_t i = 0; i < 64; ++i) {
    EXPECT_NEAR(position[i], values(whole.w)[i], 1e-12);
    const double error = (values(whole.area)[i] - (integral[i] - position[i] / 2)) * std::sqrt(12.0) * pieces;
    square_sum += error * error;
  }
  EXPECT_NEAR(square_sum / 64, 1, 3 * std::sqrt(2.0 / 64));
}

TEST(Brownian, EndsAreRoundedToTicks) {
  const BrownianPath path({0, 1}, {3, 0});
  const auto w = [&](double a, double b) { return values(path.increment(a, b, {2}, DType::f64).w); };
  EXPECT_EQ(w(0, 0.5 + 0x1p-26), w(0, 0.5));
  EXPECT_EQ(w(0x1p-26, 1), w(0, 1));
  EXPECT_EQ(w(0.5, 0.5), (std::vector<double>{0, 0}));
  EXPECT_EQ(w(0, 0), (std::vector<double>{0, 0}));
  EXPECT_EQ(w(1, 1), (std::vector<double>{0, 0}));
  EXPECT_NE(w(0, 0.5 + 0x1p-24), w(0, 0.5));
}

TEST(Brownian, MetaDevice) {
  const BrownianPath path(kCells, {3, 0});
  const Increment i = path.increment(0.1, 1, {4, 2}, DType::f32, Device::meta, true);
  EXPECT_TRUE(i.w.is_meta() && i.area.is_meta());
  EXPECT_EQ(i.area.shape(), (Shape{4, 2}));
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::argument);
    return e.what();
  }
  return "no error";
}

TEST(Brownian, Errors) {
  EXPECT_EQ(error_of([] { BrownianPath({0.5}, {}); }), "BrownianPath: the grid of cells has 1 times, but one cell needs 2");
  EXPECT_EQ(error_of([] { BrownianPath({0, 0.5, 0.5}, {}); }),
            "BrownianPath: the times of the cells must increase, but time 2 is 0.5 after 0.5");
  EXPECT_EQ(error_of([] { BrownianPath({0, NAN}, {}); }), "BrownianPath: time 1 of the grid of cells is nan");
  const BrownianPath path({0, 1}, {});
  for (const auto& [a, b] : std::vector<std::array<double, 2>>{{0.5, 0.25}, {-0.1, 0.5}, {0, 1.5}, {0, NAN}, {NAN, 1}})
    EXPECT_NE(error_of([&, a = a, b = b] { path.increment(a, b, {1}); }).find("expected an interval within [0, 1]"), std::string::npos);
}

}  // namespace
}  // namespace costate::sde
