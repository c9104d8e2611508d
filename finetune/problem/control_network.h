// The network of control problems (control_benchmark.h): its prediction is the drift b(x) + u(x, t), u a multilayer perceptron
// that narrows and widens again, with linear connections across, as in the experiments of arXiv 2312.02027 (there of the
// value's gradient): with h_0 = [x, t] (or what the options put in their place),
//   h_{i+1} = s(D_i h_i), i < n;   o_n = h_n,   o_i = s(U_i o_{i+1}) + R_i h_i, 0 < i < n;   u = U_0 o_1 + R_0 h_0.
// U_0 and R_0 start at zero: the first control is zero.
#pragma once
#include <costate/nn/linear.h>
#include <costate/nn/network.h>
#include <costate/sde/field.h>

#include <vector>

namespace costate::finetune {

struct ControlNetworkOptions {
  std::int64_t dim = 1;
  std::vector<std::int64_t> hidden{256, 128, 64};  // the published widths
  Activation activation = Activation::relu;
  int time_frequencies = 0;  // Fourier features of t (nn/embed.h); 0: t itself, as published
  int state_powers = 1;      // it sees x, x^2, ..., element by element, up to this power; 1: x alone, as published
};

// x (rows, dim), t (rows,); labels are handed to the base -> (rows, dim).
struct ControlNetwork {
  sde::Field base;  // not a parameter
  ControlNetworkOptions options;
  std::vector<nn::Linear> down, up, across;  // D, U, R

  Var operator()(const Var& x, const Var& t, const Tensor& labels) const { return add(base(x, t, labels), control(x, t)); }
  Var control(const Var& x, const Var& t) const;  // u
  void visit(const nn::Visitor& v) {
    v("down", down);
    v("up", up);
    v("across", across);
  }
};
// Throws Error(argument) without a base or a hidden layer, and for widths below 1.
ControlNetwork make_control_network(sde::Field base, const ControlNetworkOptions& options, nn::Init& init);

}  // namespace costate::finetune
