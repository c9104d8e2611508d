// A Gaussian mixture's exact velocity as a field: samplers, adjoints and objectives run on it as on a network.
#pragma once
#include <costate/finetune/problem/gaussian_mixture.h>
#include <costate/sde/field.h>
#include <memory>

namespace costate::finetune {

// x (rows, dim), t (rows,); labels are ignored. First-order derivatives with respect to x only (not t).
sde::Field velocity_field(std::shared_ptr<const GaussianMixture> mixture, const sde::Schedule& schedule);

}  // namespace costate::finetune
