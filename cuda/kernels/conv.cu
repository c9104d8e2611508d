// Convolutions of images as tiled products whose operands look up their pixels (implicit matrix products): the three passes of
// ConvCall, any stride, padding and groups.
#include "../table.h"
#include <costate/tensor/rounding.h>

#include "product.h"

namespace costate::cuda {
namespace {

// Extents in the form that index arithmetic wants.
struct Geometry {
  std::int64_t height, width, channels, out_height, out_width, out_channels, kernel_width, stride, top, left;
  std::int64_t in_group, out_group;  // channels of a group

  explicit Geometry(const ConvShape& s)
      : height(s.height),
        width(s.width),
        channels(s.channels),
        out_height(s.out_height),
        out_width(s.out_width),
        out_channels(s.out_channels),
        kernel_width(s.kernel_width),
        stride(s.stride),
        top(s.top),
        left(s.left),
        in_group(s.channels / s.groups),
        out_group(s.out_channels / s.groups) {}
};

template <class T>
__device__ __forceinline__ Wide<T> pixel_under(const Geometry& g, const T* x, std::int64_t out_pixel, std::int64_t tap,
                                         std::int64_t channel) {
  const std::int64_t q = out_pixel % g.out_width, p = out_pixel / g.out_width % g.out_height,
                     b = out_pixel / (g.out_width * g.out_height);
  const std::int64_t row = g.stride * p + tap / g.kernel_width - g.top, column = g.stride * q + tap % g.kernel_width - g.left;
  if (row < 0 || row >= g.height || column < 0 || column >= g.width) return Wide<T>(0);
  return x[((b * g.height + row) * g.width + column) * g.channels + channel];
}

// Forward: pixels of y by (tap, channel) of x.
template <class T>
struct Patches {
  static constexpr bool contiguous_k = true;
  Geometry g;
  const T* x;
  std::int64_t group = 0;
  __device__ __forceinline__ void select(std::int64_t i) { group = i; }
  __device__ __forceinline__ Wide<T> at(std::int64_t pixel, std::int64_t k) const {
    return pixel_under(g, x, pixel, k / g.in_group, group * g.in_group + k % g.in_group);
  }
};
template <class T>
struct Filters {
  static constexpr bool contiguous_k = true;
  const T* w;
  std::int64_t out_group, length;  // length: of a filter
  __device__ __forceinline__ void select(std::int64_t i) { w += i * out_group * length; }
  __device__ __forceinline__ Wide<T> at(std::int64_t o, std::int64_t k) const { return w[o * length + k]; }
};
template <class T>
struct Channels {  // of pixels with `channels`, those of one group
  T* out;
  const T* bias;
  std::int64_t channels, of_group;
  __device__ __forceinline__ void select(std::int64_t i) {
    out += i * of_group;
    if (bias) bias += i * of_group;
  }
  __device__ __forceinline__ void put(std::int64_t pixel, std::int64_t c, Wide<T> sum) const {
    out[pixel * channels + c] = bias ? sum + bias[c] : sum;
  }
};

// Data gradient: pixels of x by (tap, output channel) of y.
template <class T>
struct ReversedPatches {
  static constexpr bool contiguous_k = true;
  Geometry g;
  const T* y;
  std::int64_t group = 0;
  __device__ __forceinline__ void select(std::int64_t i) { group = i; }
  __device__ __forceinline__ Wide<T> at(std::int64_t pixel, std::int64_t k) const {
    const std::int64_t tap = k / g.out_group, column = pixel % g.width, row = pixel / g.width % g.height,
                       b = pixel / (g.width * g.height);
    const std::int64_t p = row + g.top - tap / g.kernel_width, q = column + g.left - tap % g.kernel_width;
    if (p < 0 || q < 0 || p % g.stride || q % g.stride || p / g.stride >= g.out_height || q / g.stride >= g.out_width)
      return Wide<T>(0);
    return y[((b * g.out_height + p / g.stride) * g.out_width + q / g.stride) * g.out_channels + group * g.out_group +
             k % g.out_group];
  }
};
template <class T>
struct TransposedFilters {
  static constexpr bool contiguous_k = false;
  const T* w;
  std::int64_t in_group, out_group, taps;
  __device__ __forceinline__ void select(std::int64_t i) { w += i * out_group * taps * in_group; }
  __device__ __forceinline__ Wide<T> at(std::int64_t c, std::int64_t k) const {
    return w[((k % out_group) * taps + k / out_group) * in_group + c];
  }
};

// Weight gradient: output channels by pixels of y, and (tap, channel) by the same pixels of x, of one part of the pixels.
template <class T>
struct Cotangents {
  static constexpr bool contiguous_k = false;
  const T* y;
  std::int64_t channels, of_group, pixels, length, parts, first = 0;
  __device__ __forceinline__ void select(std::int64_t i) { y += i / parts * of_group, first = i % parts * length; }
  __device__ __forceinline__ Wide<T> at(std::int64_t o, std::int64_t k) const {
    return first + k < pixels ? Wide<T>(y[(first + k) * channels + o]) : Wide<T>(0);
  }
};
template <class T>
struct Taps {
  static constexpr bool contiguous_k = false;
  Geometry g;
  const T* x;
  std::int64_t pixels, length, parts, first = 0, group = 0;
  __device__ __forceinline__ void select(std::int64_t i) { group = i / parts, first = i % parts * length; }
  __device__ __forceinline__ Wide<T> at(std::int64_t n, std::int64_t k) const {
    return first + k < pixels ? pixel_under(g, x, first + k, n / g.in_group, group * g.in_group + n % g.in_group) : Wide<T>(0);
  }
};
template <class T>
struct Partial {  // (part, output channel, tap and channel)
  T* out;
  std::int64_t parts, of_group, length, all;  // all: elements of the weight
  __device__ __forceinline__ void select(std::int64_t i) { out += i % parts * all + i / parts * of_group * length; }
  __device__ __forceinline__ void put(std::int64_t o, std::int64_t n, Wide<T> sum) const { out[o * length + n] = sum; }
};

template <class T>
void typed(const ConvCall& call) {
  const ConvShape& s = call.shape;
  const Geometry g(s);
  const auto *x = static_cast<const T*>(call.x), *y = static_cast<const T*>(call.y), *w = static_cast<const T*>(call.weight);
  auto* out = static_cast<T*>(call.out);
  const std::int64_t taps = s.kernel_height * s.kernel_width, pixels = s.n * s.out_height * s.out_width,
                     length = taps * g.in_group;
  switch (s.pass) {
    case ConvShape::Pass::forward:
      return launch_product<Wide<T>>("conv", pixels, g.out_group, length, s.groups, Patches<T>{g, x},
                               Filters<T>{w, g.out_group, length},
                               Channels<T>{out, static_cast<const T*>(call.bias), s.out_channels, g.out_group});
    case ConvShape::Pass::data_gradient:
      return launch_product<Wide<T>>("conv data gradient", s.n * s.height * s.width, g.in_group, taps * g.out_group, s.groups,
                               ReversedPatches<T>{g, y}, TransposedFilters<T>{w, g.in_group, g.out_group, taps},
                               Channels<T>{out, nullptr, s.channels, g.in_group});
    case ConvShape::Pass::weight_gradient: {
      // Pixels are cut into parts by their number alone, whose sums are added in order.
      const std::int64_t part = 4096, parts = pixels > part ? (pixels + part - 1) / part : 1, all = s.out_channels * length;
      const pool::Scratch scratch(parts > 1 ? parts * all * static_cast<std::int64_t>(sizeof(Wide<T>)) : 0);
      const Cotangents<T> left{y, s.out_channels, g.out_group, pixels, part, parts};
      const Taps<T> right{g, x, pixels, part, parts};
      const auto run = [&](auto* to) {
        launch_product<Wide<T>>("conv weight gradient", g.out_group, length, parts > 1 ? part : pixels, s.groups * parts, left,
                                right, Partial<std::remove_pointer_t<decltype(to)>>{to, parts, g.out_group, length, all});
      };
      if (parts == 1) return run(out);
      run(scratch.as<Wide<T>>());
      if constexpr (std::is_same_v<T, Wide<T>>) return sum(s.dtype, 1, parts, all, scratch.as<T>(), out);
      const pool::Scratch whole(all * static_cast<std::int64_t>(sizeof(Wide<T>)));
      sum(arithmetic_of(s.dtype), 1, parts, all, scratch.as<Wide<T>>(), whole.as<Wide<T>>());
      cast(arithmetic_of(s.dtype), s.dtype, all, whole.as<Wide<T>>(), out);
    }
  }
}

__global__ void __launch_bounds__(block_threads) round_operand(std::int64_t n, const float* in, float* out) {
  for (std::int64_t e = first_task(); e < n; e += task_stride()) out[e] = rounding::to_tf32(in[e]);
}

// Operands rounded to TF32 first.
void rounded_conv(const ConvCall& call) {
  const ConvShape& s = call.shape;
  using Pass = ConvShape::Pass;
  const std::int64_t x = s.pass == Pass::data_gradient ? 0 : s.n * s.height * s.width * s.channels,
                     y = s.pass == Pass::forward ? 0 : s.n * s.out_height * s.out_width * s.out_channels,
                     w = s.pass == Pass::weight_gradient
                             ? 0
                             : s.out_channels * s.kernel_height * s.kernel_width * (s.channels / s.groups);
  const pool::Scratch of_x(4 * x), of_y(4 * y), of_w(4 * w);
  const auto rounded = [](std::int64_t n, const void* in, const pool::Scratch& out) -> const void* {
    if (n == 0) return in;
    launch("operands of a convolution", round_operand, grid_for(n), dim3(block_threads), 0, n, static_cast<const float*>(in),
           out.as<float>());
    return out.as<float>();
  };
  ConvCall left = call;
  left.shape.precision = Precision::f32;
  left.x = rounded(x, call.x, of_x), left.y = rounded(y, call.y, of_y), left.weight = rounded(w, call.weight, of_w);
  typed<float>(left);
}

}  // namespace

void tiled_conv(const ConvCall& call) {
  if (call.shape.dtype == DType::f32 && call.shape.precision == Precision::tf32) return rounded_conv(call);
  by_stored_type(call.shape.dtype, [&](auto zero) { typed<decltype(zero)>(call); });
}

std::int64_t conv_workspace(const ConvShape& shape, bool) { return library_conv_workspace(shape); }

void conv(const ConvCall& call) {
  if (!library_conv(call)) return tiled_conv(call);
  if (!call.bias) return;
  MatmulCall bias{};
  bias.dtype = call.shape.dtype, bias.m = call.shape.n * call.shape.out_height * call.shape.out_width;
  bias.n = call.shape.out_channels, bias.batch = 1, bias.c = call.out, bias.bias = call.bias;
  finish_product(bias);
}

}  // namespace costate::cuda
