// The counter of noise in a kernel, and the normal numbers of a block of it: the bits of the cpu.
#pragma once
#include <costate/tensor/box_muller.h>
#include <costate/tensor/philox.h>

#include "../cells.h"
#include "grid.h"

namespace costate::cuda {
namespace {

struct Counter {
  std::uint64_t seed, first_sample;
  std::uint32_t stream, step;
  std::int64_t samples, per_sample;
  const std::uint64_t* shift;  // on the device: added to first_sample, see cells.h
};

// The words of the counter (element / 4, step, low 32 bits of sample, stream + high 16 bits of sample << 16).
__device__ __forceinline__ void words_of(const Counter& c, std::int64_t sample, std::int64_t block, std::uint32_t (&w)[4]) {
  const std::uint64_t s = c.first_sample + *c.shift + static_cast<std::uint64_t>(sample);
  const auto words = philox4x32({static_cast<std::uint32_t>(block), c.step, static_cast<std::uint32_t>(s),
                                 c.stream + (static_cast<std::uint32_t>(s >> 32) << 16)},
                                {static_cast<std::uint32_t>(c.seed), static_cast<std::uint32_t>(c.seed >> 32)});
  for (int i = 0; i < 4; ++i) w[i] = words[static_cast<std::size_t>(i)];
}

__device__ __forceinline__ void normals_of(const std::uint32_t (&w)[4], float (&value)[4]) {
  box_muller(w[0], w[1], value);
  box_muller(w[2], w[3], value + 2);
}

}  // namespace
}  // namespace costate::cuda
