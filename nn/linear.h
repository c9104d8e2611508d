// The linear layer y = activation(x W^T + b), with a place for a low-rank adapter (nn/lora.h).
#pragma once
#include <costate/autograd/ops.h>
#include <costate/nn/init.h>
#include <costate/nn/model.h>

namespace costate::nn {

// activation(x W^T + b + scale (x A^T) B^T), for layers with an adapter.
Var adapted_linear(const Var& x, const Var& weight, const Var& bias, const Lora& lora,
                   Activation activation = Activation::none);

struct Linear {
  Var weight;  // (out, in)
  Var bias;    // (out,), or undefined
  Activation activation = Activation::none;
  Lora lora{};

  // x (..., in) -> (..., out)
  Var operator()(const Var& x) const {
    return lora.defined() ? adapted_linear(x, weight, bias, lora, activation)
                          : linear(x, weight, bias, activation);
  }
  void visit(const Visitor& v) {
    v("weight", weight);
    v("bias", bias);
    v.adapter(weight, lora);
  }
};

// Weights uniform in +-gain sqrt(3/in) (variance gain^2/in), biases zero.
inline Linear make_linear(Init& init, std::int64_t in, std::int64_t out,
                          Activation activation = Activation::none, double gain = 1.0,
                          bool with_bias = true) {
  return {Var(init.uniform({out, in}, in, gain)), with_bias ? Var(init.zeros({out})) : Var(), activation};
}

}  // namespace costate::nn
