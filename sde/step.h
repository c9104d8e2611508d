// One step of a Gaussian chain, forwards and backwards: every sampler and every adjoint is a loop over these.
#pragma once
#include <costate/sde/field.h>

namespace costate::sde {

// The time of step k as a tensor with one entry a row.
Tensor step_time(const Chain& chain, int k, const Tensor& x);

// x_0 ~ N(0, I) for `rows` samples of the given shape (without the axis of rows).
Tensor initial_noise(const Shape& sample, std::int64_t rows, const NoiseKey& key, DType dtype = DType::f32,
                     Device device = Device::cpu);

// A_k x + C_k prediction + std_k e_k of a chain of single steps; e_k is made from the key on the way, is not stored, and made
// again whenever it is needed.
Tensor advance(const Chain& chain, int k, const Tensor& x, const Tensor& prediction, const NoiseKey& key);
// The same, written to `out`, which is neither x nor the prediction.
void advance_into(const Tensor& out, const Chain& chain, int k, const Tensor& x, const Tensor& prediction, const NoiseKey& key);
// The same for any chain: a multistep one looks at x_{k-1} and its prediction too, in every step but the first.
struct Previous {
  Tensor x, prediction;
};
Tensor advance(const Chain& chain, int k, const Tensor& x, const Tensor& prediction, const NoiseKey& key,
               const Previous& previous);
// The e_k of a step.
Tensor step_noise(int k, const Tensor& x, const NoiseKey& key);

// The seam of the lean adjoint (the others go through processes, process.h): the prediction at x and the pullback of `costate` through the mean of step k,
//   A_k a + C_k (d prediction / d x)^T a,
// for chains of single steps.
struct Pullback {
  Tensor prediction, costate;
};
Pullback pullback_step(const Field& field, const Chain& chain, int k, const Tensor& x, const Tensor& labels,
                       const Tensor& costate);

}  // namespace costate::sde
