// Gradients of a loss that is a sum over chunks of rows, computed in parallel with the same bits for any number of threads.
#pragma once
#include <costate/nn/network.h>

namespace costate::finetune {

struct Gradients {
  double loss = 0;
  std::vector<Tensor> parameters;  // in visiting order
};

// `chunk_loss(network, i)` builds the scalar loss of chunk i from a network whose parameters are recorded; the result is
// the sum over chunks 0..chunks-1 and its gradient. Chunks are dealt to a fixed number of lanes (at most eight, fewer for
// large networks: a lane has gradients of its own), lanes to threads; lanes are added in order.
Gradients sum_gradients(const nn::Network& network, std::int64_t chunks,
                        const std::function<Var(const nn::Network& network, std::int64_t chunk)>& chunk_loss);

// Adds `more` to `sum`; either may be empty.
void add(Gradients& sum, Gradients more);

// Handles for an optimiser.
std::vector<Tensor*> mutable_parameters(nn::Network& network);

}  // namespace costate::finetune
