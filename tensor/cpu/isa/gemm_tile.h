// The microkernel: a tile of c, up to tile_rows x tile_columns, held in registers while k runs (Goto and van
// de Geijn, Anatomy of high-performance matrix multiplication, 2008). Every element is one chain of fused
// multiply-adds in the order of k, whatever the shape of the tile.
#pragma once
#include <utility>

#include "gemm_vector.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

// k, lda and ldb count elements E: see Element in gemm_vector.h.
template <class E>
struct TileCall {
  std::int64_t k;
  const E* a;  // R rows with stride lda, or, packed, R neighbours for every k with stride packed_a_stride
  std::int64_t lda;
  const E* b;  // vectors * lanes columns, row stride ldb
  std::int64_t ldb;
  Sum<E>* c;
  std::int64_t ldc;
  bool accumulate;  // c += instead of c =
};

template <class T, int R, int vectors, bool packed_a>
void tile(const TileCall<T>& call) {
  constexpr int W = lanes<T>;
  const std::int64_t k = call.k, lda = call.lda, ldb = call.ldb, ldc = call.ldc;
  const T* a = call.a;
  const T* b = call.b;
  Vector<T> x[R], y[R];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) x[i] = y[i] = Vector<T>{};
#pragma GCC unroll 2
  for (std::int64_t kk = 0; kk < k; ++kk) {
    const Vector<T> b0 = load(b);
    Vector<T> b1{};
    if constexpr (vectors == 2) b1 = load(b + W);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const Vector<T> ai = broadcast(packed_a ? a[i] : a[i * lda]);
      x[i] += ai * b0;
      if constexpr (vectors == 2) y[i] += ai * b1;
    }
    a += packed_a ? lda : 1;
    b += ldb;
  }
  T* c = call.c;
  if (call.accumulate) {
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      x[i] += load(c + i * ldc);
      if constexpr (vectors == 2) y[i] += load(c + i * ldc + W);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    store(c + i * ldc, x[i]);
    if constexpr (vectors == 2) store(c + i * ldc + W, y[i]);
  }
}

template <class T>
using Tile = void (*)(const TileCall<T>&);
template <class T, int vectors, bool packed_a>
struct TilesOfRows {
  Tile<T> of_rows[tile_rows];
  template <int... R>
  constexpr explicit TilesOfRows(std::integer_sequence<int, R...>)
      : of_rows{&tile<T, R + 1, vectors, packed_a>...} {}
};
template <class T, int vectors, bool packed_a>
constexpr TilesOfRows<T, vectors, packed_a> tiles_of_rows{std::make_integer_sequence<int, tile_rows>{}};

template <class T>
COSTATE_INLINE Tile<T> choose_tile(int rows, int vectors, bool packed_a) {
  if (packed_a)
    return (vectors == 2 ? tiles_of_rows<T, 2, true>.of_rows : tiles_of_rows<T, 1, true>.of_rows)[rows - 1];
  return (vectors == 2 ? tiles_of_rows<T, 2, false>.of_rows : tiles_of_rows<T, 1, false>.of_rows)[rows - 1];
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
