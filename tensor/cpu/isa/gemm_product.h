// One matrix product: the loops around the microkernel, what is packed where, and who does what.
//
// c is cut into tasks: row blocks in groups, times panels in groups. Within a task k runs outermost in blocks, then
// panels, then row blocks, so that a panel stays near and the group's rows of a in the second-level cache. The cut
// follows the number of workers; the order of every element's sum does not.
//
// Rows of a are read in place where that is fast. They are copied where the copy is needed (to round them, to
// multiply them by `scale`, to bring the columns of a transposed a together, to move rows off equal cache sets): by
// each task for itself when few tasks share them, else once for all, block of k by block of k.
#pragma once
#include <costate/tensor/parallel.h>

#include "gemm_bf16.h"
#include "gemm_epilogue.h"
#include "gemm_pack.h"
#include "gemm_tile.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class E>
struct Product {
  using T = Sum<E>;
  static constexpr int W = lanes<E>, N = tile_columns<E>;
  static constexpr std::int64_t group = 112 / tile_rows;  // row blocks of a task
  static constexpr std::int64_t padding = 16;             // elements between copied rows

  bool transpose_a, transpose_b;
  std::int64_t m, n, k;
  const T* a = nullptr;
  const T* scale = nullptr;  // laid out like a, or null
  const T* b = nullptr;
  const E* packed = nullptr;  // b in the layout of Packing, or null
  T* c = nullptr;
  bool accumulate = false;
  const T* bias = nullptr;
  Activation activation = Activation::none;
  T* derivative = nullptr;
  T* row_sums = nullptr;  // of a transposed a, or null

  Packing<E> packing;
  std::int64_t row_blocks, down, across;
  int workers;
  bool in_rows;  // rows of b are read in place
  bool copied, shared;

  // What the workspace needs to know follows from the shape.
  Product(const MatmulShape& shape, int workers_)
      : transpose_a(shape.transpose_a),
        transpose_b(shape.transpose_b),
        m(shape.m),
        n(shape.n),
        k(shape.k),
        packing(n, k),
        row_blocks(ceil_div(m, tile_rows)),
        workers(workers_) {
    // A few rows do not repay a copy of b when its rows can be read in place.
    in_rows = !shape.packed && Element<E>::along_k == 1 && !transpose_b && n % N == 0 && m <= 2 * tile_rows;
    with_b = shape.packed || in_rows;
    down = ceil_div(row_blocks, group), across = 1;
    if (workers > 1) {
      if (row_blocks >= 8 * workers)
        down = smaller(row_blocks, ceil_div(down, workers) * workers);
      else
        across = smaller(packing.panels, workers);
    }
    // Rows a large power of two apart fall into the same few sets of the first-level cache.
    const bool clash = k >= 512 && k * static_cast<std::int64_t>(sizeof(T)) % 1024 == 0 && packing.panels >= 6 * across;
    copied = transpose_a || shape.scaled || Element<E>::along_k > 1 || clash;
    shared = transpose_a || (copied && across > 2);
  }
  Product(const MatmulCall& call, int workers_) : Product(static_cast<const MatmulShape&>(call), workers_) {
    a = static_cast<const T*>(call.a), b = static_cast<const T*>(call.b), c = static_cast<T*>(call.c);
    if (call.scaled) scale = static_cast<const T*>(call.scale_a);
    if (call.packed) packed = static_cast<const E*>(call.packed_b);
    if (call.summed) row_sums = static_cast<T*>(call.row_sums);
    accumulate = call.accumulate, activation = call.activation;
    bias = static_cast<const T*>(call.bias), derivative = static_cast<T*>(call.derivative);
  }

  // Elements of workspace: b (whole, or one block of it), then the rows of a.
  std::int64_t workspace() const { return b_size() + a_size() * (shared ? 1 : slots()); }

