// How far a control is from the optimal one, and what it costs, on a problem of control_benchmark.h.
#pragma once
#include <costate/finetune/evaluate/estimate.h>
#include <costate/finetune/problem/control_benchmark.h>

namespace costate::finetune {

struct ControlErrorEstimate {
  Estimate error;    // E (1/T) int |u - u*|^2 dt
  Estimate optimal;  // E (1/T) int |u*|^2 dt
  double relative() const { return error.value / optimal.value; }
};

// The control error of `tuned` (a field b + u), in the mean over the optimally controlled process itself, which is simulated
// since u* is known: nothing is reweighted, and all controls are compared at the same states. `count` paths of the noises of
// `key`; for the same key and type the same numbers on any number of threads. Stopped rows count for the time before.
ControlErrorEstimate control_error(const ControlBenchmark& benchmark, const sde::Field& tuned, std::int64_t count,
                                   const sde::NoiseKey& key, DType dtype = DType::f32, Device device = Device::cpu);

struct ControlObjective {
  Estimate cost;  // E[sum_k (h |u|^2/2 + h f) + g], with the standard error of plain simulation
  // The same mean of the cost plus sum_k sqrt(h) u . e_k, which is zero in the mean for every control. At the optimum of
  // continuous time the sum is the number V(x_0, 0) on every path, so that the standard error is small near it and certifies
  // it.
  Estimate certificate;
};

// The control objective of `tuned`, over its own paths.
ControlObjective control_objective(const ControlBenchmark& benchmark, const sde::Field& tuned, std::int64_t count,
                                   const sde::NoiseKey& key, DType dtype = DType::f32, Device device = Device::cpu);

}  // namespace costate::finetune
