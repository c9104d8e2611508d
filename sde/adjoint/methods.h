// The methods behind `gradient`, one file each, and what they share.
#pragma once
#include <costate/sde/adjoint/adjoint.h>
#include <costate/sde/adjoint/checkpoints.h>

namespace costate::sde::detail {

using Terminal = std::function<Tensor(const Tensor& x)>;

Gradient discrete(const Process& process, const Tensor& x0, const Terminal& terminal, const AdjointOptions& options,
                  const CheckpointPlan& plan);
Gradient reversible(const Process& process, const Tensor& x0, const Terminal& terminal, const AdjointOptions& options);
Gradient backsolve(const Process& process, const Tensor& x0, const Terminal& terminal, const AdjointOptions& options);
Gradient interpolated(const Process& process, const Tensor& x0, const Terminal& terminal, const AdjointOptions& options);
Gradient forward(const Process& process, const Tensor& x0, const Terminal& terminal);

// The plan of a method that replays steps from kept states; empty for the others.
CheckpointPlan plan_of(const Process& process, const AdjointOptions& options);

// sum += terms, entry by entry; an empty sum takes the terms, and no terms (of a step that does not depend on the parameters)
// add nothing.
void accumulate(std::vector<Tensor>& sum, std::vector<Tensor> terms);
// All steps, with no state kept: the last one, whose x is the result's.
State run_forwards(const Process& process, const Tensor& x0, Gradient& result);
// The end of a backward sweep: the costate of x_0 from that of the starting state.
void finish(const Process& process, const Tensor& x0, State costate, Gradient& result);
// The costate of the last state from that of x_K: the other entries are zeros.
State terminal_costate(const State& last, const Terminal& terminal);
inline void count(Work& work, const CallWork& call) { work.evaluations += call.evaluations, work.pullbacks += call.pullbacks; }

}  // namespace costate::sde::detail
