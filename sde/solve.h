// Solving an equation forwards along a grid and one Brownian path.
#pragma once
#include <costate/sde/solver/solver.h>

namespace costate::sde {

// Sees the state at grid[k], k = 0..K, entry 0 of which is x.
using StateVisitor = std::function<void(int k, double t, const SolverState& state)>;

// X at grid[K] from x0 (rows, ...) at grid[0]. The grid has K + 1 >= 2 increasing times, which the path's cells must cover;
// grids that are subsets, or refinements, of the cells see the same path. The rows of one call stay on the calling thread; a
// batch may be split with path.from(row). Throws Error(argument) with the sentence of refusal() where that is not empty.
Tensor solve(const Sde& sde, const Solver& solver, const std::vector<double>& grid, const Tensor& x0, const Tensor& labels,
             const BrownianPath& path, const StateVisitor& visit = {});

// `count` samples of the given shape from x_0 ~ N(0, I): chunks of rows in parallel, as sample() of chains, with its noise.
// labels (count,) or undefined.
Tensor sample(const Sde& sde, const Solver& solver, const std::vector<double>& grid, const Shape& shape, std::int64_t count,
              const Tensor& labels, const NoiseKey& key, DType dtype = DType::f32, Device device = Device::cpu);

}  // namespace costate::sde
