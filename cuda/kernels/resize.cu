// Nearest upsampling and its transpose, the sum over squares.
#include "../table.h"
#include "grid.h"

namespace costate::cuda {
namespace {

// rows: of all small images, n height; large images have factor times as many, and factor width pixels each.
template <class T>
__global__ void __launch_bounds__(block_threads) upsample_images(std::int64_t rows, std::int64_t width, std::int64_t channels,
                                                                 std::int64_t factor, Wide<T> scale, const T* in, T* out) {
  const std::int64_t wide = factor * width * channels, n = rows * factor * wide;
  for (std::int64_t e = first_task(); e < n; e += task_stride()) {
    const std::int64_t row = e / wide, column = e % wide / channels, channel = e % channels;
    out[e] = scale * in[(row / factor * width + column / factor) * channels + channel];
  }
}

template <class T>
__global__ void __launch_bounds__(block_threads) pool_images(std::int64_t rows, std::int64_t width, std::int64_t channels,
                                                             std::int64_t factor, Wide<T> scale, const T* in, T* out) {
  const std::int64_t wide = factor * width * channels, n = rows * width * channels;
  for (std::int64_t e = first_task(); e < n; e += task_stride()) {
    const std::int64_t row = e / (width * channels), column = e / channels % width, channel = e % channels;
    const T* const first = in + row * factor * wide + column * factor * channels + channel;
    Wide<T> s = 0;
    for (std::int64_t i = 0; i < factor; ++i)
      for (std::int64_t j = 0; j < factor; ++j) s += first[i * wide + j * channels];
    out[e] = s * scale;
  }
}

}  // namespace

void upsample(DType dtype, std::int64_t n, std::int64_t height, std::int64_t width, std::int64_t channels, std::int64_t factor,
              double scale, const void* in, void* out) {
  const std::int64_t elements = n * height * width * channels * factor * factor;
  if (elements == 0) return;
  by_stored_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    launch("upsample", upsample_images<T>, grid_for(elements), dim3(block_threads), 0, n * height, width, channels, factor,
           static_cast<Wide<T>>(scale), static_cast<const T*>(in), static_cast<T*>(out));
  });
}

void pool_squares(DType dtype, std::int64_t n, std::int64_t height, std::int64_t width, std::int64_t channels,
                  std::int64_t factor, double scale, const void* in, void* out) {
  const std::int64_t elements = n * height * width * channels;
  if (elements == 0) return;
  by_stored_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    launch("pool", pool_images<T>, grid_for(elements), dim3(block_threads), 0, n * height, width, channels, factor,
           static_cast<Wide<T>>(scale), static_cast<const T*>(in), static_cast<T*>(out));
  });
}

}  // namespace costate::cuda
