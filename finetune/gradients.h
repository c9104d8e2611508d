// Gradients of a loss that is a sum over chunks of rows, computed in parallel with the same bits for any number of threads.
#pragma once
#include <costate/nn/network.h>

namespace costate::finetune {

struct Gradients {
  double loss = 0;
  std::vector<Tensor> parameters;  // in visiting order
};

// The sum of `of_chunk(i)` over chunks 0..chunks-1. Chunks are dealt to a fixed number of lanes (at most eight, fewer for
// large models, whose parameters have `parameter_bytes`: a lane has gradients of its own), lanes to threads; lanes are added
// in order.
Gradients sum_chunks(std::int64_t parameter_bytes, std::int64_t chunks,
                     const std::function<Gradients(std::int64_t chunk)>& of_chunk);

// A scalar loss and its gradient with respect to what was watched on the tape, which is freed.
Gradients gradient_of(Tape&& tape, const Var& loss, const std::vector<Var>& watched);

template <class Model>
std::int64_t parameter_bytes(const Model& model) {
  std::int64_t bytes = 0;
  for (const Tensor& t : nn::parameters(model)) bytes += t.bytes();
  return bytes;
}

// The sum of scalar losses over chunks and its gradient: `chunk_loss(model, i)` receives the model with its parameters
// recorded and builds the loss of chunk i.
template <class Model, class ChunkLoss>
Gradients sum_gradients(const Model& model, std::int64_t chunks, const ChunkLoss& chunk_loss) {
  return sum_chunks(parameter_bytes(model), chunks, [&](std::int64_t chunk) {
    Tape tape;
    std::vector<Var> watched;
    const Var loss = [&] {
      const memory::TagScope scope(memory::Tag::activations);
      return chunk_loss(nn::watch(model, tape, watched), chunk);
    }();
    return gradient_of(std::move(tape), loss, watched);
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
