// f32 numbers with fewer significant bits, on host and device: what tensor cores multiply.
#pragma once
#include <costate/tensor/scalar.h>

namespace costate::rounding {

// The nearest bf16 (8 significant bits), ties to even; a NaN stays one.
COSTATE_INLINE float to_bf16(float x) {
  const std::uint32_t b = scalar::detail::bits(x), up = b + 0x7fffu + (b >> 16 & 1u);
  return scalar::detail::from_bits((x != x ? b | 0x400000u : up) & 0xffff0000u);
}
// The nearest TF32 (11 significant bits), ties away from zero, as PTX's cvt.rna.tf32.f32 has it; a NaN stays one.
COSTATE_INLINE float to_tf32(float x) {
  const std::uint32_t b = scalar::detail::bits(x);
  return scalar::detail::from_bits((x != x ? b | 0x400000u : b + 0x1000u) & 0xffffe000u);
}

// As stored: the upper half.
COSTATE_INLINE std::uint16_t bf16_bits(float x) {
  return static_cast<std::uint16_t>(scalar::detail::bits(to_bf16(x)) >> 16);
}
COSTATE_INLINE float from_bf16_bits(std::uint16_t b) {
  return scalar::detail::from_bits(static_cast<std::uint32_t>(b) << 16);
}

}  // namespace costate::rounding
