// Products of a transposed a with few tiles and a long sum, such as the weight gradient of a narrow layer over many rows:
// k is cut into pieces that follow from the shape, each piece is a product of its own, and the pieces are added in order.
#pragma once
#include "gemm_prepare.h"
#include "gemm_product.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class E>
std::int64_t pieces_of(const MatmulShape& s) {
  const std::int64_t tiles = ceil_div(s.m, tile_rows) * ceil_div(s.n, tile_columns<E>);
  if (!s.transpose_a || s.transpose_b || tiles > 40 || s.k < 4096) return 1;
  return smaller(16, s.k / 1024);
}
// Bytes that any of the pieces works in: they have floor(k / pieces) or one more terms.
template <class E>
std::int64_t piece_bytes(MatmulShape s, std::int64_t pieces) {
  const std::int64_t k = s.k;
  std::int64_t most = 0;
  for (s.packed = false, s.k = k / pieces; s.k <= ceil_div(k, pieces); ++s.k)
    most = larger(most, Product<E>(s, 1).workspace());
  return whole_lines(most * static_cast<std::int64_t>(sizeof(E)));
}
template <class E>
std::int64_t split_bytes(const MatmulShape& s, int threads) {
  const std::int64_t pieces = pieces_of<E>(s);
  if (pieces == 1) return whole_lines(Product<E>(s, threads).workspace() * static_cast<std::int64_t>(sizeof(E)));
  return whole_lines(smaller(threads, pieces) * piece_bytes<E>(s, pieces) +
                     pieces * s.m * (s.n + 1) * static_cast<std::int64_t>(sizeof(Sum<E>)));
}

template <class E>
void split_product(const MatmulCall& call, int threads) {
  using T = Sum<E>;
  const std::int64_t pieces = pieces_of<E>(call), m = call.m, n = call.n;
  if (pieces == 1) return Product<E>(call, threads).run(static_cast<E*>(call.workspace));
  const std::int64_t slots = smaller(threads, pieces);
  const std::int64_t inner = piece_bytes<E>(call, pieces);
  auto* const bytes = static_cast<std::byte*>(call.workspace);
  T* const parts = reinterpret_cast<T*>(bytes + slots * inner);
  T* const sums = parts + pieces * m * n;
  const auto some = [&](std::int64_t slot) {
    for (std::int64_t i = pieces * slot / slots; i < pieces * (slot + 1) / slots; ++i) {
      const std::int64_t k0 = call.k * i / pieces;
      MatmulCall piece = call;
      piece.k = call.k * (i + 1) / pieces - k0;
      piece.packed = false;
      piece.a = static_cast<const T*>(call.a) + k0 * m;
      if (call.scaled) piece.scale_a = static_cast<const T*>(call.scale_a) + k0 * m;
      piece.b = static_cast<const T*>(call.b) + k0 * n;
      piece.c = parts + i * m * n, piece.row_sums = sums + i * m;
      piece.accumulate = false, piece.bias = nullptr, piece.derivative = nullptr, piece.activation = Activation::none;
      Product<E>(piece, 1).run(reinterpret_cast<E*>(bytes + slot * inner));
    }
  };
  if (slots > 1)
    parallel(slots, some);
  else
    some(0);
  constexpr int N = tile_columns<E>;
  T* const c = static_cast<T*>(call.c);
  const T* const bias = static_cast<const T*>(call.bias);
  T* const derivative = static_cast<T*>(call.derivative);
  const bool last = bias || derivative || call.activation != Activation::none;
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; j += N) {
      const int count = static_cast<int>(smaller(N, n - j));
      const std::int64_t at = i * n + j;
      alignas(64) T z[N] = {}, shift[N] = {};
      if (call.accumulate)
        for (int q = 0; q < count; ++q) z[q] = c[at + q];
      for (std::int64_t p = 0; p < pieces; ++p)
        for (int q = 0; q < count; ++q) z[q] += parts[p * m * n + at + q];
      if (bias)
        for (int q = 0; q < count; ++q) shift[q] = bias[j + q];
      if (last)
        finish<N>(call.activation, 1, count, z, N, shift, c + at, derivative ? derivative + at : nullptr, n);
      else
        for (int q = 0; q < count; ++q) c[at + q] = z[q];
    }
  if (!call.summed) return;
  T* const row_sums = static_cast<T*>(call.row_sums);
  for (std::int64_t i = 0; i < m; ++i) {
    row_sums[i] = sums[i];
    for (std::int64_t p = 1; p < pieces; ++p) row_sums[i] += sums[p * m + i];
  }
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
