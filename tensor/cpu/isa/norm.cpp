// Group norm and modulated layer norm. Sums over space are taken channel by channel, then over the channels of a group, in
// an order that depends on the extents alone.
#include <costate/tensor/parallel.h>
#include <costate/tensor/scalar.h>

#include "activate_affine.h"
#include "row_sum.h"
#include "scratch.h"
#include "table.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

// Tasks of group norm: one sample and as many groups as stay in the third-level cache for a second pass; fewer when there are
// few samples, but at least some neighbouring cache lines.
struct Strips {
  std::int64_t groups, count;  // of a strip; strips a sample
  explicit Strips(const GroupNormCall& call) {
    const std::int64_t width = call.channels / call.groups, most = (1 << 20) / (call.spatial * width + 1),
                       least = ((call.n < 4 ? 31 : 63) + width) / width, wanted = call.n < 4 || most < least ? least : most;
    groups = wanted < call.groups ? wanted : call.groups;
    count = (call.groups + groups - 1) / groups;
  }
};

// What one task reads and the constants of its channels: y = (x - mean) slope + offset.
template <class T>
struct Strip {
  std::int64_t sample, channel0, width, group0, groups, group_width, spatial, row;
  const T* x;
  T *mean, *slope, *offset, *work;  // `width` each

  Strip(const GroupNormCall& call, const Strips& strips, std::int64_t task, Scratch& scratch) {
    sample = task / strips.count;
    group0 = task % strips.count * strips.groups;
    groups = call.groups - group0 < strips.groups ? call.groups - group0 : strips.groups;
    group_width = call.channels / call.groups;
    channel0 = group0 * group_width, width = groups * group_width;
    spatial = call.spatial, row = call.channels;
    x = static_cast<const T*>(call.x) + sample * spatial * row + channel0;
    mean = scratch.get<T>(4 * width);
    slope = mean + width, offset = slope + width, work = offset + width;
  }

  // Replaces every channel's value by the mean over its group, where each channel has `spatial` elements.
  void mean_of_groups(T* sums) const {
    const T count = static_cast<T>(spatial * group_width);
    for (std::int64_t g = 0; g < groups; ++g) {
      T total = T(0);
      for (std::int64_t i = 0; i < group_width; ++i) total += sums[g * group_width + i];
      for (std::int64_t i = 0; i < group_width; ++i) sums[g * group_width + i] = total / count;
    }
  }
  void affine(const GroupNormCall& call, const T* rstd_of_group) const {
    for (std::int64_t c = 0; c < width; ++c) {
      const std::int64_t channel = channel0 + c, at = sample * row + channel;
      const T rstd = rstd_of_group[c / group_width];
      const T gamma = call.gamma ? static_cast<const T*>(call.gamma)[channel] : T(1);
      const T beta = call.beta ? static_cast<const T*>(call.beta)[channel] : T(0);
      const T scale = T(1) + (call.scale ? static_cast<const T*>(call.scale)[at] : T(0));
      const T shift = call.shift ? static_cast<const T*>(call.shift)[at] : T(0);
      slope[c] = rstd * gamma * scale, offset[c] = beta * scale + shift;
    }
  }
};

