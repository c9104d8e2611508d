// Group norm with its neighbours, and modulated layer norm.
#include "../table.h"
#include "activation.h"
#include "grid.h"

namespace costate::cuda {
namespace {

template <class T>
struct GroupNorm {
  using W = Wide<T>;
  std::int64_t n, spatial, channels, groups;
  W eps;
  const T *x, *gamma, *beta, *scale, *shift;

  explicit GroupNorm(const GroupNormCall& c)
      : n(c.n),
        spatial(c.spatial),
        channels(c.channels),
        groups(c.groups),
        eps(static_cast<W>(c.eps)),
        x(static_cast<const T*>(c.x)),
        gamma(static_cast<const T*>(c.gamma)),
        beta(static_cast<const T*>(c.beta)),
        scale(static_cast<const T*>(c.scale)),
        shift(static_cast<const T*>(c.shift)) {}

  // y = (x - mean) slope + offset, of one channel of one sample.
  struct Affine {
    W slope, offset;
  };
  __device__ __forceinline__ Affine affine(std::int64_t sample, std::int64_t channel, W rstd) const {
    const std::int64_t at = sample * channels + channel;
    const W factor = W(1) + (scale ? W(scale[at]) : W(0));
    return {rstd * (gamma ? W(gamma[channel]) : W(1)) * factor,
            (beta ? W(beta[channel]) : W(0)) * factor + (shift ? W(shift[at]) : W(0))};
  }
};

// A block a sample and group. The variance is that of the centred values: two passes over what then lies in the cache.
template <Activation activation, class T>
__global__ void __launch_bounds__(block_threads) group_norm_blocks(GroupNorm<T> c, T* out, Wide<T>* mean_out,
                                                                   Wide<T>* rstd_out) {
  using W = Wide<T>;
  const Team<block_threads> team;
  const std::int64_t width = c.channels / c.groups, count = c.spatial * width;
  for (std::int64_t task = blockIdx.x; task < c.n * c.groups; task += gridDim.x) {
    const std::int64_t sample = task / c.groups, channel0 = task % c.groups * width,
                       base = sample * c.spatial * c.channels + channel0;
    const auto at = [&](std::int64_t e) { return base + e / width * c.channels + e % width; };
    W sum = 0, squares = 0;
    for (std::int64_t e = team.thread; e < count; e += block_threads) sum += c.x[at(e)];
    const W mean = team.sum(sum) / static_cast<W>(count);
    for (std::int64_t e = team.thread; e < count; e += block_threads) squares += (c.x[at(e)] - mean) * (c.x[at(e)] - mean);
    const W rstd = W(1) / scalar::sqrt(team.sum(squares) / static_cast<W>(count) + c.eps);
    if (team.thread == 0) {
      if (mean_out) mean_out[task] = mean;
      if (rstd_out) rstd_out[task] = rstd;
    }
    for (std::int64_t e = team.thread; e < count; e += block_threads) {
      const auto a = c.affine(sample, channel0 + e % width, rstd);
      W slope;
      out[at(e)] = activate<activation>((c.x[at(e)] - mean) * a.slope + a.offset, slope);
    }
  }
}

constexpr int columns = 32, lanes = 8;

// For every sample and channel the sums over space of h = activation'(y) g and of h xhat.
template <Activation activation, class T>
__global__ void __launch_bounds__(columns* lanes)
    group_norm_sums(GroupNorm<T> c, const Wide<T>* mean, const Wide<T>* rstd, const T* cotangent, Wide<T>* sum_h,
                    Wide<T>* sum_hx) {
  using W = Wide<T>;
  COSTATE_SHARED(W, part, [2][lanes][columns]);
  const int column = static_cast<int>(threadIdx.x) % columns, lane = static_cast<int>(threadIdx.x) / columns;
  const std::int64_t strips = (c.channels + columns - 1) / columns, width = c.channels / c.groups;
  for (std::int64_t task = blockIdx.x; task < c.n * strips; task += gridDim.x) {
    const std::int64_t sample = task / strips, channel = task % strips * columns + column;
    W h_sum = 0, hx_sum = 0;
    if (channel < c.channels) {
      const std::int64_t group = sample * c.groups + channel / width;
      const auto a = c.affine(sample, channel, rstd[group]);
      for (std::int64_t s = lane; s < c.spatial; s += lanes) {
        const std::int64_t at = (sample * c.spatial + s) * c.channels + channel;
        const W centred = c.x[at] - mean[group];
        W slope;
        activate<activation>(centred * a.slope + a.offset, slope);
        const W h = slope * cotangent[at];
        h_sum += h, hx_sum += h * centred;
      }
    }
    part[0][lane][column] = h_sum, part[1][lane][column] = hx_sum;
    __syncthreads();
    if (lane == 0 && channel < c.channels) {
      for (int l = 1; l < lanes; ++l) h_sum += part[0][l][column], hx_sum += part[1][l][column];
      if (sum_h) sum_h[sample * c.channels + channel] = h_sum;
      if (sum_hx) sum_hx[sample * c.channels + channel] = hx_sum * rstd[sample * c.groups + channel / width];
    }
    __syncthreads();
  }
}

// dx = rstd (u - mean(u) - xhat mean(u xhat)), u = gamma (1 + scale) h: the means over the group follow from the sums above.
template <Activation activation, class T>
__global__ void __launch_bounds__(block_threads)
    group_norm_dx(GroupNorm<T> c, const Wide<T>* mean, const Wide<T>* rstd, const T* cotangent, const Wide<T>* sum_h,
                  const Wide<T>* sum_hx, T* dx) {
  using W = Wide<T>;
  const Team<block_threads> team;
  const std::int64_t width = c.channels / c.groups, count = c.spatial * width;
  for (std::int64_t task = blockIdx.x; task < c.n * c.groups; task += gridDim.x) {
    const std::int64_t sample = task / c.groups, channel0 = task % c.groups * width,
                       base = sample * c.spatial * c.channels + channel0;
    const W m = mean[task], r = rstd[task];
    W u = 0, ux = 0;  // of slope h and slope h xhat, slope = rstd gamma (1 + scale)
    for (std::int64_t i = team.thread; i < width; i += block_threads) {
      const W slope = c.affine(sample, channel0 + i, r).slope;
      u += slope * sum_h[sample * c.channels + channel0 + i], ux += slope * sum_hx[sample * c.channels + channel0 + i];
    }
    u = team.sum(u) / static_cast<W>(count), ux = team.sum(ux) / static_cast<W>(count) * r;
    for (std::int64_t e = team.thread; e < count; e += block_threads) {
      const std::int64_t at = base + e / width * c.channels + e % width;
      const auto a = c.affine(sample, channel0 + e % width, r);
      const W centred = c.x[at] - m;
      W slope;
      activate<activation>(centred * a.slope + a.offset, slope);
      dx[at] = a.slope * (slope * cotangent[at]) - u - ux * centred;
    }
  }
}

template <int width, class T>
__global__ void __launch_bounds__(block_threads)
    modulated_rows(std::int64_t rows, std::int64_t t, std::int64_t d, Wide<T> eps, const T* x, const T* scale, const T* shift,
                   T* out, Wide<T>* mean, Wide<T>* rstd) {
  using W = Wide<T>;
  const Team<width> team;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / width) + threadIdx.x / width;
  if (row >= rows) return;
  const T *const in = x + row * d, *const a = scale + row / t * d, *const b = shift + row / t * d;
  W sum = 0, squares = 0;
  for (std::int64_t i = team.thread; i < d; i += width) sum += in[i];
  const W m = team.sum(sum) / static_cast<W>(d);
  for (std::int64_t i = team.thread; i < d; i += width) squares += (in[i] - m) * (in[i] - m);
  const W s = W(1) / scalar::sqrt(team.sum(squares) / static_cast<W>(d) + eps);
  if (team.thread == 0) {
    if (mean) mean[row] = m;
    if (rstd) rstd[row] = s;
  }
  for (std::int64_t i = team.thread; i < d; i += width) out[row * d + i] = (in[i] - m) * s * (W(1) + a[i]) + b[i];
}

// dx = rstd (u - mean(u) - xhat mean(u xhat)), u = (1 + scale) g.
template <int width, class T>
__global__ void __launch_bounds__(block_threads)
    modulated_rows_dx(std::int64_t rows, std::int64_t t, std::int64_t d, const T* x, const T* scale, const Wide<T>* mean,
                      const Wide<T>* rstd, const T* cotangent, T* dx) {
  using W = Wide<T>;
  const Team<width> team;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / width) + threadIdx.x / width;
  if (row >= rows) return;
  const T *const in = x + row * d, *const g = cotangent + row * d, *const a = scale + row / t * d;
  const W m = mean[row], s = rstd[row];
  W first = 0, second = 0;
  for (std::int64_t i = team.thread; i < d; i += width) {
    const W u = (W(1) + a[i]) * g[i];
    first += u, second += u * (in[i] - m);
  }
  first = team.sum(first) / static_cast<W>(d), second = team.sum(second) * (s * s / static_cast<W>(d));
  for (std::int64_t i = team.thread; i < d; i += width)
    dx[row * d + i] = s * ((W(1) + a[i]) * g[i] - first - (in[i] - m) * second);
}

