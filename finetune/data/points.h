// Point sets in the plane, each a law written down in a line. Point i of a set is a function of (parameters,
// seed, first + i) alone. Every set has item shape (2), and its labels name the part of the law a point came
// from.
#pragma once
#include <costate/finetune/data/dataset.h>
#include <array>
#include <cstdint>
#include <vector>

namespace costate::data {

// sum_k weight_k N(mean_k, deviation_k^2 I). Weights need not be normalised.
struct PlaneMixture {
  std::vector<double> weights;
  std::vector<std::array<double, 2>> means;
  std::vector<double> deviations;
};

// n equal components on a circle: mean_k = radius (cos 2 pi k / n, sin 2 pi k / n).
PlaneMixture ring_mixture(int n, double radius, double deviation);
// n x n equal components: mean_(i,j) = spacing (i - (n-1)/2, j - (n-1)/2), number i n + j.
PlaneMixture grid_mixture(int n, double spacing, double deviation);

// Label: the component.
Dataset mixture_points(const PlaneMixture& mixture, std::uint64_t seed, std::int64_t count,
                       std::int64_t first = 0);

// With a uniform on (0, pi) and the label l 0 or 1, equally likely:
//   l = 0: (cos a, sin a);  l = 1: (1 - cos a, 1/2 - sin a);  plus N(0, noise^2 I).
Dataset two_moons(double noise, std::uint64_t seed, std::int64_t count, std::int64_t first = 0);

// Label l uniform on 0 ... n-1, angle a uniform: (1 + l) / n (cos a, sin a) plus N(0, noise^2 I). The outer
// ring has radius 1.
Dataset rings(int n, double noise, std::uint64_t seed, std::int64_t count, std::int64_t first = 0);

// Uniform on the dark cells of a board of n x n cells over [-1, 1]^2: cells (i, j) with i + j even, column i
// from the left, row j from below. Label: the number of the cell among the dark ones, row by row.
Dataset checkerboard(int n, std::uint64_t seed, std::int64_t count, std::int64_t first = 0);

// With u uniform on (0, 1) and a = 3 pi / 2 (1 + 2 u): a / (9 pi / 2) (cos a, sin a) plus N(0, noise^2 I):
// the spiral of the Swiss roll, one and a half turns, outer radius 1. Label: 0, 1 or 2, the third of the roll
// by u.
Dataset swiss_roll(double noise, std::uint64_t seed, std::int64_t count, std::int64_t first = 0);

}  // namespace costate::data
