#include <costate/sde/sampler.h>
#include <costate/sde/solve.h>
#include <costate/tensor/hooks.h>

namespace costate::sde {

Tensor solve(const Sde& sde, const Solver& solver, const std::vector<double>& grid, const Tensor& x0, const Tensor& labels,
             const BrownianPath& path, const StateVisitor& visit) {
  const Diffusion& d = sde.diffusion;
  require(static_cast<bool>(sde.drift), "solve: the equation has no drift");
  require((d.kind != Diffusion::Kind::additive || d.sigma) && (d.kind != Diffusion::Kind::matrix || d.matrix) &&
              (d.kind != Diffusion::Kind::diagonal || d.diagonal),
          "solve: the equation has ", name(d.kind), " noise, but no function for it");
  const std::string why = refusal(solver, sde);
  require(why.empty(), "solve: ", why);
  require(grid.size() >= 2, "solve: the grid has ", grid.size(), " times, but one step needs 2");
  for (std::size_t k = 1; k < grid.size(); ++k)
    require(grid[k] > grid[k - 1], "solve: the grid must increase, but time ", k, " is ", grid[k], " after ", grid[k - 1]);
  SolverState state = start(solver, sde, Var(x0), grid[0], labels);
  if (visit) visit(0, grid[0], state);
  for (std::size_t k = 0; k + 1 < grid.size(); ++k) {
    check_cancelled("solving");
    const StepInterval interval{grid[k], grid[k + 1]};
    state = solver.step(sde, state, interval, step_increment(solver, sde, path, interval, x0), labels);
    if (visit) visit(static_cast<int>(k) + 1, interval.t1, state);
  }
  return state[0].value();
}

Tensor sample(const Sde& sde, const Solver& solver, const std::vector<double>& grid, const Shape& shape, std::int64_t count,
              const Tensor& labels, const NoiseKey& key, DType dtype, Device device) {
  require(count >= 1, "sample: ", count, " samples were asked for");
  require(!labels.defined() || (labels.rank() == 1 && labels.extent(0) == count), "sample: labels of shape ",
          labels.shape(), " for ", count, " samples");
  const BrownianPath path(grid, key);
  const Tensor out = Tensor::empty(shape.with_front(count), dtype, device);
  ProgressReport report("sample", count);
  each_chunk(count, [&](std::int64_t first, std::int64_t rows) {
    const Tensor x0 = initial_noise(shape, rows, key.from(first), dtype, device);
    out.slice(first, rows).copy_from(solve(sde, solver, grid, x0, rows_of(labels, first, rows), path.from(first)));
    report.add(rows);
  });
  return out;
}

}  // namespace costate::sde
