// Gradients of a loss that is a sum over chunks of rows, computed in parallel with the same bits for any number of threads.
#pragma once
#include <costate/nn/network.h>

namespace costate::finetune {

struct Gradients {
  double loss = 0;
  std::vector<Tensor> parameters;  // in visiting order
};

// The sum of scalar losses over chunks 0..chunks-1 and its gradient. `chunk_loss(tape, watched, i)` records the parameters
// (`parameter_bytes` of them together) and builds the loss of chunk i. Chunks are dealt to a fixed number of lanes (at most
// eight, fewer for large models: a lane has gradients of its own), lanes to threads; lanes are added in order.
Gradients sum_chunk_gradients(std::int64_t parameter_bytes, std::int64_t chunks,
                              const std::function<Var(Tape& tape, std::vector<Var>& watched, std::int64_t chunk)>& chunk_loss);

// The same for a model: `chunk_loss(model, i)` receives it with its parameters recorded.
template <class Model, class ChunkLoss>
Gradients sum_gradients(const Model& model, std::int64_t chunks, const ChunkLoss& chunk_loss) {
  std::int64_t bytes = 0;
  for (const Tensor& t : nn::parameters(model)) bytes += t.bytes();
  return sum_chunk_gradients(bytes, chunks, [&](Tape& tape, std::vector<Var>& watched, std::int64_t chunk) {
    return chunk_loss(nn::watch(model, tape, watched), chunk);
  });
}

// Adds `more` to `sum`; either may be empty.
void add(Gradients& sum, Gradients more);

// Handles for an optimiser.
template <class Model>
std::vector<Tensor*> mutable_parameters(Model& model) {
  std::vector<Tensor*> list;
  nn::visit(model, [&](const std::string&, Var& p) { list.push_back(&p.value()); });
  return list;
}

}  // namespace costate::finetune
