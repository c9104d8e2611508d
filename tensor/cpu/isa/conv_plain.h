// Convolution by its definition (ConvShape in tensor/kernels.h): the portable form, and what the others are
// compared with.
//
// All three passes run along the channels of one filter tap, which lie next to each other in images and
// filters alike; whatever the tap, the innermost loop is a dot product or a multiple of a row added to
// another.
#pragma once
#include <costate/tensor/kernels.h>
#include <costate/tensor/parallel.h>

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class T>
struct PlainConv {
  using Index = std::int64_t;
  const ConvShape& s;
  Index in_group = s.channels / s.groups, out_group = s.out_channels / s.groups;
  Index filter = s.kernel_height * s.kernel_width * in_group;  // elements of one

  explicit PlainConv(const ConvShape& shape) : s(shape) {}

  // Eight interleaved partial sums, combined pairwise.
  static T dot(Index n, const T* a, const T* b) {
    constexpr int lanes = 8;
    T part[lanes] = {};
    Index i = 0;
    for (; i + lanes <= n; i += lanes)
      for (int l = 0; l < lanes; ++l) part[l] += a[i + l] * b[i + l];
    for (int l = 0; i < n; ++i, ++l) part[l] += a[i] * b[i];
    for (int width = lanes / 2; width > 0; width /= 2)
      for (int l = 0; l < width; ++l) part[l] += part[l + width];
    return part[0];
  }
  static void add(Index n, T factor, const T* a, T* sum) {
    for (Index i = 0; i < n; ++i) sum[i] += factor * a[i];
  }

  // Rows of y.
  void forward(const T* x, const T* w, const T* bias, T* y) const {
    parallel(s.n * s.out_height, [&](Index task) {
      const Index b = task / s.out_height, p = task % s.out_height;
      for (Index q = 0; q < s.out_width; ++q)
        for (Index o = 0; o < s.out_channels; ++o) {
          T sum = bias ? bias[o] : T(0);
          for (Index i = 0; i < s.kernel_height; ++i) {
            const Index row = s.stride * p + i - s.top;
            if (row < 0 || row >= s.height) continue;
            for (Index j = 0; j < s.kernel_width; ++j) {
              const Index column = s.stride * q + j - s.left;
              if (column < 0 || column >= s.width) continue;
              sum +=
                  dot(in_group,
                      x + ((b * s.height + row) * s.width + column) * s.channels + o / out_group * in_group,
                      w + o * filter + (i * s.kernel_width + j) * in_group);
            }
          }
          y[(task * s.out_width + q) * s.out_channels + o] = sum;
        }
    });
  }

  // Rows of dx: what every tap gathers from the pixels of dy that it once fed.
  void data_gradient(const T* dy, const T* w, T* dx) const {
    parallel(s.n * s.height, [&](Index task) {
      const Index b = task / s.height, row = task % s.height;
      T* out = dx + task * s.width * s.channels;
      for (Index e = 0; e < s.width * s.channels; ++e) out[e] = T(0);
      for (Index i = 0; i < s.kernel_height; ++i) {
        const Index down = row + s.top - i, p = down / s.stride;
        if (down < 0 || down % s.stride != 0 || p >= s.out_height) continue;
        for (Index column = 0; column < s.width; ++column)
          for (Index j = 0; j < s.kernel_width; ++j) {
            const Index across = column + s.left - j, q = across / s.stride;
            if (across < 0 || across % s.stride != 0 || q >= s.out_width) continue;
            const T* g = dy + ((b * s.out_height + p) * s.out_width + q) * s.out_channels;
            for (Index o = 0; o < s.out_channels; ++o)
              add(in_group, g[o], w + o * filter + (i * s.kernel_width + j) * in_group,
                  out + column * s.channels + o / out_group * in_group);
          }
      }
    });
  }

  // One row of taps of one filter: the sum over all pixels in their order.
  void weight_gradient(const T* x, const T* dy, T* dw) const {
    parallel(s.out_channels * s.kernel_height, [&](Index task) {
      const Index o = task / s.kernel_height, i = task % s.kernel_height;
      T* out = dw + task * s.kernel_width * in_group;
      for (Index e = 0; e < s.kernel_width * in_group; ++e) out[e] = T(0);
      for (Index b = 0; b < s.n; ++b)
        for (Index p = 0; p < s.out_height; ++p) {
          const Index row = s.stride * p + i - s.top;
          if (row < 0 || row >= s.height) continue;
          for (Index q = 0; q < s.out_width; ++q)
            for (Index j = 0; j < s.kernel_width; ++j) {
              const Index column = s.stride * q + j - s.left;
              if (column < 0 || column >= s.width) continue;
              add(in_group, dy[((b * s.out_height + p) * s.out_width + q) * s.out_channels + o],
                  x + ((b * s.height + row) * s.width + column) * s.channels + o / out_group * in_group,
                  out + j * in_group);
            }
        }
    });
  }

  void run(const ConvCall& call) const {
    const T* x = static_cast<const T*>(call.x);
    const T* y = static_cast<const T*>(call.y);
    const T* w = static_cast<const T*>(call.weight);
    T* out = static_cast<T*>(call.out);
    switch (s.pass) {
      case ConvShape::Pass::forward:
        return forward(x, w, static_cast<const T*>(call.bias), out);
      case ConvShape::Pass::data_gradient:
        return data_gradient(y, w, out);
      case ConvShape::Pass::weight_gradient:
        return weight_gradient(x, y, out);
    }
  }
};

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
