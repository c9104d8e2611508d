// The discrete adjoint along states that are undone one by one (Kidger, Foster, Li, Lyons, arXiv 2105.13493, Section 3).
#include <costate/sde/adjoint/methods.h>

namespace costate::sde::detail {

Gradient reversible(const Process& process, const Tensor& x0, const Terminal& terminal, const AdjointOptions& options) {
  Gradient result;
  State state = run_forwards(process, x0, result);
  State costate = terminal_costate(state, terminal);
  for (int k = process.steps - 1; k >= 0; --k) {
    state = process.unstep(k, state);
    count(result.work, process.unstep_work);
    ++result.work.recomputed;
    if (options.visit) options.visit(k, state[0], costate[0]);
    StepPullback p = process.pullback(k, state, costate);
    count(result.work, process.pullback_work);
    costate = std::move(p.costate);
    accumulate(result.parameters, std::move(p.parameters));
    result.running_cost += p.cost;
  }
  finish(process, x0, std::move(costate), result);
  return result;
}

}  // namespace costate::sde::detail
