// Networks and processes that gradients are compared on: what `study` and `check-grad` share.
#pragma once
#include <costate/sde/adjoint/adjoint.h>
#include <costate/sde/chain_process.h>

#include <string>

#include "build.h"

namespace costate::cli {

// A chain (the section `sampler` of the configuration), or a solver on the path's equation
// dX = [v + (s^2/2) score] dt + s dB with s(t) = sigma (1 - t).
struct StudyProcess {
  std::string name;  // "chain", or that of a solver
  double sigma = 0;
  bool inner = false;  // at the inner times 1/(K + 2), ..., (K + 1)/(K + 2) instead of 0, 1/K, ..., 1: where a prediction does
                       // not determine the drift at an end of the path
  std::string label() const;
};

// `cost` is of chains alone.
sde::Process make_process(const Config& config, const StudyProcess& process, std::int64_t steps, const nn::Network& network,
                          const Tensor& labels, const sde::NoiseKey& key, const sde::RunningCost& cost = {});

// A network whose output depends on all of its parameters: those that are zeros (the last layers at the start of training)
// are drawn from N(0, 0.02^2).
nn::Network with_zeros_drawn(nn::Network network, std::uint64_t seed);

// Parameters and buffers in double precision.
template <class Model>
Model in_double(Model model) {
  const memory::TagScope scope(memory::Tag::parameters);
  nn::visit_state(model, [](const std::string&, Var& p) {
    if (p.value().dtype() == DType::f32) p = Var(p.value().to(DType::f64));
  });
  return model;
}

// Of all gradients: of the parameters, and of x_0 where there is one.
bool same_bits(const sde::Gradient& a, const sde::Gradient& b);
// |g - exact|/|exact| over what g has.
double relative_error(const sde::Gradient& g, const sde::Gradient& exact);

}  // namespace costate::cli
