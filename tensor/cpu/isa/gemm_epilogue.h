// What a matrix product does with its sums before they leave the cache: + bias, activation, derivative.
#pragma once
#include "activation.h"
#if defined(__AVX2__) && defined(__FMA__)
#include "vector_math.h"
#endif

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
#if defined(__AVX2__) && defined(__FMA__)
// `count` rows of floats by vectors, all of them in step.
template <Activation activation, int width, int count>
COSTATE_INLINE void finish_vectors(int n, const float* z, std::int64_t ldz, const float* bias, float* c, float* derivative,
                                   std::int64_t ldc) {
  constexpr int W = lanes<float>, across = width / W;
  vec::Several<count * across> x, slope;
  for (int i = 0; i < count * across; ++i) x.v[i] = load(z + i / across * ldz + i % across * W) + load(bias + i % across * W);
  x = activate_vector<activation>(x, slope);
  const auto put = [&](float* to, const vec::Several<count * across>& from) {
    for (int i = 0; i < count * across; ++i) {
      float* const p = to + i / across * ldc + i % across * W;
      if (n == width) store(p, from.v[i]);
      else if (n > i % across * W) store_first(p, n - i % across * W < W ? n - i % across * W : W, from.v[i]);
    }
  };
  put(c, x);
  if (derivative) put(derivative, slope);
}
template <Activation activation, int width>
void finish_rows(std::int64_t rows, int n, const float* z, std::int64_t ldz, const float* bias, float* c, float* derivative,
                 std::int64_t ldc) {
  constexpr int W = lanes<float>, count = (W == 16 ? 4 : 2) * W / width;  // chains that the registers hold
  const auto next = [&](int done) {
    z += done * ldz, c += done * ldc;
    if (derivative) derivative += done * ldc;
  };
  if constexpr (count > 1)
    for (; rows >= count; rows -= count, next(count))
      finish_vectors<activation, width, count>(n, z, ldz, bias, c, derivative, ldc);
  for (; rows > 0; --rows, next(1)) finish_vectors<activation, width, 1>(n, z, ldz, bias, c, derivative, ldc);
}
#endif

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
