// Networks that compute in another element type than that of their parameters: bf16, half the bytes of every activation and
// of every operand, and the products of tensor cores.
//
//   const nn::Network network = nn::Computed{nn::make_dit(options, init), DType::bf16};
//
// The parameters stay f32: whoever visits the model (tape, optimiser, average, file) sees the masters, of which a call makes
// bf16 copies through `cast`, an op like all others, so that their gradients arrive in f32. x is cast too, and the prediction
// back to f32; t, labels and buffers stay as they are, and models cast what they make of them. A copy is made
//   once a call where parameters are tracked: the cast is a record of the tape that the call is on;
//   once a field where they are not (`prepared`, which finetune/network_field.h asks for): once an update for all the calls
//   of a sampler or an adjoint.
// Not beside the parameter until it is written: work that a device recorded (tensor/graph.h) changes parameters without the
// host, which could not know that a copy is stale; what was recorded makes its own.
//
// What is lost: every op rounds its result to 8 significant bits, relative error 2^-8 at most, and nothing else; sums, statistics of
// norms, softmax and attention are f32 inside an op. Gradients by parameters are rounded once, behind f32 sums.
// It is a property of the value, not of a scope: a base network in f32 and a tuned one in bf16 can be used together. Calls
// with x in f64 are the model's own, as products in f64 are never rounded.
#pragma once
#include <costate/autograd/ops.h>
#include <costate/nn/network.h>

namespace costate::nn {

template <class Model>
struct Computed {
  Model model;
  DType type = DType::bf16;

  // x (rows, ...) of f32 or f64, t (rows,), labels (rows,) or undefined -> (rows, ...) of x's type.
  Var operator()(const Var& x, const Var& t, const Tensor& labels) const {
    if (x.dtype() != DType::f32) return model(x, t, labels);
    return cast(with_copies().model(cast(x, type), t, labels), x.dtype());
  }
  // With the copies made, to be called many times; updates of this model are not seen by it. Parameters may be tracked.
  Computed with_copies() const {
    Computed copy = *this;
    const memory::TagScope scope(memory::Tag::parameters);
    nn::visit(copy.model, [&](const std::string&, Var& p) {
      if (p.dtype() == DType::f32) p = cast(p, type);
    });
    return copy;
  }
  Computed prepared() const { return with_copies(); }
  void visit(const Visitor& v) { model.visit(v); }
  Computed with_dropout(const DropoutKey& key) const
    requires requires(const Model& m) { m.with_dropout(key); }
  {
    return {model.with_dropout(key), type};
  }
  Computed recompute_blocks(bool on = true) const
    requires requires(const Model& m) { m.recompute_blocks(on); }
  {
    return {model.recompute_blocks(on), type};
  }
};
template <class Model>
Computed(Model, DType) -> Computed<Model>;

}  // namespace costate::nn
