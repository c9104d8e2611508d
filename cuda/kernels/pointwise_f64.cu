#include "pointwise.h"

namespace costate::cuda {

void pointwise_f64(const PointwiseCall& call) { launch_pointwise<double>(call); }

}  // namespace costate::cuda
