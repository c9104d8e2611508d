// A network's forward pass and sweep: results, gradients, and what the ledger says that they took.
#pragma once
#include <costate/nn/network.h>

#include "nn_support.h"

namespace costate::nn {

struct Pulled {
  Tensor prediction;
  std::vector<Tensor> gradients;  // of the watched parameters, then of x
  memory::Usage kept, peak;       // by the tape after the forward pass; at most
};

enum class Wrt : std::uint8_t { x, parameters, both };

// labels (rows,) or undefined. Inputs are the same for the same shape.
inline Pulled pullback(const Network& m, const Shape& shape, const Tensor& labels, Wrt wrt, Device device = Device::cpu) {
  const auto input = [&](std::uint32_t which) {
    return device == Device::cpu ? random_tensor(shape, which, DType::f32) : Tensor::zeros(shape, DType::f32, device);
  };
  const Tensor x0 = input(1), cotangent = input(2), t = Tensor::full({shape[0]}, 0.5, DType::f32, device);
  Pulled out;
  // The second time: layouts that are kept beside parameters from their first use on are there.
  for (int time = 0; time < 2; ++time) {
    out = {};
    const memory::Usage before = memory::live();
    const memory::PeakScope scope;
    const auto beyond = [&](memory::Usage u) {
      u.total -= before.total;
      for (int i = 0; i < memory::tag_count; ++i) u.by_tag[i] -= before.by_tag[i];
      return u;
    };
    Tape tape;
    std::vector<Var> watched;
    const Network tracked = wrt == Wrt::x ? m : watch(m, tape, watched);
    Var x(x0);
    if (wrt != Wrt::parameters) watched.push_back(x = tape.watch(x0));
    Var y = tracked(x, Var(t), labels);
    out.kept = beyond(memory::live());
    out.prediction = std::move(y.value());
    y = Var(Tensor(out.prediction), y.tape(), y.node());
    out.gradients = std::move(tape).vjp(y, cotangent, watched);
    out.peak = beyond(scope.peak());
  }
  return out;
}

}  // namespace costate::nn
