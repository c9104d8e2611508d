#include "pointwise.h"

namespace costate::cuda {

void pointwise_bf16(const PointwiseCall& call) { launch_pointwise<Bf16>(call); }

}  // namespace costate::cuda
