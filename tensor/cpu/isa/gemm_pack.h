// The layout that the microkernel reads. b (k x n) is cut along k into blocks (a function of k alone) and
// along n into panels of tile_columns columns; a panel of a block is contiguous, one row of tile_columns
// elements for every k:
//     packed[block][panel][row in block][column in panel],   the last panel filled up with zeros.
// A row is one of elements E: for pairs of bf16 (gemm_bf16.h) it stands for two rows of b.
#pragma once
#include "gemm_vector.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class E>
constexpr std::int64_t k_block = 2048 / sizeof(E);
struct Blocks {
  std::int64_t count, rows;  // the last one may have fewer rows
};
template <class E>
Blocks blocks_of(std::int64_t rows) {
  const std::int64_t count = larger(1, ceil_div(rows, k_block<E>));
  return {count, ceil_div(rows, count)};
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

template <class E>
struct Packing {
  std::int64_t n, k, rows, panels;  // rows of elements E
  Blocks blocks;

  Packing(std::int64_t columns, std::int64_t depth)
      : n(columns),
        k(depth),
        rows(ceil_div(depth, Element<E>::along_k)),
        panels(ceil_div(columns, tile_columns<E>)),
        blocks(blocks_of<E>(rows)) {}
  std::int64_t size() const { return panels * tile_columns<E> * rows; }
  std::int64_t block_rows(std::int64_t block) const { return smaller(blocks.rows, rows - block * blocks.rows); }
  std::int64_t offset(std::int64_t block, std::int64_t panel) const {
    return tile_columns<E> * (block * blocks.rows * panels + panel * block_rows(block));
  }
  // One panel of one block to d.
  void pack(bool transpose_b, std::int64_t block, std::int64_t panel, const Sum<E>* b, E* d) const {
    const std::int64_t j = panel * tile_columns<E>, k0 = block * blocks.rows * Element<E>::along_k;
    pack_panel(transpose_b, transpose_b ? b + j * k + k0 : b + k0 * n + j, transpose_b ? k : n,
               smaller(blocks.rows * Element<E>::along_k, k - k0),
               static_cast<int>(smaller(tile_columns<E>, n - j)), d);
  }
  void pack(bool transpose_b, std::int64_t panel, const Sum<E>* b, E* packed) const {
    for (std::int64_t block = 0; block < blocks.count; ++block)
      pack(transpose_b, block, panel, b, packed + offset(block, panel));
  }
};

// Rows of a next to each other, row stride ldd, as elements E; with `scale` (laid out like a) multiplied by it.
template <class T>
void copy_rows(const T* a, const T* scale, std::int64_t lda, std::int64_t rows, std::int64_t k, T* d,
               std::int64_t ldd) {
  for (std::int64_t i = 0; i < rows; ++i, a += lda, d += ldd) {
    if (scale) {
      for (std::int64_t kk = 0; kk < k; ++kk) d[kk] = a[kk] * scale[i * lda + kk];
    } else {
      __builtin_memcpy(d, a, static_cast<std::size_t>(k) * sizeof(T));
    }
  }
}

// The elements of a transposed a that one row block needs for one row of E, in whole vectors.
template <class E>
constexpr int packed_a_stride = static_cast<int>(ceil_div(tile_rows, lanes<E>)) * lanes<E>;

// `rows` columns of a transposed a (k x ..., row stride lda), with `scale` multiplied by it; their sums are
// added to `sums` (packed_a_stride of them, or null). d takes packed_a_stride elements for every k.
template <class T>
COSTATE_INLINE void pack_a(const T* a, const T* scale, int rows, T* d, T* sums) {
  constexpr int W = lanes<T>;
  for (int v = 0; v < packed_a_stride<T>; v += W) {
    const int count = rows - v < 0 ? 0 : rows - v > W ? W : rows - v;
    Vector<T> x = load_first(a + v, count);
    if (scale) x *= load_first(scale + v, count);
    if (sums) store(sums + v, load(sums + v) + x);
    store(d + v, x);
  }
}
// For blocks of rows that begin at first[0] ... first[blocks]; the blocks of d follow each other. k runs outermost: a
// row of a is read once, from end to end.
template <class T>
void pack_columns(const T* a, const T* scale, std::int64_t lda, std::int64_t k, const std::int64_t* first,
                  std::int64_t blocks, T* d, T* sums) {
  constexpr std::int64_t stride = packed_a_stride<T>;
  for (std::int64_t kk = 0; kk < k; ++kk)
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t at = kk * lda + first[block];
      pack_a(a + at, scale ? scale + at : nullptr, static_cast<int>(first[block + 1] - first[block]),
                           d + (block * k + kk) * stride, sums ? sums + block * stride : nullptr);
    }
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
