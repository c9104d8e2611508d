// One matrix product from packed (or rows of) b: the loops around the microkernel, and who does what.
//
// The grid of tasks is a function of the shape: row blocks in groups, times panels in groups. Within a task k
// runs outermost in blocks, then panels, then row blocks, so that a panel stays in the first-level cache and
// the group's rows of a in the second.
#pragma once
#include <costate/tensor/parallel.h>

#include "gemm_epilogue.h"
#include "gemm_pack.h"
#include "gemm_tile.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class T>
struct Product {
  bool transpose_a;
  std::int64_t m, n, k;
  const T* a;
  const T* b;  // in the layout of Packing, or k x n in rows (in_rows: n is then a multiple of tile_columns)
  bool in_rows;
  T* c;
  bool accumulate;
  const T* bias;
  Activation activation;
  T* derivative;

  std::int64_t row_blocks = ceil_div(m, tile_rows);

  static constexpr int W = lanes<T>, N = tile_columns<T>;
  static constexpr std::int64_t group = 112 / tile_rows;  // row blocks of a task

  void run(bool threads) const {
    const Packing<T> packing(n, k);
    const std::int64_t down = ceil_div(row_blocks, group);
    // Panels are shared out too when there are few groups of rows, down to tasks of about 2^19 multiply-adds.
    const std::int64_t group_work = smaller(m, group * tile_rows) * N * (k + 1);
    const std::int64_t most = larger(1, packing.panels * group_work >> 19);
    const std::int64_t across = !threads ? 1 : smaller(packing.panels, smaller(most, ceil_div(16, down)));
    const auto one = [&](std::int64_t i) {
      const std::int64_t y = i / across, x = i % across;
      task(packing, row_blocks * y / down, row_blocks * (y + 1) / down, packing.panels * x / across,
           packing.panels * (x + 1) / across);
    };
    if (threads)
      parallel(down * across, one);
    else
      for (std::int64_t i = 0; i < down * across; ++i) one(i);
  }

 private:
  // The first row of a row block: blocks are of even size.
  std::int64_t row(std::int64_t block) const { return m * block / row_blocks; }

  void task(const Packing<T>& packing, std::int64_t block0, std::int64_t block1, std::int64_t panel0,
            std::int64_t panel1) const {
    const std::int64_t row0 = row(block0), rows = row(block1) - row0;
    std::int64_t first[group + 1];  // the first row of every block of this task
    for (std::int64_t block = block0; block <= block1; ++block) first[block - block0] = row(block);
    // Rows a large power of two apart fall into the same few sets of the first-level cache: copy them.
    const bool copy = !transpose_a && k >= 512 && k * sizeof(T) % 1024 == 0 && panel1 - panel0 >= 6;
    static thread_local Scratch scratch;
    T* const own = transpose_a ? scratch.get<T>((block1 - block0) * packing.blocks.rows * packed_a_stride<T>)
                   : copy      ? scratch.get<T>(rows * (packing.blocks.rows + 16))
                               : nullptr;
    for (std::int64_t kb = 0; kb < packing.blocks.count; ++kb) {
      const std::int64_t k0 = kb * packing.blocks.rows, kc = smaller(packing.blocks.rows, k - k0);
      if (transpose_a) {
        for (std::int64_t kk = 0; kk < kc; ++kk)  // outermost: a row of a is read once, from end to end
          for (std::int64_t block = 0; block < block1 - block0; ++block)
            pack_a(a + (k0 + kk) * m + first[block], static_cast<int>(first[block + 1] - first[block]),
                   own + (block * kc + kk) * packed_a_stride<T>);
      } else if (copy) {
        for (std::int64_t i = 0; i < rows; ++i)
          __builtin_memcpy(own + i * (kc + 16), a + (row0 + i) * k + k0,
                           static_cast<std::size_t>(kc) * sizeof(T));
      }
      for (std::int64_t panel = panel0; panel < panel1; ++panel) {
        TileCall<T> call;
        call.k = kc;
        call.b = in_rows ? b + k0 * n + panel * N : b + packing.offset(kb, panel);
        call.ldb = in_rows ? n : N;
        const Column column(*this, panel, kb == 0 ? accumulate : true, kb + 1 == packing.blocks.count);
        for (std::int64_t block = 0; block < block1 - block0; ++block) {
          const std::int64_t i = first[block];
          call.a = transpose_a ? own + block * kc * packed_a_stride<T>
                   : copy      ? own + (i - row0) * (kc + 16)
                               : a + i * k + k0;
          call.lda = transpose_a ? packed_a_stride<T> : copy ? kc + 16 : k;
          column.tile(call, i, static_cast<int>(first[block + 1] - i));
        }
      }
    }
  }

  // The tiles of one panel and one block of k: whole tiles go straight to c, others through a buffer.
  struct Column {
    const Product& p;
    std::int64_t j0;
    int n, vectors;
    bool add, finish_here;
    alignas(64) T bias[N];

    Column(const Product& product, std::int64_t panel, bool add_to_c, bool last)
        : p(product),
          j0(panel * N),
          n(static_cast<int>(smaller(N, p.n - j0))),
          vectors(n > W ? 2 : 1),
          add(add_to_c),
          finish_here(last && (p.bias || p.derivative || p.activation != Activation::none)) {
      if (!finish_here) return;
      for (int j = 0; j < N; ++j) bias[j] = p.bias && j < n ? p.bias[j0 + j] : T(0);
    }
    void tile(TileCall<T>& call, std::int64_t i, int rows) const {
      T* const out = p.c + i * p.n + j0;
      const Tile<T> kernel = choose_tile<T>(rows, vectors, p.transpose_a);
      if (!finish_here && n == vectors * W) {
        call.c = out, call.ldc = p.n, call.accumulate = add;
        return kernel(call);
      }
      alignas(64) T z[tile_rows * N];
      if (add)
        for (int r = 0; r < rows; ++r) {
          store(z + r * N, load_first(out + r * p.n, n < W ? n : W));
          if (vectors == 2) store(z + r * N + W, load_first(out + r * p.n + W, n - W));
        }
      call.c = z, call.ldc = N, call.accumulate = add;
      kernel(call);
      if (finish_here) {
        T* const slope = p.derivative ? p.derivative + i * p.n + j0 : nullptr;
        if (vectors == 2)
          finish<N>(p.activation, rows, n, z, N, bias, out, slope, p.n);
        else
          finish<W>(p.activation, rows, n, z, N, bias, out, slope, p.n);
      } else {
        for (int r = 0; r < rows; ++r) {
          store_first(out + r * p.n, n < W ? n : W, load(z + r * N));
          if (vectors == 2) store_first(out + r * p.n + W, n - W, load(z + r * N + W));
        }
      }
    }
  };
};

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
