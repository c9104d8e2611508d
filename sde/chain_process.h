// Gaussian chains as processes.
#pragma once
#include <costate/sde/process.h>
#include <costate/sde/step.h>

namespace costate::sde {

// The running cost of a chain: sum_k [ f_k(x_k) + sum_rows |C_k (prediction - base)(x_k)/std_k|^2/2 ], the second part of
// the steps with noise alone (without noise there is no control).
struct RunningCost {
  std::function<Var(int k, const Var& x)> state;  // f_k, summed over rows: a scalar; null: none
  Field base;                                     // null: no control cost
  double control_weight = 1;                      // of the control cost
  // Weights of the rows in the control cost, (rows,): asked for in every pullback, so that what is known only when the path
  // has ended can take rows out of it. Null, or an undefined tensor: ones.
  std::function<Tensor()> row_weights{};
};

// A Gaussian chain driven by a field. `keep_records`: what the field computed in a step is kept until the pullback of that step
// from the same state, which then evaluates the field no more: K evaluations less for the memory of K records, with the same
// bits. Such a process is of one thread at a time.
Process chain_process(const ParametricField& field, const Chain& chain, const Tensor& labels, const NoiseKey& key,
                      const RunningCost& cost = {}, bool keep_records = false);

}  // namespace costate::sde
