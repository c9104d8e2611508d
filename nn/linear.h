// The linear layer y = activation(x W^T + b).
#pragma once
#include <costate/autograd/ops.h>
#include <costate/nn/init.h>
#include <costate/nn/model.h>

namespace costate::nn {

struct Linear {
  Var weight;  // (out, in)
  Var bias;    // (out,), or undefined
  Activation activation = Activation::none;

  // x (..., in) -> (..., out)
  Var operator()(const Var& x) const { return linear(x, weight, bias, activation); }
  void visit(const Visitor& v) {
    v("weight", weight);
    v("bias", bias);
  }
};

// Weights uniform in +-gain sqrt(3/in) (variance gain^2/in), biases zero.
inline Linear make_linear(Init& init, std::int64_t in, std::int64_t out,
                          Activation activation = Activation::none, double gain = 1.0,
                          bool with_bias = true) {
  return {Var(init.uniform({out, in}, in, gain)), with_bias ? Var(init.zeros({out})) : Var(), activation};
}

}  // namespace costate::nn
