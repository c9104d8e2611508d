// A step of a Gaussian chain with its noise, and the loss that regresses the control of such steps.
#include <costate/tensor/parallel.h>
#include <costate/tensor/pointwise.h>

#include <cmath>

#include "table.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class T>
void match(const MatchingCall& c, std::int64_t row, double* numbers, T* gradient) {
  const std::int64_t at = row * c.n;
  const auto of = [](const void* p) { return static_cast<const T*>(p); };
  const T *const prediction = of(c.prediction) + at, *const base = of(c.base) + at, *const costate = of(c.costate) + at;
  const T weight = of(c.weight)[row], shift = of(c.shift)[row];
  double squares = 0, control = 0;
  for (std::int64_t i = 0; i < c.n; ++i) {
    const T u = weight * (prediction[i] - base[i]), r = u + shift * costate[i];
    squares += static_cast<double>(r) * static_cast<double>(r), control += static_cast<double>(u) * static_cast<double>(u);
  }
  const bool cut = c.limit > 0 && squares >= c.limit;
  const double w = c.row_weight ? static_cast<double>(of(c.row_weight)[row]) : 1.0;
  numbers[3 * row] = c.factor * w * (cut ? c.limit : squares), numbers[3 * row + 1] = control, numbers[3 * row + 2] = cut;
  const T slope = cut ? T(0) : static_cast<T>(2 * c.factor * w) * weight;
  for (std::int64_t i = 0; i < c.n; ++i)
    gradient[at + i] = slope * (weight * (prediction[i] - base[i]) + shift * costate[i]);
}

}  // namespace

void noisy_step(DType dtype, const double* c, std::uint64_t seed, std::uint32_t stream, std::uint64_t first_sample,
                std::uint32_t step, std::int64_t samples, std::int64_t per_sample, const void* x, const void* prediction,
                void* out) {
  random(dtype, true, seed, stream, first_sample, step, samples, per_sample, out);
  PointwiseCall call{};
  call.op = static_cast<int>(Pointwise::chain_step), call.dtype = dtype, call.operands = 3, call.parameters = c;
  call.in[0] = x, call.in[1] = prediction, call.in[2] = out, call.out = out;
  call.loop.rank = 1, call.loop.numel = call.loop.extent[0] = samples * per_sample;
  for (int k = 0; k < 4; ++k) call.loop.stride[k][0] = 1;
  pointwise(call);
}

void matching(const MatchingCall& c, double* numbers, void* gradient) {
  const std::int64_t per_task = c.n > 4096 ? 1 : 4096 / (c.n > 0 ? c.n : 1);
  parallel_for(c.rows, per_task, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      if (c.dtype == DType::f32) match(c, row, numbers, static_cast<float*>(gradient));
      else match(c, row, numbers, static_cast<double*>(gradient));
  });
}

}  // namespace costate::cpu::COSTATE_ISA
