#include <costate/finetune/data/points.h>

#include <cmath>
#include <functional>

#include "data_support.h"

namespace costate::data {
namespace {

using costate::testing::expect_error;

constexpr std::int64_t n = 20000;
constexpr double pi = 3.14159265358979323846;

double x(const Dataset& s, std::int64_t i) { return s.values[static_cast<std::size_t>(2 * i)]; }
double y(const Dataset& s, std::int64_t i) { return s.values[static_cast<std::size_t>(2 * i + 1)]; }
std::int32_t label(const Dataset& s, std::int64_t i) { return s.labels[static_cast<std::size_t>(i)]; }

TEST(Points, AreAFunctionOfSeedAndIndexAlone) {
  const std::function<Dataset(std::int64_t, std::int64_t, std::uint64_t)> laws[] = {
      [](auto c, auto f, auto s) { return mixture_points(ring_mixture(5, 2, 0.1), s, c, f); },
      [](auto c, auto f, auto s) { return two_moons(0.1, s, c, f); },
      [](auto c, auto f, auto s) { return rings(3, 0.01, s, c, f); },
      [](auto c, auto f, auto s) { return checkerboard(4, s, c, f); },
      [](auto c, auto f, auto s) { return swiss_roll(0.01, s, c, f); }};
  for (const auto& law : laws) {
    const Dataset all = law(100, 0, 9), part = law(20, 50, 9);
    check(all);
    EXPECT_TRUE(std::equal(part.values.begin(), part.values.end(), all.values.begin() + 100))
        << all.description;
    EXPECT_TRUE(std::equal(part.labels.begin(), part.labels.end(), all.labels.begin() + 50))
        << all.description;
    EXPECT_NE(law(100, 0, 10).values, all.values) << all.description;
  }
}

TEST(Points, MixtureHasItsWeightsMeansAndDeviations) {
  PlaneMixture m{{1, 3}, {{-2, 1}, {4, 0.5}}, {0.5, 0.25}};
  const Dataset s = mixture_points(m, 1, n);
  double count[2] = {}, sx[2] = {}, sy[2] = {}, square[2] = {};
  for (std::int64_t i = 0; i < n; ++i) {
    const auto k = static_cast<std::size_t>(label(s, i));
    count[k] += 1, sx[k] += x(s, i), sy[k] += y(s, i);
    square[k] += std::pow(x(s, i) - m.means[k][0], 2) + std::pow(y(s, i) - m.means[k][1], 2);
  }
  // Five standard errors everywhere.
  EXPECT_NEAR(count[1] / n, 0.75, 5 * std::sqrt(0.75 * 0.25 / n));
  for (std::size_t k = 0; k < 2; ++k) {
    const double error = 5 * m.deviations[k] / std::sqrt(count[k]);
    EXPECT_NEAR(sx[k] / count[k], m.means[k][0], error);
    EXPECT_NEAR(sy[k] / count[k], m.means[k][1], error);
    EXPECT_NEAR(std::sqrt(square[k] / (2 * count[k])), m.deviations[k], error / std::sqrt(2.0));
  }
}

TEST(Points, RingAndGridMixturesLieWhereTheyShould) {
  const PlaneMixture ring = ring_mixture(8, 3, 0.2);
  ASSERT_EQ(ring.means.size(), 8u);
  for (std::size_t k = 0; k < 8; ++k) {
    EXPECT_NEAR(ring.means[k][0], 3 * std::cos(2 * pi * static_cast<double>(k) / 8), 1e-12);
    EXPECT_NEAR(ring.means[k][1], 3 * std::sin(2 * pi * static_cast<double>(k) / 8), 1e-12);
    EXPECT_EQ(ring.deviations[k], 0.2);
  }
  const PlaneMixture grid = grid_mixture(3, 2, 0.1);
  ASSERT_EQ(grid.means.size(), 9u);
  EXPECT_EQ(grid.means[0], (std::array<double, 2>{-2, -2}));
  EXPECT_EQ(grid.means[5], (std::array<double, 2>{0, 2}));
}

TEST(Points, WithoutNoiseLieOnTheirCurves) {
  const Dataset moons = two_moons(0, 1, n), circles = rings(3, 0, 1, n), roll = swiss_roll(0, 1, n);
  double first = 0, inner = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    // Single precision coordinates of size 1.
    if (label(moons, i) == 0) {
      EXPECT_NEAR(std::hypot(x(moons, i), y(moons, i)), 1, 1e-6);
      EXPECT_GE(y(moons, i), -1e-6);
    } else {
      EXPECT_NEAR(std::hypot(1 - x(moons, i), 0.5 - y(moons, i)), 1, 1e-6);
      EXPECT_LE(y(moons, i), 0.5 + 1e-6);
    }
    first += label(moons, i) == 0, inner += label(circles, i) == 0;
    EXPECT_NEAR(std::hypot(x(circles, i), y(circles, i)), (1.0 + label(circles, i)) / 3, 1e-6);
    const double radius = std::hypot(x(roll, i), y(roll, i)), a = radius * 4.5 * pi;
    EXPECT_NEAR(x(roll, i), radius * std::cos(a), 1e-5);
    EXPECT_NEAR(y(roll, i), radius * std::sin(a), 1e-5);
    EXPECT_GE(radius, 1.0 / 3 - 1e-6);
    EXPECT_LE(radius, 1 + 1e-6);
    EXPECT_EQ(label(roll, i), std::min(2, static_cast<int>(3 * (a / (1.5 * pi) - 1) / 2 + 1e-9))) << a;
  }
  EXPECT_NEAR(first / n, 0.5, 5 * 0.5 / std::sqrt(n));
  EXPECT_NEAR(inner / n, 1.0 / 3, 5 * std::sqrt(2.0 / 9 / n));
}

TEST(Points, NoiseHasItsDeviation) {
  const Dataset clean = two_moons(0, 4, n), noisy = two_moons(0.1, 4, n);
  double square = 0;
  for (std::size_t i = 0; i < clean.values.size(); ++i)
    square += std::pow(noisy.values[i] - clean.values[i], 2);
  EXPECT_NEAR(std::sqrt(square / (2 * n)), 0.1, 5 * 0.1 / std::sqrt(4.0 * n));
}

TEST(Points, CheckerboardFillsTheDarkCellsEvenly) {
  for (const int cells : {1, 2, 3, 4, 5}) {
    const Dataset s = checkerboard(cells, 1, n);
    EXPECT_EQ(s.classes, (cells * cells + 1) / 2);
    std::vector<double> count(static_cast<std::size_t>(s.classes));
    for (std::int64_t i = 0; i < n; ++i) {
      const int column = static_cast<int>((x(s, i) + 1) / 2 * cells),
                row = static_cast<int>((y(s, i) + 1) / 2 * cells);
      ASSERT_TRUE(column >= 0 && column <= cells && row >= 0 && row <= cells);
      // Rounding to f32 can move a point across an edge, but only within 1e-7 of it; none of these is that
      // close.
      EXPECT_EQ((column + row) % 2, 0) << x(s, i) << " " << y(s, i);
      // Rows from below, dark cells from the left.
      int number = 0;
      for (int r = 0; r < row; ++r) number += r % 2 == 0 ? (cells + 1) / 2 : cells / 2;
      EXPECT_EQ(label(s, i), number + column / 2);
      count[static_cast<std::size_t>(label(s, i))] += 1;
    }
    const double p = 1.0 / s.classes;
    for (const double c : count) EXPECT_NEAR(c / n, p, 5 * std::sqrt(p * (1 - p) / n));
  }
}

TEST(Points, RefuseWrongParameters) {
  expect_error(Fault::argument, "noise", [] { two_moons(-1, 0, 1); });
  expect_error(Fault::argument, "noise", [] { swiss_roll(NAN, 0, 1); });
  expect_error(Fault::argument, "ring", [] { rings(0, 0.1, 0, 1); });
  expect_error(Fault::argument, "cells", [] { checkerboard(0, 0, 1); });
  expect_error(Fault::argument, "at least one", [] { checkerboard(4, 0, 0); });
  expect_error(Fault::argument, "numbered", [] { checkerboard(4, 0, 1, -1); });
  expect_error(Fault::argument, "component", [] { ring_mixture(0, 1, 1); });
  expect_error(Fault::argument, "components", [] { grid_mixture(1001, 1, 1); });
  expect_error(Fault::argument, "equally many", [] { mixture_points({{1}, {}, {}}, 0, 1); });
  expect_error(Fault::argument, "weight 1", [] {
    mixture_points({{1, -1}, {{0, 0}, {1, 1}}, {1, 1}}, 0, 1);
  });
  expect_error(Fault::argument, "positive sum", [] { mixture_points({{0}, {{0, 0}}, {1}}, 0, 1); });
  expect_error(Fault::argument, "deviation 0", [] { mixture_points({{1}, {{0, 0}}, {NAN}}, 0, 1); });
  expect_error(Fault::argument, "mean 0", [] { mixture_points({{1}, {{0, INFINITY}}, {1}}, 0, 1); });
}

}  // namespace
}  // namespace costate::data