// dscale = the sum over t of g xhat.
template <class T>
__global__ void __launch_bounds__(columns* lanes)
    modulated_dscale(std::int64_t n, std::int64_t t, std::int64_t d, const T* x, const Wide<T>* mean, const Wide<T>* rstd,
                     const T* cotangent, T* dscale) {
  COSTATE_SHARED(Wide<T>, part, [lanes][columns]);
  const int column = static_cast<int>(threadIdx.x) % columns, lane = static_cast<int>(threadIdx.x) / columns;
  const std::int64_t strips = (d + columns - 1) / columns;
  for (std::int64_t task = blockIdx.x; task < n * strips; task += gridDim.x) {
    const std::int64_t sample = task / strips, c = task % strips * columns + column;
    Wide<T> s = 0;
    if (c < d)
      for (std::int64_t i = lane; i < t; i += lanes) {
        const std::int64_t row = sample * t + i;
        s += cotangent[row * d + c] * ((x[row * d + c] - mean[row]) * rstd[row]);
      }
    part[lane][column] = s;
    __syncthreads();
    if (lane == 0 && c < d) {
      for (int l = 1; l < lanes; ++l) s += part[l][column];
      dscale[sample * d + c] = s;
    }
    __syncthreads();
  }
}

dim3 blocks_for(std::int64_t tasks) { return dim3(static_cast<unsigned>(tasks < (1 << 20) ? tasks : 1 << 20)); }

}  // namespace

