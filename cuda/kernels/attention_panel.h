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

struct Lane {
  int warp_row = static_cast<int>(threadIdx.x) / warp * 16;  // of the tile's rows the first that is this warp's
  int lane = static_cast<int>(threadIdx.x) % warp;
  int row = warp_row + lane / 4, column = lane % 4 * 2;  // the first of the lane's; the other row is 8 on
};

template <int S>
struct Panel {
  static constexpr int length = 16 * S, row = length + 8, size = panel_rows * row, columns = 2 * S;
  using Sums = MatrixC[columns];  // 16 rows, 8 columns each
  using Left = MatrixA[S];

  // `from` (count, width), rows `stride` apart: its rows first, first + 1, ..., and zeros beyond its end. vectors: 16 bytes
  // at a time.
  static __device__ __forceinline__ void load(const Bf16* from, std::int64_t stride, std::int64_t first, std::int64_t count,
                                              int width, bool vectors, Bf16* to) {
    if (!vectors) {
      for (int e = static_cast<int>(threadIdx.x); e < panel_rows * length; e += panel_threads) {
        const int r = e / length, d = e % length;
        to[r * row + d].bits = d < width && first + r < count ? from[(first + r) * stride + d].bits : std::uint16_t{0};
      }
      return;
    }
    constexpr int eights = length / 8;
    float4 eight[S];  // all of a thread's are on their way before one is needed
    COSTATE_UNROLL
    for (int j = 0; j < S; ++j) {
      const int e = static_cast<int>(threadIdx.x) + j * panel_threads, r = e / eights, d = e % eights * 8;
      eight[j] = d < width && first + r < count ? *reinterpret_cast<const float4*>(from + (first + r) * stride + d) : float4{};
    }
    COSTATE_UNROLL
    for (int j = 0; j < S; ++j) {
      const int e = static_cast<int>(threadIdx.x) + j * panel_threads;
      *reinterpret_cast<float4*>(to + e / eights * row + e % eights * 8) = eight[j];
    }
  }

  // The rows r, r + 1, ..., r + 15 of a tile and the columns 16 step, ..., 16 step + 15.
  static __device__ __forceinline__ MatrixA left(const Bf16* tile, int r, int step) {
    const int lane = Lane().lane;
    const Matrices m = load_matrices(tile + (r + lane % 16) * row + 16 * step + lane / 16 * 8);
    return {m.pair[0], m.pair[1], m.pair[2], m.pair[3]};
  }
  static __device__ __forceinline__ void left(const Bf16* tile, int r, Left& a) {
    COSTATE_UNROLL
    for (int step = 0; step < S; ++step) a[step] = left(tile, r, step);
  }

  // s += a b^T: columns of s are the first 8 N rows of b. of(step): the left operand's 16 columns.
  template <int N, class Of>
  static __device__ __forceinline__ void multiply(const Of& of, const Bf16* b, MatrixC (&s)[N]) {
    const int lane = Lane().lane;
    const Bf16* const at = b + (lane / 16 * 8 + lane % 8) * row + lane / 8 % 2 * 8;
    COSTATE_UNROLL
    for (int step = 0; step < S; ++step) {
      const MatrixA a = of(step);
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

  // to[first + r, d] = factor of the row times sum_r, of the rows that there are.
  static __device__ __forceinline__ void store(const Sums& sum, const float (&factor)[2], std::int64_t stride,
                                               std::int64_t first, std::int64_t count, int width, bool vectors, Bf16* to) {
    const Lane at;
    COSTATE_UNROLL
    for (int h = 0; h < 2; ++h) {
      const std::int64_t r = first + at.row + 8 * h;
      if (r >= count) continue;
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

// Of the 4 lanes that share a row.
template <class Combine>
__device__ __forceinline__ float of_lanes(float v, Combine combine) {
  v = combine(v, __shfl_xor_sync(whole_warp, v, 1));
  return combine(v, __shfl_xor_sync(whole_warp, v, 2));
}

}  // namespace
}  // namespace costate::cuda
