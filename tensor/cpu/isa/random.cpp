// Philox noise, block by block. Box and Muller's method in double precision with the polynomials of box_muller.h, which
// use no operation whose rounding a compiler or device may choose: the bits are the same everywhere.
#include <costate/tensor/box_muller.h>
#include <costate/tensor/parallel.h>
#include <costate/tensor/random.h>

#include "table.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

// Blocks of the counter that are computed in step, each in a lane of its own.
constexpr int lanes = 32;
using Lanes = std::uint32_t[lanes];

// The words of up to `lanes` blocks, in place of their counters. The rounds are those of philox4x32.
COSTATE_INLINE void rounds(std::uint64_t seed, Lanes& c0, Lanes& c1, Lanes& c2, Lanes& c3) {
  auto k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
    for (int i = 0; i < lanes; ++i) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0[i], p1 = std::uint64_t{0xCD9E8D57u} * c2[i];
      c0[i] = static_cast<std::uint32_t>(p1 >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<std::uint32_t>(p0 >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<std::uint32_t>(p1), c3[i] = static_cast<std::uint32_t>(p0);
    }
}

// Samples first..last - 1, whose blocks of four elements are dealt to the lanes one after the other.
template <class T>
void typed(bool normal, const Philox& philox, std::uint64_t first_sample, std::uint32_t step, std::int64_t first,
           std::int64_t last, std::int64_t per_sample, T* out) {
  const auto stream = static_cast<std::uint32_t>(philox.stream);
  const std::int64_t blocks = (per_sample + 3) / 4;
  std::int64_t sample = first, block = 0;
  while (sample < last) {
    alignas(64) Lanes c0, c1, c2, c3;
    alignas(64) float value[4][lanes];
    std::int64_t at[lanes];
    int used = 0;
    for (; used < lanes && sample < last; ++used) {
      const std::uint64_t s = first_sample + static_cast<std::uint64_t>(sample);
      c0[used] = static_cast<std::uint32_t>(block), c1[used] = step, c2[used] = static_cast<std::uint32_t>(s);
      c3[used] = stream + (static_cast<std::uint32_t>(s >> 32) << 16);
      at[used] = sample * per_sample + 4 * block;
      if (++block == blocks) block = 0, ++sample;
    }
    for (int i = used; i < lanes; ++i) c0[i] = c1[i] = c2[i] = c3[i] = 0;
    rounds(philox.seed, c0, c1, c2, c3);
    if (normal) {
      for (int i = 0; i < lanes; ++i) {
        float pair[2];
        box_muller(c0[i], c1[i], pair);
        value[0][i] = pair[0], value[1][i] = pair[1];
      }
      for (int i = 0; i < lanes; ++i) {
        float pair[2];
        box_muller(c2[i], c3[i], pair);
        value[2][i] = pair[0], value[3][i] = pair[1];
      }
    } else {
      const std::uint32_t* const words[4] = {c0, c1, c2, c3};
      for (int k = 0; k < 4; ++k)
        for (int i = 0; i < lanes; ++i) value[k][i] = (static_cast<float>(words[k][i] >> 9) + 0.5f) * 0x1p-23f;
    }
    if (per_sample % 4 == 0) {  // the blocks lie one behind the other
      T* const target = out + at[0];
      for (int i = 0; i < used; ++i)
        for (int k = 0; k < 4; ++k) target[4 * i + k] = static_cast<T>(value[k][i]);
      continue;
    }
    for (int i = 0; i < used; ++i) {
      const std::int64_t column = at[i] % per_sample, n = per_sample - column < 4 ? per_sample - column : 4;
      for (std::int64_t k = 0; k < n; ++k) out[at[i] + k] = static_cast<T>(value[k][i]);
    }
  }
}

template <class T>
void generate(bool normal, const Philox& philox, std::uint64_t first_sample, std::uint32_t step, std::int64_t samples,
              std::int64_t per_sample, T* out) {
  if (per_sample == 0) return;
  const std::int64_t per_task = per_sample > 4096 ? 1 : 4096 / per_sample;
  parallel_for(samples, per_task, [&](std::int64_t begin, std::int64_t end) {
    typed(normal, philox, first_sample, step, begin, end, per_sample, out);
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
  if (dtype == DType::f32) generate(normal, philox, first_sample, step, samples, per_sample, static_cast<float*>(out));
  else generate(normal, philox, first_sample, step, samples, per_sample, static_cast<double*>(out));
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