void group_norm(const GroupNormCall& call, void* out, void* mean, void* rstd) {
  if (call.n * call.spatial * call.channels == 0) return;
  by_stored_type(call.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_activation(call.activation, [&](auto a) {
      launch("group norm", group_norm_blocks<decltype(a)::value, T>, blocks_for(call.n * call.groups), dim3(block_threads), 0,
             GroupNorm<T>(call), static_cast<T*>(out), static_cast<Wide<T>*>(mean), static_cast<Wide<T>*>(rstd));
    });
  });
}

void group_norm_vjp(const GroupNormCall& call, const void* mean, const void* rstd, const void* cotangent, void* dx, void* sum_h,
                    void* sum_hx) {
  const std::int64_t sums = call.n * call.channels;
  if (sums == 0) return;
  // dx needs both sums, whether or not the caller does.
  const std::int64_t lacking = dx ? (sum_h ? 0 : 1) + (sum_hx ? 0 : 1) : 0;
  const pool::Scratch scratch(lacking * sums * size_of(arithmetic_of(call.dtype)));
  auto* spare = scratch.as<std::byte>();
  const auto take = [&](void*& p) {
    if (!dx || p) return;
    p = spare;
    spare += sums * size_of(arithmetic_of(call.dtype));
  };
  take(sum_h), take(sum_hx);
  by_stored_type(call.dtype, [&](auto zero) {
    using T = decltype(zero);
    const GroupNorm<T> c(call);
    const auto in = [](const void* p) { return static_cast<const T*>(p); };
    const auto number = [](const void* p) { return static_cast<const Wide<T>*>(p); };
    with_activation(call.activation, [&](auto a) {
      constexpr Activation activation = decltype(a)::value;
      launch("group norm sums", group_norm_sums<activation, T>, blocks_for(call.n * ((call.channels + columns - 1) / columns)),
             dim3(columns * lanes), 0, c, number(mean), number(rstd), in(cotangent), static_cast<Wide<T>*>(sum_h),
             static_cast<Wide<T>*>(sum_hx));
      if (dx && call.spatial)
        launch("group norm vjp", group_norm_dx<activation, T>, blocks_for(call.n * call.groups), dim3(block_threads), 0, c,
               number(mean), number(rstd), in(cotangent), number(sum_h), number(sum_hx), static_cast<T*>(dx));
    });
  });
}

void modulated_layer_norm(DType dtype, std::int64_t n, std::int64_t t, std::int64_t d, double eps, const void* x,
                          const void* scale, const void* shift, void* out, void* mean, void* rstd) {
  const std::int64_t rows = n * t;
  if (rows * d == 0) return;
  by_stored_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    with_team(d, [&]<int width>(Team<width>*, int per_block) {
      launch("modulated layer norm", modulated_rows<width, T>, dim3(static_cast<unsigned>((rows + per_block - 1) / per_block)),
             dim3(block_threads), 0, rows, t, d, static_cast<Wide<T>>(eps), static_cast<const T*>(x), static_cast<const T*>(scale),
             static_cast<const T*>(shift), static_cast<T*>(out), static_cast<Wide<T>*>(mean), static_cast<Wide<T>*>(rstd));
    });
  });
}

void modulated_layer_norm_vjp(DType dtype, std::int64_t n, std::int64_t t, std::int64_t d, const void* x, const void* scale,
                              const void* mean, const void* rstd, const void* cotangent, void* dx, void* dscale) {
  const std::int64_t rows = n * t;
  if (n * d == 0) return;
  by_stored_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto in = [](const void* p) { return static_cast<const T*>(p); };
    const auto number = [](const void* p) { return static_cast<const Wide<T>*>(p); };
    if (dx && rows)
      with_team(d, [&]<int width>(Team<width>*, int per_block) {
        launch("modulated layer norm vjp", modulated_rows_dx<width, T>,
               dim3(static_cast<unsigned>((rows + per_block - 1) / per_block)), dim3(block_threads), 0, rows, t, d, in(x),
               in(scale), number(mean), number(rstd), in(cotangent), static_cast<T*>(dx));
      });
    if (dscale)
      launch("modulated layer norm dscale", modulated_dscale<T>, blocks_for(n * ((d + columns - 1) / columns)),
             dim3(columns * lanes), 0, n, t, d, in(x), number(mean), number(rstd), in(cotangent),
             static_cast<T*>(dscale));
  });
}

}  // namespace costate::cuda
