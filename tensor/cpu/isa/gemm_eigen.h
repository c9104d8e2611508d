// The portable matrix product: Eigen, on tiles of a fixed shape. Tiles go to threads whole, so that results
// do not depend on the number of threads; no packed layout is offered. Only for the baseline: Eigen's
// templates are compiled elsewhere too, and copies made for other instruction sets must not replace those.
#pragma once
#include <Eigen/Core>

#include <costate/tensor/parallel.h>

#include "gemm_epilogue.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class T>
struct EigenProduct {
  using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Map = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;
  using Output = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;
  static constexpr std::int64_t rows = 64, columns = 512;

  const MatmulCall& call;

  void tile(std::int64_t product, std::int64_t i0, std::int64_t j0) const {
    const std::int64_t m = call.m, n = call.n, k = call.k;
    const std::int64_t r = m - i0 < rows ? m - i0 : rows, w = n - j0 < columns ? n - j0 : columns;
    const T* a = static_cast<const T*>(call.a) + product * call.stride_a;
    const T* b = static_cast<const T*>(call.b) + product * call.stride_b;
    T* c = static_cast<T*>(call.c) + (product * m + i0) * n + j0;
    Output out(c, r, w, Eigen::OuterStride<>(n));
    if (!call.accumulate) out.setZero();
    if (k > 0) {
      const Map a_plain(a + i0 * k, r, k, Eigen::OuterStride<>(k)),
          a_turned(a + i0, k, r, Eigen::OuterStride<>(m));
      const Map b_plain(b + j0, k, w, Eigen::OuterStride<>(n)),
          b_turned(b + j0 * k, w, k, Eigen::OuterStride<>(k));
      if (call.transpose_a && call.transpose_b)
        out.noalias() += a_turned.transpose() * b_turned.transpose();
      else if (call.transpose_a)
        out.noalias() += a_turned.transpose() * b_plain;
      else if (call.transpose_b)
        out.noalias() += a_plain * b_turned.transpose();
      else
        out.noalias() += a_plain * b_plain;
    }
    if (!call.bias && !call.derivative && call.activation == Activation::none) return;
    constexpr int width = 16;
    T* const derivative =
        call.derivative ? static_cast<T*>(call.derivative) + (product * m + i0) * n + j0 : nullptr;
    for (std::int64_t j = 0; j < w; j += width) {
      const int count = static_cast<int>(w - j < width ? w - j : width);
      alignas(64) T bias[width] = {}, z[rows * width] = {};
      if (call.bias)
        for (int i = 0; i < count; ++i) bias[i] = static_cast<const T*>(call.bias)[j0 + j + i];
      for (std::int64_t i = 0; i < r; ++i)
        for (int q = 0; q < count; ++q) z[i * width + q] = c[i * n + j + q];
      finish<width>(call.activation, r, count, z, width, bias, c + j, derivative ? derivative + j : nullptr,
                    n);
    }
  }
  void all() const {
    const std::int64_t down = (call.m + rows - 1) / rows, across = (call.n + columns - 1) / columns;
    const std::int64_t tiles = call.batch * down * across;
    const std::int64_t work =
        (call.m < rows ? call.m : rows) * (call.n < columns ? call.n : columns) * (call.k + 1);
    parallel_for(tiles, 1 + 500000 / (work + 1), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        tile(i / (down * across), i / across % down * rows, i % across * columns);
    });
  }
};

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
