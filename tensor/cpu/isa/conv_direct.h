// Convolution as a matrix product whose left operand is never built: forward and data gradient, any filter
// and stride.
//
// A row of the product is a pixel of the result, a column a filter, and the sum runs over the taps of the
// filter and, within one, over channels. For every pixel and tap there is a pointer to the source pixel, or
// to zeros where that lies in the padding (Dukhan, The indirect convolution algorithm, 2019,
// arXiv:1907.02129). The pixels of a data gradient fall into stride^2 phases by their place modulo the
// stride, which differ in the taps that reach them.
//     packed[group][panel][tap][channel][column in panel],    the layout of conv_pack: panels as in
//     gemm_pack.h
// With at most four filters a panel would stay nearly empty: lanes then run along channels (thin, as in
// gemm_thin.h),
//     packed[group][filter][tap][channel, filled up with zeros to whole vectors].
// Every sum is one chain in the order (tap, channel), thin ones one a lane: no pixel depends on which others
// there are.
#pragma once
#include <costate/tensor/kernels.h>
#include <costate/tensor/parallel.h>

#include "gemm_pack.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

// R pixels of the result, some columns of it, over some taps.
template <class T>
struct PixelCall {
  std::int64_t taps, k;
  const T* const* from;          // [tap][tile_rows]: source pixels
  const std::int64_t* b_of_tap;  // offsets into b
  const T* b;
  T* const* to;   // pixels of the result
  const T* bias;  // the first terms of the sums, `columns` of them, unless `add`
  bool add;       // the result's old values are the first terms
  int columns;
};

template <class T, int R, int vectors>
void pixel_tile(const PixelCall<T>& call) {
  constexpr int W = lanes<T>, N = tile_columns<T>;
  const int last = call.columns - (vectors - 1) * W;  // columns of the last vector
  Vector<T> x[R], y[R];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    T* const to = call.to[i];
    if (call.add) {
      x[i] = vectors == 2 ? load(to) : load_first(to, last);
      if constexpr (vectors == 2) y[i] = load_first(to + W, last);
    } else {
      x[i] = load(call.bias);
      if constexpr (vectors == 2) y[i] = load(call.bias + W);
    }
  }
  for (std::int64_t t = 0; t < call.taps; ++t) {
    const T* b = call.b + call.b_of_tap[t];
    const T* a[R];
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) a[i] = call.from[t * tile_rows + i];
    for (std::int64_t k = 0; k < call.k; ++k, b += N) {
      const Vector<T> b0 = load(b);
      Vector<T> b1{};
      if constexpr (vectors == 2) b1 = load(b + W);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        const Vector<T> ai = broadcast(a[i][k]);
        x[i] += ai * b0;
        if constexpr (vectors == 2) y[i] += ai * b1;
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    T* const to = call.to[i];
    if constexpr (vectors == 2) {
      store(to, x[i]);
      if (last == W)
        store(to + W, y[i]);
      else
        store_first(to + W, last, y[i]);
    } else {
      if (last == W)
        store(to, x[i]);
      else
        store_first(to, last, x[i]);
    }
  }
}

// One pixel, n columns; lanes run along channels. b_of_tap is for one column, whose filter is `filter`
// elements long.
template <class T, int n>
void thin_pixel(const PixelCall<T>& call, int pixel, std::int64_t filter) {
  constexpr int W = lanes<T>;
  Vector<T> x[n];
  for (int j = 0; j < n; ++j) x[j] = Vector<T>{};
  for (std::int64_t t = 0; t < call.taps; ++t) {
    const T* a = call.from[t * tile_rows + pixel];
    const T* b = call.b + call.b_of_tap[t];
    std::int64_t k = 0;
    for (; k + W <= call.k; k += W) {
      const Vector<T> ak = load(a + k);
#pragma GCC unroll 4
      for (int j = 0; j < n; ++j) x[j] += ak * load(b + j * filter + k);
    }
    if (k < call.k) {
      const Vector<T> ak = load_first(a + k, static_cast<int>(call.k - k));
#pragma GCC unroll 4
      for (int j = 0; j < n; ++j) x[j] += ak * load(b + j * filter + k);
    }
  }
  T* const to = call.to[pixel];
  for (int j = 0; j < n; ++j) to[j] = (call.add ? to[j] : call.bias[j]) + sum(x[j]);
}

template <class T>
struct DirectConv {
  static constexpr int W = lanes<T>, N = tile_columns<T>;
  static constexpr std::int64_t most_k = 1024;         // channels at a time: there are as many zeros
  static constexpr std::int64_t most_pointers = 4096;  // of a task, on its stack

  const ConvShape& s;
  bool transposed;    // the data gradient
  std::int64_t k, m;  // channels summed over, filters; of a group
  std::int64_t taps, panels,
      stretch;  // stretch: elements of one tap in the packed layout, of a panel or thin column
  bool thin;
  std::int64_t height, width, source_height, source_width;

