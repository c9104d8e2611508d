// Nearest upsampling and its transpose, the sum over squares. Rows of the image are cut to threads.
#include <costate/tensor/parallel.h>

#include "table.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

constexpr std::int64_t rows_per_task(std::int64_t elements) {
  return elements > (1 << 14) ? 1 : (1 << 14) / elements;
}

template <class T>
void upsample_typed(std::int64_t rows, std::int64_t width, std::int64_t channels, std::int64_t factor,
                    T scale, const T* in, T* out) {
  const std::int64_t wide = factor * width * channels;
  parallel_for(rows, rows_per_task(factor * wide), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      T* const first = out + row * factor * wide;
      T* target = first;
      for (std::int64_t column = 0; column < width; ++column) {
        const T* pixel = in + (row * width + column) * channels;
        for (std::int64_t i = 0; i < factor; ++i, target += channels)
          for (std::int64_t c = 0; c < channels; ++c) target[c] = scale * pixel[c];
      }
      for (std::int64_t i = 1; i < factor; ++i)
        __builtin_memcpy(first + i * wide, first, static_cast<std::size_t>(wide) * sizeof(T));
    }
  });
}

template <class T>
void pool_typed(std::int64_t rows, std::int64_t width, std::int64_t channels, std::int64_t factor, T scale,
                const T* in, T* out) {
  const std::int64_t wide = factor * width * channels;
  parallel_for(rows, rows_per_task(factor * wide), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int64_t column = 0; column < width; ++column) {
        T* const pixel = out + (row * width + column) * channels;
        for (std::int64_t c = 0; c < channels; ++c) pixel[c] = T(0);
        for (std::int64_t i = 0; i < factor; ++i)
          for (std::int64_t j = 0; j < factor; ++j) {
            const T* source = in + (row * factor + i) * wide + (column * factor + j) * channels;
            for (std::int64_t c = 0; c < channels; ++c) pixel[c] += source[c];
          }
        for (std::int64_t c = 0; c < channels; ++c) pixel[c] *= scale;
      }
  });
}

}  // namespace

void upsample(DType dtype, std::int64_t n, std::int64_t height, std::int64_t width, std::int64_t channels,
              std::int64_t factor, double scale, const void* in, void* out) {
  if (dtype == DType::f32)
    upsample_typed(n * height, width, channels, factor, static_cast<float>(scale),
                   static_cast<const float*>(in), static_cast<float*>(out));
  else
    upsample_typed(n * height, width, channels, factor, scale, static_cast<const double*>(in),
                   static_cast<double*>(out));
}
void pool(DType dtype, std::int64_t n, std::int64_t height, std::int64_t width, std::int64_t channels,
          std::int64_t factor, double scale, const void* in, void* out) {
  if (dtype == DType::f32)
    pool_typed(n * height, width, channels, factor, static_cast<float>(scale), static_cast<const float*>(in),
               static_cast<float*>(out));
  else
    pool_typed(n * height, width, channels, factor, scale, static_cast<const double*>(in),
               static_cast<double*>(out));
}

}  // namespace costate::cpu::COSTATE_ISA
