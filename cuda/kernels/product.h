// The tiled product that matrix products and convolutions share: c(m, n) = sum over k of a(m, k) b(k, n) for operands that
// are functions of their indices. A block computes a square of c from squares of a and b in shared memory; a thread 4 x 4 of
// it. The sum runs in order of k: its bits depend on nothing else.
//
// An operand has at(row, k), called only within the extents; `contiguous_k` says along which index neighbours lie in memory,
// so that neighbouring threads read neighbouring elements. The result has put(m, n, sum).
#pragma once
#include "grid.h"

namespace costate::cuda {
namespace {

constexpr int tile = 64, depth = 16, micro = 4;  // of c; of k at a time; of a thread
static_assert(block_threads == (tile / micro) * (tile / micro));

// square[k][row], rows and depths beyond the extents are 0. at(row, k): of `rows` x `inner`.
template <class T, class Operand>
__device__ __forceinline__ void load_square(const Operand& operand, std::int64_t row0, std::int64_t rows, std::int64_t k0,
                                            std::int64_t inner, T (&square)[depth][tile + 1]) {
  for (int e = static_cast<int>(threadIdx.x); e < tile * depth; e += block_threads) {
    const int k = Operand::contiguous_k ? e % depth : e / tile, row = Operand::contiguous_k ? e / depth : e % tile;
    square[k][row] = row0 + row < rows && k0 + k < inner ? operand.at(row0 + row, k0 + k) : T(0);
  }
}

template <class T, class A, class B, class C>
__global__ void __launch_bounds__(block_threads, 2)  // two blocks at a time, or the compiler saves registers by spilling
    tiled_product(std::int64_t m, std::int64_t n, std::int64_t k, A a, B b, C c) {
  COSTATE_SHARED(T, square_a, [depth][tile + 1]);
  COSTATE_SHARED(T, square_b, [depth][tile + 1]);
  const int column = static_cast<int>(threadIdx.x) % (tile / micro), row = static_cast<int>(threadIdx.x) / (tile / micro);
  const std::int64_t m0 = static_cast<std::int64_t>(blockIdx.x) * tile, n0 = static_cast<std::int64_t>(blockIdx.y) * tile;
  a.select(blockIdx.z), b.select(blockIdx.z), c.select(blockIdx.z);
  T sum[micro][micro] = {};
  for (std::int64_t k0 = 0; k0 < k; k0 += depth) {
    load_square<T>(a, m0, m, k0, k, square_a);
    load_square<T>(b, n0, n, k0, k, square_b);
    __syncthreads();
    COSTATE_UNROLL
    for (int d = 0; d < depth; ++d) {
      T x[micro], y[micro];
      COSTATE_UNROLL
      for (int i = 0; i < micro; ++i)
        x[i] = square_a[d][row + i * (tile / micro)], y[i] = square_b[d][column + i * (tile / micro)];
      COSTATE_UNROLL
      for (int i = 0; i < micro; ++i) COSTATE_UNROLL
      for (int j = 0; j < micro; ++j) sum[i][j] += x[i] * y[j];
    }
    __syncthreads();
  }
  // Unrolled, or the sums would be indexed in memory.
  COSTATE_UNROLL
  for (int i = 0; i < micro; ++i) COSTATE_UNROLL
  for (int j = 0; j < micro; ++j) {
    const std::int64_t to_m = m0 + row + i * (tile / micro), to_n = n0 + column + j * (tile / micro);
    if (to_m < m && to_n < n) c.put(to_m, to_n, sum[i][j]);
  }
}

// `batch` products; operand.select(i) moves an operand to the i-th one.
template <class T, class A, class B, class C>
void launch_product(const char* name, std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t batch, const A& a,
                    const B& b, const C& c) {
  if (m * n * batch == 0) return;
  const std::int64_t down = (m + tile - 1) / tile, across = (n + tile - 1) / tile;
  constexpr std::int64_t most = 65535;  // CUDA's bound on the second and third extent of a grid
  if (across > most || batch > most)
    fail(Fault::argument, std::string(name) + ": " + std::to_string(n) + " columns of " + std::to_string(batch) +
                              " products are more than one launch can take");
  launch(name, tiled_product<T, A, B, C>,
         dim3(static_cast<unsigned>(down), static_cast<unsigned>(across), static_cast<unsigned>(batch)), dim3(block_threads), 0,
         m, n, k, a, b, c);
}

}  // namespace
}  // namespace costate::cuda
