// Solved equations as processes: a solver's steps along a grid and one Brownian path.
#pragma once
#include <costate/sde/process.h>
#include <costate/sde/solver/solver.h>

namespace costate::sde {

// grid: K + 1 >= 2 increasing times that the path's cells cover. Throws Error(argument) with the sentence of
// refusal(solver, equation) where that is not empty.
Process sde_process(const ParametricSde& sde, const Solver& solver, const std::vector<double>& grid, const BrownianPath& path,
                    const Tensor& labels = {});

}  // namespace costate::sde