// mean and squares (the sum of (x - mean)^2) of every channel over space. Both are exact to rounding within a block of places,
// which stays in the first-level cache, and blocks are joined by the formula of Chan, Golub and LeVeque (1983). Blocks do not
// depend on the strip: the bits of a sample do not depend on how many there are.
template <class T>
void moments_of_channels(const Strip<T>& strip, T* __restrict mean, T* __restrict squares, T* __restrict block_mean,
                         T* __restrict block_squares) {
  const std::int64_t width = strip.width, row = strip.row, fit = 4096 / row, block = fit < 8 ? 8 : fit > 64 ? 64 : fit;
  for (std::int64_t s0 = 0; s0 < strip.spatial; s0 += block) {
    const std::int64_t end = s0 + block < strip.spatial ? s0 + block : strip.spatial;
    for (std::int64_t c = 0; c < width; ++c) block_mean[c] = block_squares[c] = T(0);
    for (std::int64_t s = s0; s < end; ++s) {
      const T* __restrict x = strip.x + s * row;
      for (std::int64_t c = 0; c < width; ++c) block_mean[c] += x[c];
    }
    const T share = T(1) / static_cast<T>(end - s0);
    for (std::int64_t c = 0; c < width; ++c) block_mean[c] *= share;
    for (std::int64_t s = s0; s < end; ++s) {
      const T* __restrict x = strip.x + s * row;
      for (std::int64_t c = 0; c < width; ++c) block_squares[c] += (x[c] - block_mean[c]) * (x[c] - block_mean[c]);
    }
    if (s0 == 0) {
      for (std::int64_t c = 0; c < width; ++c) mean[c] = block_mean[c], squares[c] = block_squares[c];
      continue;
    }
    const T weight = static_cast<T>(end - s0) / static_cast<T>(end), cross = static_cast<T>(s0) * weight;
    for (std::int64_t c = 0; c < width; ++c) {
      const T step = block_mean[c] - mean[c];
      mean[c] += step * weight;
      squares[c] += block_squares[c] + step * step * cross;
    }
  }
}

template <class T, Activation activation>
void forward(const GroupNormCall& call, const Strip<T>& strip, T* out, T* mean_out, T* rstd_out) {
  const std::int64_t width = strip.group_width;
  T* const squares = strip.work;
  moments_of_channels(strip, strip.mean, squares, strip.slope, strip.offset);
  for (std::int64_t g = 0; g < strip.groups; ++g) {
    T* const mean = strip.mean + g * width;
    T total = T(0), spread = T(0);
    for (std::int64_t i = 0; i < width; ++i) total += mean[i];
    const T m = total / static_cast<T>(width);
    for (std::int64_t i = 0; i < width; ++i)
      spread += squares[g * width + i] + static_cast<T>(strip.spatial) * ((mean[i] - m) * (mean[i] - m));
    const T rstd = T(1) / scalar::sqrt(spread / static_cast<T>(strip.spatial * width) + static_cast<T>(call.eps));
    for (std::int64_t i = 0; i < width; ++i) mean[i] = m;
    if (mean_out) mean_out[g] = m;
    if (rstd_out) rstd_out[g] = rstd;
    squares[g] = rstd;  // what lies at g was read: g <= g width
  }
  strip.affine(call, squares);
  activate_affine<activation>(strip.spatial, strip.width, strip.row, strip.x, strip.mean, strip.slope, strip.offset, out);
}

// h = activation'(y) g; dx = rstd (u - mean(u) - xhat mean(u xhat)), u = gamma (1 + scale) h, means over the group.
template <class T, Activation activation>
void backward(const GroupNormCall& call, const Strip<T>& strip, const T* means, const T* rstd, const T* cotangent, T* dx,
              T* sum_h, T* sum_hx) {
  const std::int64_t width = strip.width, row = strip.row, group_width = strip.group_width;
  T* const __restrict mean = strip.mean;
  for (std::int64_t c = 0; c < width; ++c) mean[c] = means[c / group_width];
  strip.affine(call, rstd);
  const T* const __restrict slope = strip.slope;
  static thread_local Scratch scratch;
  T* const __restrict sums = scratch.get<T>(5 * width);
  T* const __restrict sums_x = sums + width;
  T* const part = sums_x + width;
  T* const unused = part + 2 * width;
  // The sums over space of h and h (x - mean), 64 places at a time: the rounding error then grows with the root of both counts.
  // h is kept in dx meanwhile.
  for (std::int64_t c = 0; c < 2 * width; ++c) sums[c] = T(0);
  for (std::int64_t s0 = 0; s0 < strip.spatial; s0 += 64) {
    const std::int64_t end = s0 + 64 < strip.spatial ? s0 + 64 : strip.spatial;
    for (std::int64_t c = 0; c < 2 * width; ++c) part[c] = T(0);
    activate_affine_vjp<activation>(end - s0, width, row, strip.x + s0 * row, mean, slope, strip.offset, cotangent + s0 * row,
                                    dx ? dx + s0 * row : unused, dx ? row : 0, part, part + width);
    for (std::int64_t c = 0; c < 2 * width; ++c) sums[c] += part[c];
  }
  for (std::int64_t c = 0; c < width; ++c) {
    if (sum_h) sum_h[c] = sums[c];
    if (sum_hx) sum_hx[c] = sums_x[c] * rstd[c / group_width];
  }
  if (!dx) return;
  // dx = slope h - a - b (x - mean), a = mean(slope h), b = rstd^2 mean(slope h (x - mean)).
  for (std::int64_t c = 0; c < width; ++c) sums[c] *= slope[c], sums_x[c] *= slope[c];
  strip.mean_of_groups(sums);
  strip.mean_of_groups(sums_x);
  for (std::int64_t c = 0; c < width; ++c) sums_x[c] *= rstd[c / group_width] * rstd[c / group_width];
  for (std::int64_t s = 0; s < strip.spatial; ++s) {
    const T* __restrict x = strip.x + s * row;
    T* __restrict d = dx + s * row;
    for (std::int64_t c = 0; c < width; ++c) d[c] = slope[c] * d[c] - sums[c] - sums_x[c] * (x[c] - mean[c]);
  }
}

