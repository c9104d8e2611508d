// The layout that the microkernel reads. b (k x n) is cut along k into blocks (a function of k alone) and
// along n into panels of tile_columns columns; a panel of a block is contiguous, one row of tile_columns
// elements for every k:
//     packed[block][panel][row in block][column in panel],   the last panel filled up with zeros.
#pragma once
#include "gemm_vector.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class T>
constexpr std::int64_t k_block = 2048 / sizeof(T);
struct Blocks {
  std::int64_t count, rows;  // the last one may have fewer rows
};
template <class T>
Blocks blocks_of(std::int64_t k) {
  const std::int64_t count = larger(1, ceil_div(k, k_block<T>));
  return {count, ceil_div(k, count)};
}

// Rows 0..3 of s (row stride lds) become columns 0..3 of d (row stride ldd), for k columns of s.
template <class T>
COSTATE_INLINE void transpose_four(const T* s, std::int64_t lds, std::int64_t k, T* d, std::int64_t ldd) {
  using Four = typename VectorOf<T>::four;
  using Unaligned = typename VectorOf<T>::four_unaligned;
  const auto at = [](const T* p) { return static_cast<Four>(*reinterpret_cast<const Unaligned*>(p)); };
  const auto put = [](T* p, Four v) { *reinterpret_cast<Unaligned*>(p) = v; };
  std::int64_t i = 0;
  for (; i + 4 <= k; i += 4, s += 4, d += 4 * ldd) {
    const Four r0 = at(s), r1 = at(s + lds), r2 = at(s + 2 * lds), r3 = at(s + 3 * lds);
    const Four t0 = __builtin_shufflevector(r0, r1, 0, 4, 2, 6),
               t1 = __builtin_shufflevector(r0, r1, 1, 5, 3, 7);
    const Four t2 = __builtin_shufflevector(r2, r3, 0, 4, 2, 6),
               t3 = __builtin_shufflevector(r2, r3, 1, 5, 3, 7);
    put(d, __builtin_shufflevector(t0, t2, 0, 1, 4, 5));
    put(d + ldd, __builtin_shufflevector(t1, t3, 0, 1, 4, 5));
    put(d + 2 * ldd, __builtin_shufflevector(t0, t2, 2, 3, 6, 7));
    put(d + 3 * ldd, __builtin_shufflevector(t1, t3, 2, 3, 6, 7));
  }
  for (; i < k; ++i, ++s, d += ldd)
    for (int j = 0; j < 4; ++j) d[j] = s[j * lds];
}

// One panel of one block: b points at its first element, n columns of it exist.
template <class T>
void pack_panel(bool transpose_b, const T* b, std::int64_t ldb, std::int64_t k, int n, T* d) {
  constexpr int W = lanes<T>, N = tile_columns<T>;
  if (!transpose_b) {
    const int first = n < W ? n : W, second = n - first;
    for (std::int64_t i = 0; i < k; ++i, b += ldb, d += N) {
      store(d, n == N ? load(b) : load_first(b, first));
      store(d + W, n == N ? load(b + W) : second ? load_first(b + W, second) : Vector<T>{});
    }
    return;
  }
  if (n < N)
    for (std::int64_t i = 0; i < k; ++i) store(d + i * N, Vector<T>{}), store(d + i * N + W, Vector<T>{});
  int j = 0;
  for (; j + 4 <= n; j += 4) transpose_four(b + j * ldb, ldb, k, d + j, N);
  for (; j < n; ++j)
    for (std::int64_t i = 0; i < k; ++i) d[i * N + j] = b[j * ldb + i];
}

template <class T>
struct Packing {
  std::int64_t n, k, panels;
  Blocks blocks;

  Packing(std::int64_t columns, std::int64_t rows)
      : n(columns), k(rows), panels(ceil_div(columns, tile_columns<T>)), blocks(blocks_of<T>(rows)) {}
  std::int64_t size() const { return panels * tile_columns<T> * k; }
  std::int64_t offset(std::int64_t block, std::int64_t panel) const {
    const std::int64_t k0 = block * blocks.rows;
    return tile_columns<T> * (k0 * panels + panel * smaller(blocks.rows, k - k0));
  }
  void pack(bool transpose_b, std::int64_t panel, const T* b, T* packed) const {
    const std::int64_t j = panel * tile_columns<T>;
    for (std::int64_t block = 0; block < blocks.count; ++block) {
      const std::int64_t k0 = block * blocks.rows;
      pack_panel(transpose_b, transpose_b ? b + j * k + k0 : b + k0 * n + j, transpose_b ? k : n,
                 smaller(blocks.rows, k - k0), static_cast<int>(smaller(tile_columns<T>, n - j)),
                 packed + offset(block, panel));
    }
  }
};

// The elements of a transposed a that one row block needs for one k, in whole vectors.
template <class T>
constexpr int packed_a_stride = static_cast<int>(ceil_div(tile_rows, lanes<T>)) * lanes<T>;
template <class T>
COSTATE_INLINE void pack_a(const T* a, int rows, T* d) {
  constexpr int W = lanes<T>;
  for (int v = 0; v < packed_a_stride<T>; v += W) {
    const int count = rows - v < 0 ? 0 : rows - v > W ? W : rows - v;
    if (count > 0) store(d + v, load_first(a + v, count));
  }
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
