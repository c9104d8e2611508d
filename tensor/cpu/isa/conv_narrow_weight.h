// The weight gradient of a convolution of images with a few channels, such as the first one of a network:
// lanes along channels would stay empty, so here they run along filters. A row of a tile is one (tap,
// channel), a column a filter:
//   dw[o, (tap, k)] = sum over pixels of x[pixel under the tap, k] dy[pixel, o].
// A run of images is copied amid its padding first, so that every (tap, channel) is one offset from the
// pixel.
#pragma once
#include <costate/tensor/kernels.h>
#include <costate/tensor/parallel.h>

#include <utility>

#include "gemm_vector.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class T>
struct NarrowCall {
  std::int64_t images, rows, run;
  const T* a;
  const std::int64_t* offset;  // of R rows from a
  std::int64_t a_image, a_row, a_pixel;
  const T* b;  // pixels of dy, one after the other
  std::int64_t b_pixel;
  int columns;
  T* c;  // R rows of tile_columns
};

template <class T, int R, int vectors>
void narrow_tile(const NarrowCall<T>& call) {
  constexpr int W = lanes<T>;
  const int last = call.columns - (vectors - 1) * W;
  Vector<T> x[R], y[R];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) x[i] = y[i] = Vector<T>{};
  const T* b = call.b;
  for (std::int64_t image = 0; image < call.images; ++image)
    for (std::int64_t row = 0; row < call.rows; ++row) {
      const T* base = call.a + image * call.a_image + row * call.a_row;
      const T* a[R];
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) a[i] = base + call.offset[i];
      for (std::int64_t q = 0; q < call.run; ++q, b += call.b_pixel) {
        const Vector<T> b0 = vectors == 2 || last == W ? load(b) : load_first(b, last);
        Vector<T> b1{};
        if constexpr (vectors == 2) b1 = last == W ? load(b + W) : load_first(b + W, last);
        const std::int64_t at = q * call.a_pixel;
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) {
          const Vector<T> ai = broadcast(a[i][at]);
          x[i] += ai * b0;
          if constexpr (vectors == 2) y[i] += ai * b1;
        }
      }
    }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    store(call.c + i * tile_columns<T>, x[i]);
    if constexpr (vectors == 2) store(call.c + i * tile_columns<T> + W, y[i]);
  }
}

template <class T>
struct NarrowWeight {
  static constexpr int W = lanes<T>, N = tile_columns<T>;
  const ConvShape& s;
  std::int64_t high, wide, images;  // of the padded images; how many at a time
  std::int64_t rows, row_blocks, panels;

  static bool fits(const ConvShape& s) { return s.groups == 1 && 2 * s.channels <= W; }

  explicit NarrowWeight(const ConvShape& shape)
      : s(shape),
        high(s.stride * (s.out_height - 1) + s.kernel_height),
        wide(s.stride * (s.out_width - 1) + s.kernel_width),
        rows(s.kernel_height * s.kernel_width * s.channels),
        row_blocks(ceil_div(rows, tile_rows)),
        panels(ceil_div(s.out_channels, N)) {
    const std::int64_t bytes = static_cast<std::int64_t>(sizeof(T)) *
                               (high * wide * s.channels + s.out_height * s.out_width * s.out_channels);
    images = smaller(s.n, larger(1, 600000 / bytes));
  }
  std::int64_t workspace_size() const { return images * high * wide * s.channels; }

  void run(const T* x, const T* dy, T* dw, T* workspace) const {
    for (std::int64_t i = 0; i < s.out_channels * rows; ++i) dw[i] = T(0);
    for (std::int64_t b = 0; b < s.n; b += images) {
      const std::int64_t count = smaller(images, s.n - b);
      parallel_for(count * high, 1 + 8192 / (wide * s.channels), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t line = begin; line < end; ++line)
          copy_line(x, b + line / high, line % high - s.top, workspace + line * wide * s.channels);
      });
      const std::int64_t work = count * s.out_height * s.out_width * tile_rows * N;
      parallel_for(row_blocks * panels, 1 + 500000 / work, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
          tile(workspace, dy, dw, b, count, i % row_blocks, i / row_blocks);
      });
    }
  }

 private:
  void copy_line(const T* x, std::int64_t image, std::int64_t row, T* line) const {
    for (std::int64_t q = 0; q < wide; ++q, line += s.channels) {
      const std::int64_t column = q - s.left;
      const bool inside = row >= 0 && row < s.height && column >= 0 && column < s.width;
      const T* pixel = x + ((image * s.height + row) * s.width + column) * s.channels;
      for (std::int64_t c = 0; c < s.channels; ++c) line[c] = inside ? pixel[c] : T(0);
    }
  }

  void tile(const T* padded, const T* dy, T* dw, std::int64_t image, std::int64_t count, std::int64_t block,
            std::int64_t panel) const {
    const std::int64_t first = rows * block / row_blocks, last = rows * (block + 1) / row_blocks;
    std::int64_t offset[tile_rows];
    for (std::int64_t row = first; row < last; ++row) {
      const std::int64_t tap = row / s.channels;
      offset[row - first] =
          (tap / s.kernel_width * wide + tap % s.kernel_width) * s.channels + row % s.channels;
    }
    alignas(64) T sums[tile_rows * N];
    NarrowCall<T> call;
    call.images = count, call.rows = s.out_height, call.run = s.out_width;
    call.a = padded, call.offset = offset;
    call.a_pixel = s.stride * s.channels, call.a_row = s.stride * wide * s.channels,
    call.a_image = high * wide * s.channels;
    call.b = dy + image * s.out_height * s.out_width * s.out_channels + panel * N,
    call.b_pixel = s.out_channels;
    call.columns = static_cast<int>(smaller(N, s.out_channels - panel * N));
    call.c = sums;
    tiles(call, static_cast<int>(last - first), std::make_integer_sequence<int, tile_rows>{});
    for (int o = 0; o < call.columns; ++o)
      for (std::int64_t row = first; row < last; ++row)
        dw[(panel * N + o) * rows + row] += sums[(row - first) * N + o];
  }

  template <int... R>
  static void tiles(const NarrowCall<T>& call, int height, std::integer_sequence<int, R...>) {
    using Function = void (*)(const NarrowCall<T>&);
    static constexpr Function one[] = {narrow_tile<T, R + 1, 1>...}, two[] = {narrow_tile<T, R + 1, 2>...};
    (call.columns > W ? two : one)[height - 1](call);
  }
};

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
