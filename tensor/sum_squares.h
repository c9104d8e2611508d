// Sums of squares as numbers of the host.
#pragma once
#include <costate/tensor/tensor.h>

namespace costate {

// The sum of the squares of all elements in double precision, tensor by tensor in order; NaN on the meta device. Waits where
// a device computes: kernels that go on with the sum take it from the kernel table, which leaves it there.
double sum_squares(std::span<const Tensor> tensors);

}  // namespace costate
