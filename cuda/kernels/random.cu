// Philox noise, four elements a thread. Integers, and box_muller.h's double precision without operations whose rounding a
// compiler may choose: the bits of the cpu. (Contraction of products and sums is off for this file all the same.)
#include "../table.h"
#include "noise.h"

namespace costate::cuda {
namespace {

template <bool normal, class T>
__global__ void __launch_bounds__(block_threads) generate(Counter c, T* out) {
  const std::int64_t blocks = (c.per_sample + 3) / 4;
  for (std::int64_t task = first_task(); task < c.samples * blocks; task += task_stride()) {
    const std::int64_t sample = task / blocks, block = task % blocks;
    std::uint32_t w[4];
    words_of(c, sample, block, w);
    float value[4];
    if constexpr (normal) {
      normals_of(w, value);
    } else {
      for (int i = 0; i < 4; ++i) value[i] = (static_cast<float>(w[i] >> 9) + 0.5f) * 0x1p-23f;
    }
    const std::int64_t left = c.per_sample - 4 * block;
    T* const target = out + sample * c.per_sample + 4 * block;
    for (int i = 0; i < 4; ++i)
      if (i < left) target[i] = static_cast<T>(value[i]);
  }
}

template <class T>
__global__ void __launch_bounds__(block_threads) drop(Counter c, Wide<T> factor, std::uint32_t threshold, const T* in,
                                                      T* out) {
  const std::int64_t blocks = (c.per_sample + 3) / 4;
  for (std::int64_t task = first_task(); task < c.samples * blocks; task += task_stride()) {
    const std::int64_t sample = task / blocks, block = task % blocks;
    std::uint32_t w[4];
    words_of(c, sample, block, w);
    const std::int64_t left = c.per_sample - 4 * block, at = sample * c.per_sample + 4 * block;
    for (int i = 0; i < 4; ++i)
      if (i < left) out[at + i] = w[i] >= threshold ? in[at + i] * factor : Wide<T>(0);
  }
}

}  // namespace

void random(DType dtype, bool normal, std::uint64_t seed, std::uint32_t stream, std::uint64_t first_sample, std::uint32_t step,
            std::int64_t samples, std::int64_t per_sample, void* out) {
  if (samples * per_sample == 0) return;
  const Counter c{seed, first_sample, stream, step, samples, per_sample, cells::sample_shift()};
  const dim3 grid = grid_for(samples * ((per_sample + 3) / 4));
  by_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    if (normal)
      launch("normal noise", generate<true, T>, grid, dim3(block_threads), 0, c, static_cast<T*>(out));
    else
      launch("uniform noise", generate<false, T>, grid, dim3(block_threads), 0, c, static_cast<T*>(out));
  });
}

void dropout(DType dtype, double probability, std::uint32_t threshold, std::uint64_t seed, std::uint32_t stream,
             std::uint64_t first_sample, std::uint32_t step, std::int64_t samples, std::int64_t per_sample, const void* in,
             void* out) {
  if (samples * per_sample == 0) return;
  const Counter c{seed, first_sample, stream, step, samples, per_sample, cells::sample_shift()};
  by_stored_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    launch("dropout", drop<T>, grid_for(samples * ((per_sample + 3) / 4)), dim3(block_threads), 0, c,
           static_cast<Wide<T>>(1.0 / (1.0 - probability)), threshold, static_cast<const T*>(in), static_cast<T*>(out));
  });
}

}  // namespace costate::cuda
