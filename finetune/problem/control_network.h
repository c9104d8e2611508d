// The network of control problems (control_benchmark.h): its prediction is the drift b(x) + u(x, t), u a multilayer perceptron
// that narrows and widens again, with linear connections across, as in the experiments of arXiv 2312.02027 (there of the
// value's gradient): with h_0 = [x, t] (or what the options put in their place),
//   h_{i+1} = s(D_i h_i), i < n;   o_n = h_n,   o_i = s(U_i o_{i+1}) + R_i h_i, 0 < i < n;   u = U_0 o_1 + R_0 h_0.
// U_0 and R_0 start at zero: the first control is zero. On request u has one more term, as in the path integral sampler
// (Zhang and Chen 2022, arXiv 2111.15141, Section 4.3),
//   + c(t) grad r(x),   c(t) = C_1 silu(C_0 t) a vector of the dimension, C_1 zero at first:
// at the end of the time the optimal control is grad r itself, so that what is left to learn is smooth.
#pragma once
#include <costate/nn/linear.h>
#include <costate/nn/network.h>
#include <costate/sde/field.h>

#include <functional>
#include <vector>

namespace costate::finetune {

struct ControlNetworkOptions {
  std::int64_t dim = 1;
  std::vector<std::int64_t> hidden{256, 128, 64};  // the published widths
  Activation activation = Activation::relu;
  int time_frequencies = 0;  // Fourier features of t (nn/embed.h); 0: t itself, as published
  int state_powers = 1;      // it sees x, x^2, ..., element by element, up to this power; 1: x alone, as published
  bool products = false;     // it sees the products of these with the features of t as well; not published
  std::function<Var(const Var& x)> reward = {};  // r, (rows, dim) -> (rows,), of ops: with the term c(t) grad r; not published
};

// x (rows, dim), t (rows,); labels are handed to the base -> (rows, dim).
struct ControlNetwork {
  sde::Field base;  // not a parameter
  ControlNetworkOptions options;
  std::vector<nn::Linear> down, up, across;  // D, U, R
  std::vector<nn::Linear> gain;              // C_0 and C_1; none without options.reward

  Var operator()(const Var& x, const Var& t, const Tensor& labels) const { return add(base(x, t, labels), control(x, t)); }
  Var control(const Var& x, const Var& t) const;  // u
  void visit(const nn::Visitor& v) {
    v("down", down);
    v("up", up);
    v("across", across);
    v("gain", gain);
  }
};
// Throws Error(argument) without a base or a hidden layer, and for widths below 1.
ControlNetwork make_control_network(sde::Field base, const ControlNetworkOptions& options, nn::Init& init);

}  // namespace costate::finetune
