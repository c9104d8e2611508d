// The weight gradient of a convolution, any filter and stride: for every tap a matrix product over the
// pixels,
//   dw[o, i, j, :] = sum over b, p, q of dy[b, p, q, o] x[b, stride p + i - top, stride q + j - left, :],
// both operands read in place. Tiles of filters x channels stay in registers while a run of images passes
// that fits in the second-level cache; every run is summed from zero and then added to dw, which keeps the
// rounding of long sums small.
#pragma once
#include <costate/tensor/kernels.h>
#include <costate/tensor/parallel.h>

#include <utility>

#include "gemm_vector.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class T>
struct OuterCall {
  std::int64_t images, rows, run;        // run: pixels of a row
  const T* a;                            // R neighbours
  std::int64_t a_image, a_row, a_pixel;  // strides
  const T* b;                            // `columns` neighbours
  std::int64_t b_image, b_row, b_pixel;
  T* c;  // R rows, stride ldc, added to
  std::int64_t ldc;
  int columns;
};

template <class T, int R, int vectors, bool whole>
void outer_tile(const OuterCall<T>& call) {
  constexpr int W = lanes<T>;
  const int last = call.columns - (vectors - 1) * W;
  const auto load_last = [&](const T* p) { return whole ? load(p) : load_first(p, last); };
  Vector<T> x[R], y[R];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) x[i] = y[i] = Vector<T>{};
  const std::int64_t a_pixel = call.a_pixel, b_pixel = call.b_pixel;
  for (std::int64_t image = 0; image < call.images; ++image)
    for (std::int64_t row = 0; row < call.rows; ++row) {
      const T* a = call.a + image * call.a_image + row * call.a_row;
      const T* b = call.b + image * call.b_image + row * call.b_row;
      for (std::int64_t q = 0; q < call.run; ++q, a += a_pixel, b += b_pixel) {
        const Vector<T> b0 = vectors == 2 ? load(b) : load_last(b);
        Vector<T> b1{};
        if constexpr (vectors == 2) b1 = load_last(b + W);
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) {
          const Vector<T> ai = broadcast(a[i]);
          x[i] += ai * b0;
          if constexpr (vectors == 2) y[i] += ai * b1;
        }
      }
    }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    T* const c = call.c + i * call.ldc;
    T* const end = c + (vectors - 1) * W;
    if constexpr (vectors == 2) store(c, load(c) + x[i]);
    const Vector<T> v = load_last(end) + (vectors == 2 ? y[i] : x[i]);
    if constexpr (whole)
      store(end, v);
    else
      store_first(end, last, v);
  }
}

template <class T>
struct DirectWeight {
  static constexpr int W = lanes<T>, N = tile_columns<T>;
  const ConvShape& s;
  std::int64_t channels, filters;  // of a group
  std::int64_t panels, row_blocks, images;

  explicit DirectWeight(const ConvShape& shape)
      : s(shape), channels(s.channels / s.groups), filters(s.out_channels / s.groups) {
    panels = ceil_div(channels, N), row_blocks = ceil_div(filters, tile_rows);
    const std::int64_t bytes =
        static_cast<std::int64_t>(sizeof(T)) *
        (s.height * s.width * s.channels + s.out_height * s.out_width * s.out_channels);
    images = larger(1, 600000 / bytes);
  }

  void run(const T* x, const T* dy, T* dw) const {
    const std::int64_t size = s.out_channels * s.kernel_height * s.kernel_width * channels;
    for (std::int64_t i = 0; i < size; ++i) dw[i] = T(0);
    const std::int64_t taps = s.kernel_height * s.kernel_width, tiles = s.groups * row_blocks * taps * panels;
    for (std::int64_t b = 0; b < s.n; b += images) {
      const std::int64_t count = smaller(images, s.n - b);
      const std::int64_t work = count * s.out_height * s.out_width * tile_rows * N;
      parallel_for(tiles, 1 + 500000 / work, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
          tile(x, dy, dw, b, count, i / (row_blocks * taps * panels), i / (taps * panels) % row_blocks,
               i / panels % taps, i % panels);
      });
    }
  }

 private:
  // The pixels of the result, along one axis, whose tap lies within the image: first .. last - 1.
  struct Range {
    std::int64_t first, last;
  };
  Range range(std::int64_t tap, std::int64_t padding, std::int64_t extent, std::int64_t out) const {
    const std::int64_t low = padding - tap, high = extent + padding - tap;  // low <= stride p < high
    return {low <= 0 ? 0 : ceil_div(low, s.stride), high <= 0 ? 0 : smaller(out, ceil_div(high, s.stride))};
  }

  void tile(const T* x, const T* dy, T* dw, std::int64_t image, std::int64_t count, std::int64_t group,
            std::int64_t block, std::int64_t tap, std::int64_t panel) const {
    const std::int64_t i = tap / s.kernel_width, j = tap % s.kernel_width;
    const Range p = range(i, s.top, s.height, s.out_height), q = range(j, s.left, s.width, s.out_width);
    if (p.first >= p.last || q.first >= q.last) return;
    const std::int64_t row = filters * block / row_blocks, rows = filters * (block + 1) / row_blocks - row;
    const std::int64_t column = panel * N, taps = s.kernel_height * s.kernel_width;
    OuterCall<T> call;
    call.images = count, call.rows = p.last - p.first, call.run = q.last - q.first;
    call.a_pixel = s.out_channels, call.a_row = s.out_width * call.a_pixel,
    call.a_image = s.out_height * call.a_row;
    call.a =
        dy + image * call.a_image + p.first * call.a_row + q.first * call.a_pixel + group * filters + row;
    const std::int64_t line = s.width * s.channels;
    call.b_pixel = s.stride * s.channels, call.b_row = s.stride * line, call.b_image = s.height * line;
    call.b = x + image * call.b_image + (s.stride * p.first + i - s.top) * line +
             (s.stride * q.first + j - s.left) * s.channels + group * channels + column;
    call.ldc = taps * channels;
    call.c = dw + (group * filters + row) * call.ldc + tap * channels + column;
    call.columns = static_cast<int>(smaller(N, channels - column));
    tiles(call, static_cast<int>(rows), std::make_integer_sequence<int, tile_rows>{});
  }

  template <int... R>
  static void tiles(const OuterCall<T>& call, int rows, std::integer_sequence<int, R...>) {
    using Function = void (*)(const OuterCall<T>&);
    static constexpr Function kernel[4][tile_rows] = {{outer_tile<T, R + 1, 1, false>...},
                                                      {outer_tile<T, R + 1, 1, true>...},
                                                      {outer_tile<T, R + 1, 2, false>...},
                                                      {outer_tile<T, R + 1, 2, true>...}};
    kernel[2 * (call.columns > W) + (call.columns % W == 0)][rows - 1](call);
  }
};

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
