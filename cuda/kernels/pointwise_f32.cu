#include "pointwise.h"

#include "../table.h"

namespace costate::cuda {

void pointwise_f32(const PointwiseCall& call) { launch_pointwise<float>(call); }
void pointwise(const PointwiseCall& call) {
  call.dtype == DType::f32 ? pointwise_f32(call) : call.dtype == DType::f64 ? pointwise_f64(call) : pointwise_bf16(call);
}

}  // namespace costate::cuda
