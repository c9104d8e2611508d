// Philox noise, block by block. Box and Muller's method in double precision with the polynomials of box_muller.h, which
// use no operation whose rounding a compiler or device may choose: the bits are the same everywhere.
#include <costate/tensor/box_muller.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/random.h>

#include "table.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class T>
void typed(bool normal, const Philox& philox, std::uint64_t first_sample, std::uint32_t step, std::int64_t samples,
           std::int64_t per_sample, T* out) {
  const std::int64_t per_task = per_sample > 4096 ? 1 : 4096 / (per_sample > 0 ? per_sample : 1);
  parallel_for(samples, per_task, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t s = begin; s < end; ++s)
      for (std::int64_t e = 0; e < per_sample; e += 4) {
        const auto words = philox.words(first_sample + static_cast<std::uint64_t>(s), step, static_cast<std::uint32_t>(e / 4));
        const std::int64_t n = per_sample - e < 4 ? per_sample - e : 4;
        float value[4];
        if (normal) {
          box_muller(words[0], words[1], value);
          if (n > 2) box_muller(words[2], words[3], value + 2);
        } else {
          for (int i = 0; i < 4; ++i) value[i] = (static_cast<float>(words[i] >> 9) + 0.5f) * 0x1p-23f;
        }
        T* target = out + s * per_sample + e;
        for (std::int64_t i = 0; i < n; ++i) target[i] = static_cast<T>(value[i]);
      }
  });
}

template <class T>
void drop(double probability, std::uint32_t threshold, const Philox& philox, std::uint64_t first_sample, std::uint32_t step,
          std::int64_t samples, std::int64_t per_sample, const T* in, T* out) {
  const T factor = static_cast<T>(1.0 / (1.0 - probability));
  const std::int64_t per_task = per_sample > 4096 ? 1 : 4096 / (per_sample > 0 ? per_sample : 1);
  parallel_for(samples, per_task, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t s = begin; s < end; ++s)
      for (std::int64_t e = 0; e < per_sample; e += 4) {
        const auto words = philox.words(first_sample + static_cast<std::uint64_t>(s), step, static_cast<std::uint32_t>(e / 4));
        const std::int64_t n = per_sample - e < 4 ? per_sample - e : 4, at = s * per_sample + e;
        for (std::int64_t i = 0; i < n; ++i) out[at + i] = words[i] >= threshold ? in[at + i] * factor : T(0);
      }
  });
}

}  // namespace

void random(DType dtype, bool normal, std::uint64_t seed, std::uint32_t stream, std::uint64_t first_sample,
            std::uint32_t step, std::int64_t samples, std::int64_t per_sample, void* out) {
  const Philox philox{seed, static_cast<Stream>(stream)};
  if (dtype == DType::f32) typed(normal, philox, first_sample, step, samples, per_sample, static_cast<float*>(out));
  else typed(normal, philox, first_sample, step, samples, per_sample, static_cast<double*>(out));
}

void dropout(DType dtype, double probability, std::uint32_t threshold, std::uint64_t seed, std::uint32_t stream,
             std::uint64_t first_sample, std::uint32_t step, std::int64_t samples, std::int64_t per_sample, const void* in,
             void* out) {
  const Philox philox{seed, static_cast<Stream>(stream)};
  if (dtype == DType::f32)
    drop(probability, threshold, philox, first_sample, step, samples, per_sample, static_cast<const float*>(in),
         static_cast<float*>(out));
  else
    drop(probability, threshold, philox, first_sample, step, samples, per_sample, static_cast<const double*>(in),
         static_cast<double*>(out));
}

}  // namespace costate::cpu::COSTATE_ISA