template <class Body>
void with_activation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::none: return body.template operator()<Activation::none>();
    case Activation::silu: return body.template operator()<Activation::silu>();
    case Activation::gelu_tanh: return body.template operator()<Activation::gelu_tanh>();
    case Activation::relu: return body.template operator()<Activation::relu>();
  }
}

// body(0.f or 0.0) in tasks, from 2^14 elements on by all threads.
template <class Body>
void tasks(DType dtype, std::int64_t count, std::int64_t elements, const Body& body) {
  const auto typed = [&](auto zero) {
    const auto one = [&](std::int64_t task) { body(task, zero); };
    if (elements < (1 << 14))
      for (std::int64_t task = 0; task < count; ++task) one(task);
    else parallel(count, one);
  };
  if (dtype == DType::f32) typed(0.f);
  else typed(0.0);
}

}  // namespace

void group_norm(const GroupNormCall& call, void* out, void* mean, void* rstd) {
  const Strips strips(call);
  tasks(call.dtype, call.n * strips.count, call.n * call.spatial * call.channels, [&](std::int64_t task, auto zero) {
    using T = decltype(zero);
    static thread_local Scratch scratch;
    const Strip<T> strip(call, strips, task, scratch);
    const std::int64_t at = strip.sample * call.groups + strip.group0;
    with_activation(call.activation, [&]<Activation a> {
      forward<T, a>(call, strip, static_cast<T*>(out) + strip.sample * call.spatial * call.channels + strip.channel0,
                    mean ? static_cast<T*>(mean) + at : nullptr, rstd ? static_cast<T*>(rstd) + at : nullptr);
    });
  });
}

void group_norm_vjp(const GroupNormCall& call, const void* mean, const void* rstd, const void* cotangent, void* dx, void* sum_h,
                    void* sum_hx) {
  const Strips strips(call);
  tasks(call.dtype, call.n * strips.count, call.n * call.spatial * call.channels, [&](std::int64_t task, auto zero) {
    using T = decltype(zero);
    static thread_local Scratch scratch;
    const Strip<T> strip(call, strips, task, scratch);
    const std::int64_t at = strip.sample * call.groups + strip.group0, image = strip.sample * call.spatial * call.channels + strip.channel0,
                       channel = strip.sample * call.channels + strip.channel0;
    with_activation(call.activation, [&]<Activation a> {
      backward<T, a>(call, strip, static_cast<const T*>(mean) + at, static_cast<const T*>(rstd) + at,
                     static_cast<const T*>(cotangent) + image, dx ? static_cast<T*>(dx) + image : nullptr,
                     sum_h ? static_cast<T*>(sum_h) + channel : nullptr, sum_hx ? static_cast<T*>(sum_hx) + channel : nullptr);
    });
  });
}

