// The activations that kernels fuse, of one element, with their derivatives.
#pragma once
#include <costate/tensor/kernels.h>
#include <costate/tensor/scalar.h>

namespace costate::cpu::COSTATE_ISA {
namespace {

template <Activation activation, class T>
COSTATE_INLINE T activate(T z, T& slope) {
  if constexpr (activation == Activation::silu) return scalar::silu_and_slope(z, slope);
  if constexpr (activation == Activation::gelu_tanh) return scalar::gelu_tanh_and_slope(z, slope);
  slope = activation == Activation::none || z > T(0) ? T(1) : T(0);
  return activation == Activation::relu ? scalar::max(z, T(0)) : z;
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
