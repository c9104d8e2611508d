// activation((x - mean) slope + offset) of a row, with a constant of each kind for every element, and its derivative.
#pragma once
#include "activation.h"
#if defined(__AVX2__) && defined(__FMA__)
#include "vector_math.h"
#endif

namespace costate::cpu::COSTATE_ISA {
namespace {

// Rows x, y of n elements, `row` apart.
template <Activation activation, class T>
void activate_affine(std::int64_t rows, std::int64_t n, std::int64_t row, const T* __restrict x, const T* __restrict mean,
                     const T* __restrict slope, const T* __restrict offset, T* __restrict y) {
  for (std::int64_t r = 0; r < rows; ++r, x += row, y += row) {
#if defined(__AVX2__) && defined(__FMA__)
    if constexpr (std::is_same_v<T, float>) {
      in_vectors(n, [&](std::int64_t i, int count, auto k) __attribute__((always_inline)) {
        constexpr int K = decltype(k)::value;
        const auto centred = vec::sub(load_several<K>(x + i, count), load_several<K>(mean + i, count));
        const auto z = vec::fma(centred, load_several<K>(slope + i, count), load_several<K>(offset + i, count));
        vec::Several<K> derivative;
        store_several(y + i, count, activate_vector<activation>(z, derivative));
      });
      continue;
    }
#endif
    T derivative;
    for (std::int64_t i = 0; i < n; ++i) y[i] = activate<activation>((x[i] - mean[i]) * slope[i] + offset[i], derivative);
  }
}

// h = derivative g, rows `row_h` apart; sum += h, sum_x += h (x - mean) over the rows.
template <Activation activation, class T>
void activate_affine_vjp(std::int64_t rows, std::int64_t n, std::int64_t row, const T* __restrict x, const T* __restrict mean,
                         const T* __restrict slope, const T* __restrict offset, const T* __restrict g, T* __restrict h,
                         std::int64_t row_h, T* __restrict sum, T* __restrict sum_x) {
  for (std::int64_t r = 0; r < rows; ++r, x += row, g += row, h += row_h) {
#if defined(__AVX2__) && defined(__FMA__)
    if constexpr (std::is_same_v<T, float>) {
      in_vectors(n, [&](std::int64_t i, int count, auto k) __attribute__((always_inline)) {
        constexpr int K = decltype(k)::value;
        const auto centred = vec::sub(load_several<K>(x + i, count), load_several<K>(mean + i, count));
        vec::Several<K> derivative;
        activate_vector<activation>(vec::fma(centred, load_several<K>(slope + i, count), load_several<K>(offset + i, count)),
                                    derivative);
        const auto hi = vec::mul(derivative, load_several<K>(g + i, count));
        store_several(h + i, count, hi);
        store_several(sum + i, count, vec::add(load_several<K>(sum + i, count), hi));
        store_several(sum_x + i, count, vec::fma(hi, centred, load_several<K>(sum_x + i, count)));
      });
      continue;
    }
#endif
    for (std::int64_t i = 0; i < n; ++i) {
      const T centred = x[i] - mean[i];
      T derivative;
      activate<activation>(centred * slope[i] + offset[i], derivative);
      h[i] = derivative * g[i];
      sum[i] += h[i], sum_x[i] += h[i] * centred;
    }
  }
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
