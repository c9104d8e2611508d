// nu* = N(0, I) exp(v_0)/Z as the end of a controlled path that starts from a point: ELEGANT's first stage (Uehara et al.,
// arXiv 2402.15194), whose optimum is a Foellmer process.
//
//   y_0 = 0,   y_{k+1} = y_k + h u(y_k, s_k) + sqrt(h) e_k,   h = 1/K:   uncontrolled, y_K ~ N(0, I);
//   maximise E v_0(y_K) - E sum_k h |u_k|^2/2.
// A path from a point remembers nothing of its start, so that the law of y_K at the optimum is nu* (but for what a control of
// fixed variance cannot do: O(h), nothing for affine v_0), and E v_0 - KL(paths) is at most log Z.
#pragma once
#include <costate/finetune/control_problem.h>
#include <costate/nn/network.h>

namespace costate::finetune {

// Throws Error(argument) unless steps >= 1. `value` without classes.
ControlProblem noise_control_problem(const nn::Network& value, const Shape& sample_shape, int steps, Device device);

// Ends of controlled paths, (rows, ...). Row i depends on (key, i) alone; its noises are not those of a path with that key.
Tensor controlled_noise(const nn::Network& control, const Shape& sample_shape, int steps, std::int64_t rows,
                        const sde::NoiseKey& key, Device device);

}  // namespace costate::finetune