  explicit DirectConv(const ConvShape& shape)
      : s(shape), transposed(s.pass == ConvShape::Pass::data_gradient) {
    const std::int64_t in = s.channels / s.groups, out = s.out_channels / s.groups;
    k = transposed ? out : in, m = transposed ? in : out;
    taps = s.kernel_height * s.kernel_width;
    thin = m <= 4 && k >= 2 * W;
    panels = ceil_div(m, N);
    stretch = thin ? ceil_div(k, W) * W : k * N;
    height = transposed ? s.height : s.out_height, width = transposed ? s.width : s.out_width;
    source_height = transposed ? s.out_height : s.height, source_width = transposed ? s.out_width : s.width;
  }

  std::int64_t group_size() const { return (thin ? m : panels) * taps * stretch; }
  std::int64_t packed_size() const { return s.groups * group_size(); }

  void pack(const T* w, T* packed) const {
    const std::int64_t columns = thin ? m : panels;
    parallel_for(s.groups * columns, 1 + 8192 / (taps * stretch), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        for (std::int64_t t = 0; t < taps; ++t)
          pack_tap(w, i / columns, i % columns, t, packed + (i * taps + t) * stretch);
    });
  }

  void run(const T* in, const T* packed, const T* bias, T* out) const {
    const std::int64_t phases = transposed ? s.stride : 1;
    for (std::int64_t y = 0; y < phases; ++y)
      for (std::int64_t x = 0; x < phases; ++x) phase(in, packed, bias, out, axis(y, true), axis(x, false));
  }

 private:
  // Pixels of the result along one axis: origin + step i for i < count. Tap first + tap_step j reads the
  // source at source_step i + source_origin + source_tap j, for j < taps.
  struct Axis {
    std::int64_t origin, step, count, source_step, source_origin, source_tap, first, tap_step, taps;
  };
  Axis axis(std::int64_t place, bool vertical) const {
    const std::int64_t padding = vertical ? s.top : s.left, extent = vertical ? height : width,
                       kernel = vertical ? s.kernel_height : s.kernel_width;
    if (!transposed) return {0, 1, extent, s.stride, -padding, 1, 0, 1, kernel};
    // Taps i = place, place + stride, ... reach the pixels with (pixel + padding) mod stride = place, from
    // (pixel + padding - i) / stride.
    const std::int64_t origin = ((place - padding) % s.stride + s.stride) % s.stride;
    return {origin,
            s.stride,
            origin < extent ? ceil_div(extent - origin, s.stride) : 0,
            1,
            (origin + padding - place) / s.stride,
            -1,
            place,
            s.stride,
            place < kernel ? ceil_div(kernel - place, s.stride) : 0};
  }

  void pack_tap(const T* w, std::int64_t group, std::int64_t column, std::int64_t t, T* d) const {
    const std::int64_t in = s.channels / s.groups, out = s.out_channels / s.groups, filter = taps * in;
    const T* tap =
        w + group * out * filter + t * in;  // of filter 0 of the group; its channels lie next to each other
    if (thin) {
      for (std::int64_t i = 0; i < stretch; ++i)
        d[i] = i >= k ? T(0) : transposed ? tap[i * filter + column] : tap[column * filter + i];
    } else {
      const std::int64_t first = column * N;
      const int n = static_cast<int>(smaller(N, m - first));
      pack_panel(!transposed, transposed ? tap + first : tap + first * filter, filter, k, n, d);
    }
  }

  void phase(const T* in, const T* packed, const T* bias, T* out, const Axis& down,
             const Axis& across) const {
    const std::int64_t pixels = s.n * down.count * across.count;
    if (pixels == 0) return;
    const std::int64_t blocks = ceil_div(pixels, tile_rows), reach = down.taps * across.taps;
    // A task is as many blocks as leave their source pixels in the second-level cache and their pointers on
    // the stack.
    const std::int64_t bytes = tile_rows * s.stride * k * static_cast<std::int64_t>(sizeof(T));
    const std::int64_t most =
        larger(1, smaller(200000 / bytes, most_pointers / (tile_rows * larger(1, reach))));
    const std::int64_t down_tasks = ceil_div(blocks, most);
    const std::int64_t work = smaller(most, blocks) * tile_rows * larger(1, reach) * k * N;
    const std::int64_t columns = thin ? 1 : panels;
    const std::int64_t across_tasks =
        smaller(columns, smaller(ceil_div(16, down_tasks), larger(1, columns * work >> 19)));
    parallel(s.groups * down_tasks * across_tasks, [&](std::int64_t task) {
      const std::int64_t x = task % across_tasks, y = task / across_tasks % down_tasks,
                         group = task / across_tasks / down_tasks;
      part(in, packed, bias, out, down, across, group, blocks * y / down_tasks, blocks * (y + 1) / down_tasks,
           blocks, pixels, columns * x / across_tasks, columns * (x + 1) / across_tasks);
    });
  }

  // Blocks block0 .. block1 - 1 of the pixels of a phase, columns (panels) column0 .. column1 - 1.
  void part(const T* in, const T* packed, const T* bias, T* out, const Axis& down, const Axis& across,
            std::int64_t group, std::int64_t block0, std::int64_t block1, std::int64_t blocks,
            std::int64_t pixels, std::int64_t column0, std::int64_t column1) const {
    alignas(64) static constexpr T zeros[most_k] = {};
    const T* from[most_pointers];
    T* to[most_pointers];
    std::int64_t b_of_tap[most_pointers / tile_rows];
    const std::int64_t reach = down.taps * across.taps;
    const std::int64_t most_taps = most_pointers / tile_rows / (block1 - block0);
    // One pass, unless there are very many taps or channels. Without any tap the result is the bias or zero.
    for (std::int64_t t0 = 0; t0 < larger(1, reach); t0 += most_taps)
      for (std::int64_t k0 = 0; k0 < k; k0 += most_k) {
        const std::int64_t t1 = smaller(reach, t0 + most_taps), count = t1 - t0;
        for (std::int64_t block = block0; block < block1; ++block) {
          const std::int64_t first = pixels * block / blocks, rows = pixels * (block + 1) / blocks - first;
          for (std::int64_t i = 0; i < rows; ++i) {
            const std::int64_t pixel = first + i, image = pixel / (down.count * across.count),
                               u = pixel / across.count % down.count, v = pixel % across.count;
            const T* const source = in + image * source_height * source_width * k * s.groups + group * k + k0;
            const T** pointer = from + (block - block0) * count * tile_rows + i;
            const std::int64_t above = down.source_step * u + down.source_origin,
                               left = across.source_step * v + across.source_origin;
            std::int64_t a = reach ? t0 / across.taps : 0, b = reach ? t0 % across.taps : 0;  // tap (a, b)
            for (std::int64_t t = t0; t < t1; ++t, pointer += tile_rows) {
              const std::int64_t y = above + down.source_tap * a, x = left + across.source_tap * b;
              if (++b == across.taps) b = 0, ++a;
              *pointer = y < 0 || y >= source_height || x < 0 || x >= source_width
                             ? zeros
                             : source + (y * source_width + x) * k * s.groups;
            }
            to[(block - block0) * tile_rows + i] =
                out +
                ((image * height + down.origin + down.step * u) * width + across.origin + across.step * v) *
                    m * s.groups +
                group * m;
          }
        }
        for (std::int64_t t = t0; t < t1; ++t)
          b_of_tap[t - t0] = ((down.first + down.tap_step * (t / across.taps)) * s.kernel_width +
                              across.first + across.tap_step * (t % across.taps)) *
                                 stretch +
                             k0 * (thin ? 1 : N);
        PixelCall<T> call;
        call.taps = count, call.k = smaller(most_k, k - k0), call.b_of_tap = b_of_tap;
        call.add = t0 > 0 || k0 > 0;
        for (std::int64_t column = column0; column < column1; ++column) {
          alignas(64) T first_terms[N] = {};
          call.columns = static_cast<int>(thin ? m : smaller(N, m - column * N));
          if (bias)
            for (int j = 0; j < call.columns; ++j) first_terms[j] = bias[group * m + column * N + j];
          call.bias = first_terms;
          call.b = packed + group * group_size() + column * taps * stretch;
          for (std::int64_t block = block0; block < block1; ++block) {
            const std::int64_t rows = pixels * (block + 1) / blocks - pixels * block / blocks;
            call.from = from + (block - block0) * count * tile_rows;
            T* moved[tile_rows];
            for (std::int64_t i = 0; i < rows; ++i)
              moved[i] = to[(block - block0) * tile_rows + i] + column * N;
            call.to = moved;
            apply(call, static_cast<int>(rows));
          }
        }
      }
  }

  template <int... R>
  static void tiles(const PixelCall<T>& call, int rows, std::integer_sequence<int, R...>) {
    using Function = void (*)(const PixelCall<T>&);
    static constexpr Function one[] = {pixel_tile<T, R + 1, 1>...}, two[] = {pixel_tile<T, R + 1, 2>...};
    (call.columns > W ? two : one)[rows - 1](call);
  }
  void apply(const PixelCall<T>& call, int rows) const {
    if (!thin) return tiles(call, rows, std::make_integer_sequence<int, tile_rows>{});
    for (int i = 0; i < rows; ++i) switch (m) {
        case 1:
          thin_pixel<T, 1>(call, i, taps * stretch);
          break;
        case 2:
          thin_pixel<T, 2>(call, i, taps * stretch);
          break;
        case 3:
          thin_pixel<T, 3>(call, i, taps * stretch);
          break;
        default:
          thin_pixel<T, 4>(call, i, taps * stretch);
      }
  }
};

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
