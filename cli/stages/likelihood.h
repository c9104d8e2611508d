// Log-likelihoods of data under a model, for evaluations.
#pragma once
#include <costate/sde/likelihood.h>

#include "build.h"
#include "stages/evaluation.h"

namespace costate::cli {

// Of the first evaluate.likelihood.count items of `set`: mean nats and bits per dimension, in the units that the network
// sees, with standard errors over items (and probes). {} on the meta device, where the same requests are made.
Json likelihood(const Config& config, const sde::Field& field, const data::Dataset& set, Device device);

}  // namespace costate::cli
