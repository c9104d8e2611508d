// Noise as a pure function of its counter: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as
// 1, 2, 3; SC 2011). No state, no order: the noise of a step can be made again anywhere, on any device, for any split of
// the batch, and is never stored.
#pragma once
#include <array>
#include <costate/tensor/philox.h>
#include <costate/tensor/tensor.h>
#include <cstdint>

namespace costate {

// What a stream of noise is for. Streams are independent of each other.
enum class Stream : std::uint32_t {
  noise = 0,       // Brownian increments of a sampler; step = the step it enters
  initial = 1,     // the initial law of a sampler
  data = 2,        // data generators
  shuffle = 3,     // order of a data set
  time = 4,        // times of flow-matching pairs
  coupling = 5,    // noise of flow-matching pairs
  parameters = 6,  // initial weights; step = number of the parameter
  subset = 7,      // choice of time steps
  label = 8,       // choice and dropping of labels
  evaluation = 9,  // projections, bootstrap
  dropout = 10,    // masks of dropout
  bridge = 11,     // Brownian bridges inside a cell; step = node of the cell's tree (sde/brownian.h)
  area = 12,       // space-time Levy areas of a Brownian path; step = cell, resp. node of a cell's tree
  probe = 13,      // probes of trace estimates; step = number of the probe
  user = 16,       // and above: callers' own
};

// The counter is (element / 4, step, low 32 bits of sample, stream + high 16 bits of sample << 16).
struct Philox {
  std::uint64_t seed = 0;
  Stream stream = Stream::user;

  std::array<std::uint32_t, 4> words(std::uint64_t sample, std::uint32_t step, std::uint32_t element_block) const {
    return philox4x32({element_block, step, static_cast<std::uint32_t>(sample),
                       static_cast<std::uint32_t>(stream) + (static_cast<std::uint32_t>(sample >> 32) << 16)},
                      {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  }
  // In (0, 1): (word >> 9 + 1/2) / 2^23, exact in f32.
  double uniform(std::uint64_t sample, std::uint32_t step, std::uint32_t element) const {
    return (static_cast<double>(words(sample, step, element / 4)[element % 4] >> 9) + 0.5) * 0x1p-23;
  }
  // Standard normal by Box and Muller's method from words (0, 1) and (2, 3) of the block; the value that the kernels
  // write, up to their single precision.
  double normal(std::uint64_t sample, std::uint32_t step, std::uint32_t element) const;
  // 0 .. n-1, n >= 1, by the high word of a 64-bit product (bias below n / 2^32).
  std::uint32_t below(std::uint32_t n, std::uint64_t sample, std::uint32_t step, std::uint32_t element) const {
    return static_cast<std::uint32_t>((std::uint64_t{words(sample, step, element / 4)[element % 4]} * n) >> 32);
  }
};

// Fills `out`, whose axis 0 counts samples first_sample, first_sample + 1, ..., with standard normal resp. uniform (0, 1)
// values. f32 and f64 tensors receive the same numbers, those of f32.
void random_normal(const Tensor& out, std::uint64_t seed, Stream stream, std::uint64_t first_sample, std::uint32_t step);
void random_uniform(const Tensor& out, std::uint64_t seed, Stream stream, std::uint64_t first_sample, std::uint32_t step);

// out = c[0] x + c[1] y + c[2] e with the numbers e of random_normal, which are not stored. `out` is neither x nor y; all three
// have one shape, element type and device.
void random_normal_step(const Tensor& out, const double (&c)[3], const Tensor& x, const Tensor& y, std::uint64_t seed,
                        Stream stream, std::uint64_t first_sample, std::uint32_t step);

// A permutation of 0..n-1 (Fisher and Yates), number `epoch` of its seed.
std::vector<std::int64_t> permutation(std::int64_t n, std::uint64_t seed, std::uint64_t epoch);

}  // namespace costate
