// Networks as the samplers and adjoints see them.
#pragma once
#include <costate/nn/network.h>
#include <costate/sde/field.h>

namespace costate::finetune {

// The field of a network as it is now: later updates of the network are not seen (they write to storage of their own).
inline sde::Field field_of(const nn::Network& network) {
  return [network = network.prepared()](const Var& x, const Var& t, const Tensor& labels) { return network(x, t, labels); };
}
inline sde::ParametricField parametric_field_of(const nn::Network& network) {
  return {field_of(network), [network](Tape& tape, std::vector<Var>& watched) {
            return field_of(nn::watch(network, tape, watched));  // what is prepared is on the tape too
          }};
}

// Classifier-free guidance (Ho and Salimans, arXiv 2207.12598): (1 + w) v(x | y) - w v(x | null). Unlabelled calls are not
// guided.
sde::Field guided(sde::Field field, double w);
// The same for a network, to be tuned as it will be sampled: it has the parameters, and the names, of `network`.
nn::Network guided(nn::Network network, double w);

}  // namespace costate::finetune