void modulated_layer_norm(DType dtype, std::int64_t n, std::int64_t t, std::int64_t d, double eps, const void* x,
                          const void* scale, const void* shift, void* out, void* mean, void* rstd) {
  const std::int64_t rows = n * t, per_task = (1 << 13) / d + 1;
  tasks(dtype, (rows + per_task - 1) / per_task, rows * d, [&](std::int64_t task, auto zero) {
    using T = decltype(zero);
    for (std::int64_t r = task * per_task; r < rows && r < (task + 1) * per_task; ++r) {
      const T* const __restrict in = static_cast<const T*>(x) + r * d;
      const T* const __restrict a = static_cast<const T*>(scale) + r / t * d;
      const T* const __restrict b = static_cast<const T*>(shift) + r / t * d;
      T* const __restrict y = static_cast<T*>(out) + r * d;
      const T m = row_sum<T>(d, [&](std::int64_t i) { return in[i]; }) / static_cast<T>(d);
      const T variance = row_sum<T>(d, [&](std::int64_t i) { return (in[i] - m) * (in[i] - m); }) / static_cast<T>(d);
      const T s = T(1) / scalar::sqrt(variance + static_cast<T>(eps));
      if (mean) static_cast<T*>(mean)[r] = m;
      if (rstd) static_cast<T*>(rstd)[r] = s;
      for (std::int64_t i = 0; i < d; ++i) y[i] = (in[i] - m) * s * (T(1) + a[i]) + b[i];
    }
  });
}

// dx = rstd (u - mean(u) - xhat mean(u xhat)), u = (1 + scale) g; dscale = sum over t of g xhat.
void modulated_layer_norm_vjp(DType dtype, std::int64_t n, std::int64_t t, std::int64_t d, const void* x, const void* scale,
                              const void* mean, const void* rstd, const void* cotangent, void* dx, void* dscale) {
  const std::int64_t rows = n * t, per_task = (1 << 13) / d + 1;
  if (dx)
    tasks(dtype, (rows + per_task - 1) / per_task, rows * d, [&](std::int64_t task, auto zero) {
      using T = decltype(zero);
      for (std::int64_t r = task * per_task; r < rows && r < (task + 1) * per_task; ++r) {
        const T* const __restrict in = static_cast<const T*>(x) + r * d;
        const T* const __restrict g = static_cast<const T*>(cotangent) + r * d;
        const T* const __restrict a = static_cast<const T*>(scale) + r / t * d;
        T* const __restrict out = static_cast<T*>(dx) + r * d;
        const T m = static_cast<const T*>(mean)[r], s = static_cast<const T*>(rstd)[r], count = static_cast<T>(d);
        const T first = row_sum<T>(d, [&](std::int64_t i) { return (T(1) + a[i]) * g[i]; }) / count;
        const T second = row_sum<T>(d, [&](std::int64_t i) { return (T(1) + a[i]) * g[i] * (in[i] - m); }) * (s * s / count);
        for (std::int64_t i = 0; i < d; ++i) out[i] = s * ((T(1) + a[i]) * g[i] - first - (in[i] - m) * second);
      }
    });
  if (!dscale) return;
  constexpr std::int64_t columns = 128;
  const std::int64_t blocks = (d + columns - 1) / columns;
  tasks(dtype, n * blocks, rows * d, [&](std::int64_t task, auto zero) {
    using T = decltype(zero);
    const std::int64_t sample = task / blocks, c0 = task % blocks * columns, width = d - c0 < columns ? d - c0 : columns;
    T* const __restrict out = static_cast<T*>(dscale) + sample * d + c0;
    for (std::int64_t c = 0; c < width; ++c) out[c] = T(0);
    for (std::int64_t r = sample * t; r < (sample + 1) * t; ++r) {
      const T* const __restrict in = static_cast<const T*>(x) + r * d + c0;
      const T* const __restrict g = static_cast<const T*>(cotangent) + r * d + c0;
      const T m = static_cast<const T*>(mean)[r], s = static_cast<const T*>(rstd)[r];
      for (std::int64_t c = 0; c < width; ++c) out[c] += g[c] * ((in[c] - m) * s);
    }
  });
}

}  // namespace costate::cpu::COSTATE_ISA
