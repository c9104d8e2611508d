// Tiles of bf16 rows in shared memory, and their products on tensor cores. A block of 4 warps owns a tile of 64 rows of one
// operand (queries, or keys and values), each warp 16 of them, whose sums are in its registers; tiles of the others pass by.
// With g = lane / 4 and i = lane % 4 a lane has, of what a warp holds, the rows g and g + 8 and of every 8 columns 2 i and
// 2 i + 1 (instructions.h): a row's numbers are in 4 neighbouring lanes.
//
// Rows in shared memory are 16 S elements long, zeros behind the head's width, and lie 8 elements, 16 bytes, further apart: the
// distance is an odd multiple of 16 bytes, so that the eight rows of 16 bytes that a matrix is loaded from lie in different
// banks.
#pragma once
#include "attention.h"
#include "instructions.h"

namespace costate::cuda {
namespace {

constexpr int panel_warps = 4, panel_threads = panel_warps * warp, panel_rows = 16 * panel_warps;

// Of the rows first, first + 1, ... of `count` those that a tile can have.
__device__ __forceinline__ int rows_left(int count, int first) {
  return count - first < panel_rows ? count - first : panel_rows;
}

struct Lane {
  int warp_row = static_cast<int>(threadIdx.x) / warp * 16;  // of the tile's rows the first that is this warp's
  int lane = static_cast<int>(threadIdx.x) % warp;
  int row = warp_row + lane / 4, column = lane % 4 * 2;  // the first of the lane's; the other row is 8 on
};

template <int S>
struct Panel {
  static constexpr int length = 16 * S, row = length + 8, size = panel_rows * row, columns = 2 * S;
  using Sums = MatrixC[columns];  // 16 rows, 8 columns each

  // Of fetch, 8 `eights` columns from `first` on: neighbours in a row by neighbouring threads. A pointer that moves takes fewer
  // registers than many offsets that are kept.
  template <int eights>
  static __device__ __forceinline__ void fetch_columns(const Bf16* from, int stride, int left, int width, int first, Bf16* to) {
    constexpr int rows = panel_threads / eights;
    const int r = static_cast<int>(threadIdx.x) / eights, d = first + static_cast<int>(threadIdx.x) % eights * 8;
    const int there = d < width ? left : 0;
    from += r * stride + d, to += r * row + d;
    COSTATE_UNROLL
    for (int j = 0; j < panel_rows; j += rows) {
      begin_copy<16>(from, to + j * row, r + j < there);
      from += rows * stride;
    }
  }
  // Begins to copy the first `left` rows of `from`, `width` elements, `stride` apart, and zeros behind them. vectors: whether
  // 16 bytes at a time can be.
  static __device__ __forceinline__ void fetch(const Bf16* from, int stride, int left, int width, bool vectors, Bf16* to) {
    if (vectors) {
      COSTATE_UNROLL
      for (int d = 0; d + 64 <= length; d += 64) fetch_columns<8>(from, stride, left, width, d, to);
      if constexpr (constexpr int rest = length % 64; rest > 0)
        fetch_columns<rest / 8>(from, stride, left, width, length - rest, to);
      return;
    }
    for (int e = static_cast<int>(threadIdx.x); e < panel_rows * length; e += panel_threads) {
      const int r = e / length, d = e % length;
      to[r * row + d].bits = d < width && r < left ? from[r * stride + d].bits : std::uint16_t{0};
    }
  }

  // The rows r, r + 1, ..., r + 15 of a tile and the columns 16 step, ..., 16 step + 15.
  static __device__ __forceinline__ MatrixA left(const Bf16* tile, int r, int step) {
    const int lane = Lane().lane;
    const Matrices m = load_matrices(tile + (r + lane % 16) * row + 16 * step + lane / 16 * 8);
    return {m.pair[0], m.pair[1], m.pair[2], m.pair[3]};
  }

  // s += a b^T: columns of s are the first 8 N rows of b. own(step): 16 columns of a.
  template <int N, class Own>
  static __device__ __forceinline__ void multiply(const Own& own, const Bf16* b, MatrixC (&s)[N]) {
    const int lane = Lane().lane;
    const Bf16* const at = b + (lane / 16 * 8 + lane % 8) * row + lane / 8 % 2 * 8;
    COSTATE_UNROLL
    for (int step = 0; step < S; ++step) {
      const MatrixA a = own(step);
      COSTATE_UNROLL
      for (int j = 0; j < N; j += 2) {
        const Matrices m = load_matrices(at + 8 * j * row + 16 * step);
        multiply_add(a, {m.pair[0], m.pair[1]}, s[j]);
        multiply_add(a, {m.pair[2], m.pair[3]}, s[j + 1]);
      }
    }
  }
  // sum += p b, where p has 8 N columns, each rounded to bf16, for the first 8 N rows of b.
  template <int N>
  static __device__ __forceinline__ void weigh(const MatrixC (&p)[N], const Bf16* b, Sums& sum) {
    const int lane = Lane().lane;
    const Bf16* const at = b + lane % 16 * row + lane / 16 * 8;
    COSTATE_UNROLL
    for (int j = 0; j < N; j += 2) {
      const MatrixA a{bf16_pair(p[j].at[0], p[j].at[1]), bf16_pair(p[j].at[2], p[j].at[3]),
                      bf16_pair(p[j + 1].at[0], p[j + 1].at[1]), bf16_pair(p[j + 1].at[2], p[j + 1].at[3])};
      COSTATE_UNROLL
      for (int step = 0; step < S; ++step) {
        const Matrices m = load_transposed(at + 8 * j * row + 16 * step);
        multiply_add(a, {m.pair[0], m.pair[1]}, sum[2 * step]);
        multiply_add(a, {m.pair[2], m.pair[3]}, sum[2 * step + 1]);
      }
    }
  }

