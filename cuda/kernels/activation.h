// The activations that kernels fuse, of one element, with their derivatives.
#pragma once
#include <costate/tensor/kernels.h>
#include <costate/tensor/scalar.h>

namespace costate::cuda {
namespace {

template <Activation activation, class T>
COSTATE_INLINE T activate(T z, T& slope) {
  if constexpr (activation == Activation::silu) return scalar::silu_and_slope(z, slope);
  if constexpr (activation == Activation::gelu_tanh) return scalar::gelu_tanh_and_slope(z, slope);
  slope = activation == Activation::none || z > T(0) ? T(1) : T(0);
  return activation == Activation::relu ? scalar::max(z, T(0)) : z;
}

template <Activation activation>
struct ActivationTag {
  static constexpr Activation value = activation;
};

template <class Body>
void with_activation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::none:
      return body(ActivationTag<Activation::none>{});
    case Activation::silu:
      return body(ActivationTag<Activation::silu>{});
    case Activation::gelu_tanh:
      return body(ActivationTag<Activation::gelu_tanh>{});
    case Activation::relu:
      return body(ActivationTag<Activation::relu>{});
  }
}

}  // namespace
}  // namespace costate::cuda
