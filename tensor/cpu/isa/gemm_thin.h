// Products with at most four columns and a long sum, such as the velocity head of a model of the plane: a
// tile would leave most of its columns empty. Here lanes run along k, and every element of c is one sum of
// products of vectors.
//     packed[column][k, filled up with zeros to whole vectors]
#pragma once
#include <costate/tensor/parallel.h>

#include "gemm_epilogue.h"
#include "gemm_vector.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class T>
bool is_thin(std::int64_t n, std::int64_t k) {
  return n <= 4 && k >= 4 * lanes<T>;
}
template <class T>
std::int64_t thin_stride(std::int64_t k) {
  return ceil_div(k, lanes<T>) * lanes<T>;
}
template <class T>
void pack_thin(bool transpose_b, std::int64_t n, std::int64_t k, const T* b, T* packed) {
  const std::int64_t stride = thin_stride<T>(k);
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int64_t i = 0; i < stride; ++i)
      packed[j * stride + i] = i >= k ? T(0) : transpose_b ? b[j * k + i] : b[i * n + j];
}

// z[i * n + j] = <row i of a, column j of b> for R rows; with `scale`, of a multiplied by it.
template <class T, int R, int n, bool scaled>
void thin_tile(std::int64_t k, const T* a, const T* scale, std::int64_t lda, const T* b, std::int64_t ldb, T* z) {
  constexpr int W = lanes<T>;
  Vector<T> x[R][n];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < n; ++j) x[i][j] = Vector<T>{};
  std::int64_t kk = 0;
  for (; kk + W <= k; kk += W) {
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      Vector<T> ai = load(a + i * lda + kk);
      if constexpr (scaled) ai *= load(scale + i * lda + kk);
#pragma GCC unroll 4
      for (int j = 0; j < n; ++j) x[i][j] += ai * load(b + j * ldb + kk);
    }
  }
  if (kk < k) {
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      Vector<T> ai = load_first(a + i * lda + kk, static_cast<int>(k - kk));
      if constexpr (scaled) ai *= load_first(scale + i * lda + kk, static_cast<int>(k - kk));
#pragma GCC unroll 4
      for (int j = 0; j < n; ++j) x[i][j] += ai * load(b + j * ldb + kk);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < n; ++j) z[i * n + j] = sum(x[i][j]);
}

// Rows [begin, end) of c, from b in the layout of pack_thin.
template <class T, int n, bool scaled>
void thin_rows(const MatmulCall& call, std::int64_t begin, std::int64_t end, const T* packed) {
  constexpr int R = n <= 2 ? 8 : 4, width = tile_columns<T>;
  static_assert(R * n <= 16 && R * n <= 2 * width);
  const std::int64_t k = call.k, ldb = thin_stride<T>(k);
  const T* a = static_cast<const T*>(call.a);
  alignas(64) T z[2 * width], bias[2 * width];
  for (int i = 0; i < 2 * width; ++i)
    z[i] = T(0), bias[i] = call.bias ? static_cast<const T*>(call.bias)[i % n] : T(0);
  for (std::int64_t i0 = begin; i0 < end; i0 += R) {
    const int r = static_cast<int>(smaller(R, end - i0));
    const T* ai = a + i0 * k;
    const T* si = scaled ? static_cast<const T*>(call.scale_a) + i0 * k : nullptr;
    if (r == R) {
      thin_tile<T, R, n, scaled>(k, ai, si, k, packed, ldb, z);
    } else {
      for (int i = 0; i < r; ++i)
        thin_tile<T, 1, n, scaled>(k, ai + i * k, scaled ? si + i * k : nullptr, k, packed, ldb, z + i * n);
    }
    T* c = static_cast<T*>(call.c) + i0 * n;  // rows of c follow each other: r * n elements in one piece
    T* derivative = call.derivative ? static_cast<T*>(call.derivative) + i0 * n : nullptr;
    const int count = r * n;
    if (call.accumulate)
      for (int i = 0; i < count; ++i) z[i] += c[i];
    if (call.bias || call.derivative || call.activation != Activation::none) {
      for (int at = 0; at < count; at += width)
        finish<width>(call.activation, 1, static_cast<int>(smaller(width, count - at)), z + at, width,
                      bias + at, c + at, derivative ? derivative + at : nullptr, width);
    } else {
      for (int i = 0; i < count; ++i) c[i] = z[i];
    }
  }
}

template <class T, bool scaled>
void thin_any(const MatmulCall& call, std::int64_t begin, std::int64_t end, const T* packed) {
  switch (call.n) {
    case 1:
      return thin_rows<T, 1, scaled>(call, begin, end, packed);
    case 2:
      return thin_rows<T, 2, scaled>(call, begin, end, packed);
    case 3:
      return thin_rows<T, 3, scaled>(call, begin, end, packed);
    default:
      return thin_rows<T, 4, scaled>(call, begin, end, packed);
  }
}
template <class T>
void thin_product(const MatmulCall& call, const T* packed, bool threads) {
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    call.scaled ? thin_any<T, true>(call, begin, end, packed) : thin_any<T, false>(call, begin, end, packed);
  };
  const std::int64_t grain = larger(8, 8 * ceil_div(65536, 8 * call.n * call.k));
  if (threads)
    parallel_for(call.m, grain, rows);
  else if (call.m > 0)
    rows(0, call.m);
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