  // to[r, d] = factor of the row times sum_r, of the first `left` rows.
  static __device__ __forceinline__ void store(const Sums& sum, const float (&factor)[2], int stride, int left, int width,
                                               bool vectors, Bf16* to) {
    const Lane at;
    COSTATE_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int r = at.row + 8 * h;
      if (r >= left) continue;
      COSTATE_UNROLL
      for (int n = 0; n < columns; ++n) {
        const int d = 8 * n + at.column;
        const float low = factor[h] * sum[n].at[2 * h], high = factor[h] * sum[n].at[2 * h + 1];
        Bf16* const p = to + r * stride + d;
        if (vectors && d < width) {
          *reinterpret_cast<std::uint32_t*>(p) = bf16_pair(low, high);
        } else {
          if (d < width) p[0] = low;
          if (d + 1 < width) p[1] = high;
        }
      }
    }
  }
};

// What a warp owns as left operand: the 16 rows of a tile from `row` on, in registers, or where they are.
template <int S, bool in_registers>
struct Owned {
  MatrixA a[S];

  __device__ __forceinline__ void take(const Bf16* tile, int row) {
    COSTATE_UNROLL
    for (int step = 0; step < S; ++step) a[step] = Panel<S>::left(tile, row, step);
  }
  __device__ __forceinline__ MatrixA operator()(int step) const { return a[step]; }
};
template <int S>
struct Owned<S, false> {
  const Bf16* tile;
  int row;

  __device__ __forceinline__ void take(const Bf16* in, int at) { tile = in, row = at; }
  __device__ __forceinline__ MatrixA operator()(int step) const { return Panel<S>::left(tile, row, step); }
};

// Two operands (count, width) that pass by in tiles of their rows. While a block computes with two tiles, the next two are on
// their way, where shared memory has room for four and enough blocks beside. keeps: two more, of what the block owns, stay.
template <int S, bool keeps>
struct Passing {
  using P = Panel<S>;
  static constexpr int stages = S <= 6 ? 2 : 1, tiles_in_all = 2 * stages + 2 * keeps, size = tiles_in_all * P::size;
  static constexpr std::size_t bytes = size * sizeof(Bf16);
  const Bf16 *a, *b;
  int row_a, row_b, count, width;
  bool vectors;
  Bf16* tiles;

  __device__ __forceinline__ Bf16* tile_a(int stage) const { return tiles + 2 * stage * P::size; }
  __device__ __forceinline__ Bf16* tile_b(int stage) const { return tile_a(stage) + P::size; }
  __device__ __forceinline__ void fetch(int first, int stage) const {
    const int left = rows_left(count, first);
    P::fetch(a + std::int64_t{first} * row_a, row_a, left, width, vectors, tile_a(stage));
    P::fetch(b + std::int64_t{first} * row_b, row_b, left, width, vectors, tile_b(stage));
  }

  // body(how many rows there are, stage) for all tiles of both, when they are there. Before that own(tile, tile) fetches what
  // the block owns and take(tile, tile) takes it; along(first row, how many, stage) fetches what a body needs besides.
  template <class Own, class Take, class Along, class Body>
  __device__ __forceinline__ void each(const Own& own, const Take& take, const Along& along, const Body& body) const {
    constexpr int own_stage = keeps ? stages : stages - 1;
    constexpr bool at_once = own_stage > 0;
    own(tile_a(own_stage), tile_b(own_stage));
    if constexpr (at_once) fetch(0, 0), along(0, rows_left(count, 0), 0);
    wait_for_copies();
    __syncthreads();
    take(tile_a(own_stage), tile_b(own_stage));
    if constexpr (!at_once) {
      __syncthreads();
      fetch(0, 0), along(0, rows_left(count, 0), 0);
    }
    int stage = 0;
    for (int r = 0; r < count; r += panel_rows) {
      wait_for_copies();
      __syncthreads();  // the tiles are there for all, and those before them have been read
      const int next = r + panel_rows;
      if constexpr (stages == 2)
        if (next < count) fetch(next, 1 - stage), along(next, rows_left(count, next), 1 - stage);
      body(rows_left(count, r), stage);
      if constexpr (stages == 2) {
        stage = 1 - stage;
      } else if (next < count) {
        __syncthreads();
        fetch(next, 0), along(next, rows_left(count, next), 0);
      }
    }
  }
};

// Of the 4 lanes that share a row.
template <class Combine>
__device__ __forceinline__ float of_lanes(float v, Combine combine) {
  v = combine(v, __shfl_xor_sync(whole_warp, v, 1));
  return combine(v, __shfl_xor_sync(whole_warp, v, 2));
}

}  // namespace
}  // namespace costate::cuda
