// Which steps of a trajectory a reward is differentiated through, and these steps as a process (sde/process.h) that every
// adjoint method can sweep.
#pragma once
#include <costate/finetune/control_problem.h>
#include <costate/sde/process.h>

#include <cstdint>
#include <vector>

namespace costate::finetune {

// One draw. With m_k(x) = A_k x + C_k N(x, t_k) and g the gradient at the end, the gradient with respect to theta is
//   sum over trained k >= first of (C_k N_theta)^T (prod_{first < k < j} J_j)^T g,    J_j = A_j + C_j N_x,
// with J_j = A_j where inputs are detached. A step that is not trained has the network's parameters as constants.
struct DifferentiatedPath {
  sde::Chain chain;     // the steps that are taken; after an early stop the last one is the noiseless estimate of x_1
  bool stopped = false;
  int first = 0;        // steps before it are taken without a record
  bool detached = false;          // the network's input is a constant in every step
  std::vector<bool> trained{};    // by step; empty: all steps are
  int last() const { return chain.steps(); }
  bool trains(int k) const { return trained.empty() || trained[static_cast<std::size_t>(k)]; }
};

// The first `step` steps of a chain and, in the place of the others, the estimate of x_1 from (x_step, prediction), which has
// no noise. Throws Error(argument) unless 0 <= step < K.
sde::Chain stopped_chain(const sde::Chain& chain, int step);

// The penalties of a path: f_k of the problem, and weight times |u_k|^2/2, u_k = C_k (tuned - base)/std_k.
struct PathCost {
  std::function<Var(int k, const Var& x)> state{};  // (rows, ...) -> (rows,), or null
  double state_weight = 1;
  sde::Field base{};                                // null: no divergence
  double control_weight = 1;
};

// The rows of one chunk. `alive`, if not null, is asked in every pullback for weights of the rows in the penalties (rows,)
// (undefined: ones). What f_k has cost is added to *state_cost. `keep_records`: as chain_process has it, of the steps from
// path.first on.
sde::Process path_process(const sde::ParametricField& field, const DifferentiatedPath& path, const Tensor& labels,
                          const sde::NoiseKey& key, const PathCost& cost, std::function<Tensor()> alive, double* state_cost,
                          bool keep_records = false);

// A whole batch of rows as one process, whose steps are taken chunk by chunk in parallel, so that its end can be looked at
// before any row is swept. `process_of(first, rows)` is that of a chunk; chunks have states {x}.
sde::Process batch_process(std::int64_t rows, std::int64_t parameter_bytes,
                           const std::function<sde::Process(std::int64_t first, std::int64_t rows)>& process_of);

// Steps first, first + 1, ... of a process.
sde::Process tail(const sde::Process& process, int first);

}  // namespace costate::finetune