  void run(E* workspace) {
    E* const own_b = workspace;
    E* const own_a = workspace + b_size();
    if (!shared) {
      if (!with_b) {
        each(packing.panels, [&](std::int64_t panel) { packing.pack(transpose_b, panel, b, own_b); });
        packed = own_b;
      }
      const std::int64_t tasks = down * across, s = slots();
      each(s, [&](std::int64_t slot) {
        for (std::int64_t i = tasks * slot / s; i < tasks * (slot + 1) / s; ++i)
          for (std::int64_t kb = 0; kb < packing.blocks.count; ++kb) {
            E* rows = nullptr;
            if (copied) rows = own_a + slot * a_size(), copy(kb, first_block(i / across), first_block(i / across + 1), rows);
            task(i, kb, rows, nullptr);
          }
      });
      return;
    }
    const bool pack_b = !with_b;
    for (std::int64_t kb = 0; kb < packing.blocks.count; ++kb) {
      const std::int64_t groups = ceil_div(row_blocks, group), panel_groups = pack_b ? ceil_div(packing.panels, 4) : 0;
      each(groups + panel_groups, [&](std::int64_t i) {
        if (i < groups) {
          copy(kb, row_blocks * i / groups, row_blocks * (i + 1) / groups, own_a);
          return;
        }
        for (std::int64_t panel = 4 * (i - groups); panel < smaller(packing.panels, 4 * (i - groups) + 4); ++panel)
          packing.pack(transpose_b, kb, panel, b, own_b + panel * N * packing.block_rows(kb));
      });
      each(down * across, [&](std::int64_t i) { task(i, kb, own_a, pack_b ? own_b : nullptr); });
    }
  }

 private:
  bool with_b;  // b needs no packing

  template <class Body>
  void each(std::int64_t tasks, const Body& body) const {
    if (workers > 1) return parallel(tasks, body);
    for (std::int64_t i = 0; i < tasks; ++i) body(i);
  }
  int slots() const { return static_cast<int>(smaller(workers, down * across)); }
  std::int64_t b_size() const {
    return with_b ? 0 : shared ? packing.panels * N * packing.blocks.rows : packing.size();
  }
  std::int64_t a_size() const {
    if (!copied) return 0;
    if (transpose_a) return row_blocks * packed_a_stride<E> * packing.blocks.rows;
    return ceil_div((shared ? m : most_rows()) * row_stride(), 16) * 16;
  }
  std::int64_t row_stride() const { return packing.blocks.rows + padding; }
  std::int64_t most_rows() const { return smaller(m, ceil_div(row_blocks, down) * tile_rows); }

  // The first row of a row block: blocks are of even size.
  std::int64_t row(std::int64_t block) const { return m * block / row_blocks; }
  std::int64_t first_block(std::int64_t y) const { return row_blocks * y / down; }

  // One block of k of the rows of a run of row blocks. Columns of a transposed a lie block by block,
  // rows with row_stride() from one to the next; if shared, from where they would lie with all the others.
  void copy(std::int64_t kb, std::int64_t block0, std::int64_t block1, E* to) const {
    const std::int64_t k0 = kb * packing.blocks.rows * Element<E>::along_k;
    const std::int64_t kc = smaller(packing.blocks.rows * Element<E>::along_k, k - k0);
    if (!transpose_a) {
      const std::int64_t row0 = row(block0), at = row0 * k + k0;
      copy_rows(a + at, scale ? scale + at : nullptr, k, row(block1) - row0, kc, shared ? to + row0 * row_stride() : to,
                row_stride());
      return;
    }
    std::int64_t first[group + 1];
    alignas(64) T sums[group * packed_a_stride<E>] = {};
    for (std::int64_t block = block0; block <= block1; ++block) first[block - block0] = row(block);
    const std::int64_t at = k0 * m;
    pack_columns(a + at, scale ? scale + at : nullptr, m, kc, first, block1 - block0,
                 to + block0 * packing.block_rows(kb) * packed_a_stride<E>, row_sums ? sums : nullptr);
    if (!row_sums) return;
    for (std::int64_t block = block0; block < block1; ++block)
      for (std::int64_t i = row(block); i < row(block + 1); ++i) {
        const T sum = sums[(block - block0) * packed_a_stride<E> + i - row(block)];
        row_sums[i] = kb == 0 ? sum : row_sums[i] + sum;
      }
  }

