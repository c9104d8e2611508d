// What a matrix product does with its sums before they leave the cache: + bias, activation, derivative.
#pragma once
#include "activation.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

// y = activation(z + bias) and its derivative (slope, unless null), for `width` elements: the constant and
// the promise that nothing overlaps make the loop vectors without remainder, so that an element's bits do not
// depend on its place.
template <Activation activation, int width, class T>
COSTATE_INLINE void activate_row(const T* __restrict z, const T* __restrict bias, T* __restrict y,
                                 T* __restrict slope) {
  T s;
  if (slope)
    for (int j = 0; j < width; ++j) y[j] = activate<activation>(z[j] + bias[j], s), slope[j] = s;
  else
    for (int j = 0; j < width; ++j) y[j] = activate<activation>(z[j] + bias[j], s);
}

// Rows of `width` sums (row stride ldz) into the first n <= width columns of c and derivative (row stride
// ldc).
template <Activation activation, int width, class T>
void finish_rows(std::int64_t rows, int n, const T* z, std::int64_t ldz, const T* bias, T* c, T* derivative,
                 std::int64_t ldc) {
  for (std::int64_t i = 0; i < rows; ++i, z += ldz) {
    T* const ci = c + i * ldc;
    T* const di = derivative ? derivative + i * ldc : nullptr;
    if (n == width) {
      activate_row<activation, width>(z, bias, ci, di);
    } else {
      alignas(64) T y[width], s[width];
      activate_row<activation, width>(z, bias, y, di ? s : nullptr);
      for (int j = 0; j < n; ++j) ci[j] = y[j];
      if (di)
        for (int j = 0; j < n; ++j) di[j] = s[j];
    }
  }
}
template <int width, class T>
void finish(Activation activation, std::int64_t rows, int n, const T* z, std::int64_t ldz, const T* bias,
            T* c, T* derivative, std::int64_t ldc) {
  switch (activation) {
    case Activation::none:
      return finish_rows<Activation::none, width>(rows, n, z, ldz, bias, c, derivative, ldc);
    case Activation::silu:
      return finish_rows<Activation::silu, width>(rows, n, z, ldz, bias, c, derivative, ldc);
    case Activation::gelu_tanh:
      return finish_rows<Activation::gelu_tanh, width>(rows, n, z, ldz, bias, c, derivative, ldc);
    case Activation::relu:
      return finish_rows<Activation::relu, width>(rows, n, z, ldz, bias, c, derivative, ldc);
  }
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
