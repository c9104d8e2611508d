// Random numbers of one data item, in the order in which they are asked for: element 0, 1, 2, ... of the
// Philox counter (seed, Stream::data, item). An item therefore depends on its own index only, never on how
// many others were drawn, by whom, or in which order.
#pragma once
#include <costate/tensor/random.h>
#include <cmath>
#include <cstdint>

namespace costate::data {

// The families of draws; each takes two values of the counter's step, one for uniforms and one for normals,
// so that no random word serves twice.
enum class Family : std::uint32_t { glyph_order, glyph, points };

class Draw {
 public:
  // 0 <= item < 2^48.
  Draw(std::uint64_t seed, Family family, std::int64_t item)
      : philox_{seed, Stream::data},
        item_(static_cast<std::uint64_t>(item)),
        step_(2 * static_cast<std::uint32_t>(family)) {}

  double uniform() { return philox_.uniform(item_, step_, uniforms_++); }  // on (0, 1)
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  double normal() { return philox_.normal(item_, step_ + 1, normals_++); }
  // A normal restricted to two standard deviations, for quantities whose tails would spoil the picture.
  double mild() {
    double z = normal();
    while (std::abs(z) > 2.0) z = normal();
    return z;
  }
  std::uint32_t below(std::uint32_t n) { return philox_.below(n, item_, step_, uniforms_++); }  // 0 ... n-1

 private:
  Philox philox_;
  std::uint64_t item_;
  std::uint32_t step_, uniforms_ = 0, normals_ = 0;
};

constexpr std::int64_t max_items = std::int64_t{1} << 48;

}  // namespace costate::data
