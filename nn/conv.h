// Convolution (with a place for a low-rank adapter, nn/lora.h) and group normalisation as layers. Images are
// (n, height, width, channels).
#pragma once
#include <costate/nn/linear.h>

namespace costate::nn {

struct Conv {
  Var weight;  // (out, kh, kw, in); files keep (out, in, kh, kw)
  Var bias;    // (out,), or undefined
  Conv2d options;
  Lora lora{};

  // x (n, h, w, in) -> (n, h', w', out)
  Var operator()(const Var& x) const {
    const Var y = conv2d(x, weight, bias, options);
    if (!lora.defined()) return y;
    return axpby(1.0, y, lora.scale, conv2d(conv2d(x, lora.down, Var(), options), lora.up, Var(), Conv2d()));
  }
  void visit(const Visitor& v) {
    v("weight", weight);
    v("bias", bias);
    v.adapter(weight, lora, options.groups);
  }
};

// Weights uniform with variance gain^2 / (in size^2), biases zero; with gain 0 the layer starts at zero.
// Padded so that with stride 1 and an odd size the picture keeps its size.
inline Conv make_conv(Init& init, std::int64_t in, std::int64_t out, int size, double gain = 1.0) {
  const int p = size / 2;
  const Shape shape{out, size, size, in};
  return {Var(gain == 0 ? init.zeros(shape) : init.uniform(shape, in * size * size, gain)),
          Var(init.zeros({out})),
          {.stride = 1, .top = p, .bottom = p, .left = p, .right = p, .groups = 1}};
}

// activation(group_norm(x) weight + bias), see group_norm in ops.h.
struct GroupNorm {
  Var weight, bias;  // (channels,); undefined: the layer is absent
  int groups = 32;
  double eps = 1e-5;

  bool defined() const { return weight.defined(); }
  Var operator()(const Var& x, Activation activation = Activation::none, const Var& scale = {},
                 const Var& shift = {}) const {
    return group_norm(x, weight, bias, groups, eps, activation, scale, shift);
  }
  void visit(const Visitor& v) {
    v("weight", weight);
    v("bias", bias);
  }
};

inline GroupNorm make_group_norm(Init& init, std::int64_t channels, int groups, double eps) {
  return {Var(init.full({channels}, 1.0)), Var(init.zeros({channels})), groups, eps};
}

}  // namespace costate::nn
