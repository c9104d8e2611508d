// A step of a Gaussian chain with its noise made on the way, and the loss that regresses the control of such steps.
#include <costate/tensor/pointwise.h>

#include "../table.h"
#include "noise.h"

namespace costate::cuda {
namespace {

// Four elements of a sample a thread: those of one block of the counter.
template <class T>
__global__ void __launch_bounds__(block_threads)
    step_with_noise(Counter c, T on_x, T on_prediction, T on_noise, const T* x, const T* prediction, T* out) {
  const T parameters[3] = {on_x, on_prediction, on_noise};
  const std::int64_t blocks = (c.per_sample + 3) / 4;
  for (std::int64_t task = first_task(); task < c.samples * blocks; task += task_stride()) {
    const std::int64_t sample = task / blocks, block = task % blocks;
    std::uint32_t w[4];
    words_of(c, sample, block, w);
    float e[4];
    normals_of(w, e);
    const std::int64_t left = c.per_sample - 4 * block, at = sample * c.per_sample + 4 * block;
    COSTATE_UNROLL
    for (int i = 0; i < 4; ++i)
      if (i < left) out[at + i] = functors::chain_step::eval(parameters, x[at + i], prediction[at + i], static_cast<T>(e[i]));
  }
}

// A row a team: once for its sums, once for the gradient of what the limit leaves.
template <int width, class T>
__global__ void __launch_bounds__(block_threads) match_rows(MatchingCall c, double* numbers, T* gradient) {
  const Team<width> team;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / width) + threadIdx.x / width;
  if (row >= c.rows) return;
  const std::int64_t at = row * c.n;
  const T *const prediction = static_cast<const T*>(c.prediction) + at, *const base = static_cast<const T*>(c.base) + at,
                 *const costate = static_cast<const T*>(c.costate) + at;
  const T weight = static_cast<const T*>(c.weight)[row], shift = static_cast<const T*>(c.shift)[row];
  double squares = 0, control = 0;
  for (std::int64_t i = team.thread; i < c.n; i += width) {
    const T u = weight * (prediction[i] - base[i]), r = u + shift * costate[i];
    squares += static_cast<double>(r) * static_cast<double>(r), control += static_cast<double>(u) * static_cast<double>(u);
  }
  squares = team.sum(squares), control = team.sum(control);
  const bool cut = c.limit > 0 && squares >= c.limit;
  const double w = c.row_weight ? static_cast<double>(static_cast<const T*>(c.row_weight)[row]) : 1.0;
  if (team.thread == 0) {
    numbers[3 * row] = c.factor * w * (cut ? c.limit : squares);
    numbers[3 * row + 1] = control, numbers[3 * row + 2] = cut ? 1 : 0;
  }
  const T slope = cut ? T(0) : static_cast<T>(2 * c.factor * w) * weight;
  for (std::int64_t i = team.thread; i < c.n; i += width)
    gradient[at + i] = slope * (weight * (prediction[i] - base[i]) + shift * costate[i]);
}

}  // namespace

void noisy_step(DType dtype, const double* c, std::uint64_t seed, std::uint32_t stream, std::uint64_t first_sample,
                std::uint32_t step, std::int64_t samples, std::int64_t per_sample, const void* x, const void* prediction,
                void* out) {
  if (samples * per_sample == 0) return;
  const Counter counter{seed, first_sample, stream, step, samples, per_sample, cells::sample_shift()};
  by_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    launch("chain step with noise", step_with_noise<T>, grid_for(samples * ((per_sample + 3) / 4)), dim3(block_threads), 0,
           counter, static_cast<T>(c[0]), static_cast<T>(c[1]), static_cast<T>(c[2]), static_cast<const T*>(x),
           static_cast<const T*>(prediction), static_cast<T*>(out));
  });
}

void matching(const MatchingCall& c, double* numbers, void* gradient) {
  if (c.rows == 0) return;
  by_type(c.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_team(c.n, [&]<int width>(Team<width>*, int per_block) {
      launch("matching", match_rows<width, T>, dim3(static_cast<unsigned>((c.rows + per_block - 1) / per_block)),
             dim3(block_threads), 0, c, numbers, static_cast<T*>(gradient));
    });
  });
}

}  // namespace costate::cuda
