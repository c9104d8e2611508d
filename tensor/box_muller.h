// Two standard normal numbers from two random words, with the same bits on every device: every product and sum below is
// one correctly rounded operation (fused ones are written as such), and nothing is taken from a mathematics library.
#pragma once
#include <cmath>
#include <costate/tensor/scalar.h>
#include <cstdint>

namespace costate {

// radius = sqrt(-2 log u), u = (w0 >> 8 + 1/2) / 2^24; angle = 2 pi (w1 >> 8 + 1/2) / 2^24. Single precision:
// the numbers differ from the exact ones by at most 4e-7 (tested), and |value| <= 5.9.
static COSTATE_INLINE void box_muller(std::uint32_t w0, std::uint32_t w1, float* out) {
  // log u = e log 2 + log m with m in [sqrt(1/2), sqrt(2)): atanh series in z = (m - 1) / (m + 1), |z| <= 0.1716.
  // n = 2 (w0 >> 8) + 1 is an odd integer below 2^25, so u = n / 2^25 exactly.
  const std::uint32_t n = 2 * (w0 >> 8) + 1;
  const double u = static_cast<double>(static_cast<std::int32_t>(n)) * 0x1p-25;
  // Exponents are taken off the high word: 32-bit arithmetic, which every vector unit has.
  std::uint64_t bits;
  __builtin_memcpy(&bits, &u, 8);
  const std::uint64_t offset = bits - 0x3fe6a09e667f3bcdull;  // of sqrt(1/2)
  const std::int32_t exponent = static_cast<std::int32_t>(offset >> 32) >> 20;
  bits -= static_cast<std::uint64_t>(static_cast<std::uint32_t>(exponent) << 20) << 32;
  double m;
  __builtin_memcpy(&m, &bits, 8);
  const double z = (m - 1.0) / (m + 1.0), q = z * z;
  double series = 1.0 / 11;
  series = __builtin_fma(series, q, 1.0 / 9);
  series = __builtin_fma(series, q, 1.0 / 7);
  series = __builtin_fma(series, q, 1.0 / 5);
  series = __builtin_fma(series, q, 1.0 / 3);
  series = __builtin_fma(series, q, 1.0);
  const double log_u = __builtin_fma(static_cast<double>(exponent), 0.69314718055994531, 2.0 * z * series);
  const double radius = __builtin_sqrt(-2.0 * log_u);

  // The angle by octants: with k = 2 (w1 >> 8) + 1 the angle is 2 pi k / 2^25; the nearest multiple of pi/2 is taken off.
  const std::int32_t k = static_cast<std::int32_t>(2 * (w1 >> 8) + 1);
  const std::int32_t quadrant = (k + (1 << 22)) >> 23;
  const double r = static_cast<double>(k - (quadrant << 23)) * (6.283185307179586477 * 0x1p-25);  // |r| <= pi/4
  const double r2 = r * r;
  double s = 1.0 / 362880;
  s = __builtin_fma(s, r2, -1.0 / 5040);
  s = __builtin_fma(s, r2, 1.0 / 120);
  s = __builtin_fma(s, r2, -1.0 / 6);
  s = __builtin_fma(s * r2, r, r);
  double c = 1.0 / 40320;
  c = __builtin_fma(c, r2, -1.0 / 720);
  c = __builtin_fma(c, r2, 1.0 / 24);
  c = __builtin_fma(c, r2, -0.5);
  c = __builtin_fma(c, r2, 1.0);
  const double sine = quadrant & 1 ? c : s, cosine = quadrant & 1 ? s : c;
  // quadrants 0..3: (c, s), (-s, c), (-c, -s), (s, -c)
  const double x = ((quadrant + 1) & 2) ? -cosine : cosine;
  const double y = (quadrant & 2) ? -sine : sine;
  out[0] = static_cast<float>(radius * x);
  out[1] = static_cast<float>(radius * y);
}

}  // namespace costate
