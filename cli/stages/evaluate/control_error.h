// The error of the control where the optimum is known.
#pragma once
#include <costate/finetune/problem/mixture_tilt.h>
#include <costate/sde/sampler.h>

#include <vector>

#include "config/json.h"

namespace costate::cli {

// Squared errors and squared lengths of the control along paths, by step and chunk of rows. Velocity predictions.
class ControlError {
 public:
  ControlError(const finetune::MixtureTilt& tilt, const sde::Chain& chain, std::int64_t count);
  // One step of rows first, ...; chunks may be looked at by several threads at once.
  void look(int k, std::int64_t first, const Tensor& x, const Tensor& tuned, const Tensor& base);
  // One number a step; null where there is no control.
  Json by_step() const;
  // sum |u - u*|^2/sum |u*|^2 over all steps with noise.
  double overall() const;

 private:
  const finetune::MixtureTilt& tilt_;
  const sde::Chain& chain_;
  std::int64_t chunk_;
  std::vector<std::vector<double>> error_, length_;
};

}  // namespace costate::cli
