// Earth mover's distance between weighted point sets: exact in one dimension, W1 = int |F(x) - G(x)| dx, and
// sliced in more, the mean over random unit directions of the one-dimensional distance of the projections
// (Bonneel, Rabin, Peyre, Pfister: Sliced and Radon Wasserstein barycenters of measures, 2015).
#pragma once
#include <cstdint>
#include <span>

namespace costate::finetune {

// Between sum_i a_i delta_{x_i} and sum_j b_j delta_{y_j}. Weights are nonnegative and are scaled to sum to
// 1; an empty span of weights means equal ones. The sizes may differ. Throws Error(argument) on empty sets,
// wrong sizes, negative weights or weights that sum to 0, and Error(numerical) on points that are not finite.
// O(n log n).
double wasserstein1(std::span<const double> x, std::span<const double> y,
                    std::span<const double> x_weights = {}, std::span<const double> y_weights = {});

// x (rows, dim) and y (rows, dim) row-major with their own numbers of rows. The directions are those of
// `seed` (Stream::evaluation), so that two calls with one seed are comparable. In one dimension this is
// wasserstein1.
double sliced_wasserstein1(int dim, std::span<const double> x, std::span<const double> y, int projections,
                           std::uint64_t seed, std::span<const double> x_weights = {},
                           std::span<const double> y_weights = {});

}  // namespace costate::finetune