  // Task i for one block of k, from `rows` made by copy (or in place) and, if not null, from this block of b.
  void task(std::int64_t i, std::int64_t kb, const E* rows, const E* block_of_b) const {
    const std::int64_t x = i % across, block0 = first_block(i / across), block1 = first_block(i / across + 1);
    const std::int64_t k0 = kb * packing.blocks.rows, kc = packing.block_rows(kb), row0 = row(block0);
    std::int64_t first[group + 1];
    for (std::int64_t block = block0; block <= block1; ++block) first[block - block0] = row(block);
    const std::int64_t panel0 = packing.panels * x / across, panel1 = packing.panels * (x + 1) / across;
    Ahead ahead(*this, kb, block0, block1, panel1 - panel0);
    for (std::int64_t panel = panel0; panel < panel1; ++panel) {
      TileCall<E> call;
      call.k = kc;
      call.ldb = N;
      if constexpr (Element<E>::along_k == 1) {
        if (in_rows) call.b = b + k0 * n + panel * N, call.ldb = n;
      }
      if (!in_rows) call.b = block_of_b ? block_of_b + panel * N * kc : packed + packing.offset(kb, panel);
      const Column column(*this, panel, kb == 0 ? accumulate : true, kb + 1 == packing.blocks.count);
      for (std::int64_t block = block0; block < block1; ++block) {
        const std::int64_t at = first[block - block0];
        ahead.step();
        if (transpose_a)
          call.a = rows + block * kc * packed_a_stride<E>, call.lda = packed_a_stride<E>;
        else if (copied)
          call.a = rows + (shared ? at : at - row0) * row_stride(), call.lda = row_stride();
        else if constexpr (Element<E>::along_k == 1)
          call.a = a + at * k + k0, call.lda = k;
        column.tile(call, at, static_cast<int>(first[block + 1 - block0] - at));
      }
    }
  }

  // The rows of a that the next task will read, called into the second-level cache a few lines with every tile: rows are
  // read side by side, which hardware does not foresee.
  struct Ahead {
    const T* row = nullptr;
    std::int64_t rows = 0, lines = 0, line = 0, each = 0, stride;
    static constexpr std::int64_t of_line = 64 / static_cast<std::int64_t>(sizeof(T));

    Ahead(const Product& p, std::int64_t kb, std::int64_t block0, std::int64_t block1, std::int64_t panels) : stride(p.k) {
      if (p.shared || block1 >= p.row_blocks) return;
      const std::int64_t k0 = kb * p.packing.blocks.rows * Element<E>::along_k;
      rows = smaller(p.m - p.row(block1), p.row(block1) - p.row(block0));
      lines = ceil_div(smaller(p.packing.blocks.rows * Element<E>::along_k, p.k - k0), of_line);
      row = p.a + p.row(block1) * p.k + k0;
      each = ceil_div(rows * lines, panels * (block1 - block0));
    }
    void step() {
      for (std::int64_t i = 0; i < each && rows > 0; ++i) {
        __builtin_prefetch(row + line * of_line, 0, 2);
        if (++line == lines) line = 0, row += stride, --rows;
      }
    }
  };

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
    void tile(TileCall<E>& call, std::int64_t i, int rows) const {
      T* const out = p.c + i * p.n + j0;
      const Tile<E> kernel = choose_tile<E>(rows, vectors, p.transpose_a);
      if (!finish_here && n == vectors * W) {
        // Rows of c are far apart and often not in the second-level cache. They are called for before k runs where they
        // will be read, and where k is too short to hide writing them (measured on Zen 4: 2 and 5 %).
        if (call.k >= 96 && (add || call.k <= 256))
          for (int r = 0; r < rows; ++r)
            for (int q = 0; q < vectors; ++q) __builtin_prefetch(out + r * p.n + q * W, 1);
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
