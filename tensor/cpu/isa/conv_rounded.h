// Convolutions of TF32 operands: both are rounded in the workspace, and a convolution in f32 is left to do.
#pragma once
#include <costate/tensor/kernels.h>
#include <costate/tensor/rounding.h>

namespace costate::cpu::COSTATE_ISA {
namespace {

inline bool rounds(const ConvShape& s) { return s.dtype == DType::f32 && s.precision == Precision::tf32; }
inline ConvShape after_rounding(ConvShape s) {
  s.precision = Precision::f32;
  return s;
}

struct RoundedOperands {
  std::int64_t x, y, weight;  // elements; 0: the result

  explicit RoundedOperands(const ConvShape& s)
      : x(s.pass == ConvShape::Pass::data_gradient ? 0 : s.n * s.height * s.width * s.channels),
        y(s.pass == ConvShape::Pass::forward ? 0 : s.n * s.out_height * s.out_width * s.out_channels),
        weight(s.pass == ConvShape::Pass::weight_gradient
                   ? 0
                   : s.out_channels * s.kernel_height * s.kernel_width * (s.channels / s.groups)) {}
  // Each begins at a cache line.
  static constexpr std::int64_t line = 16;
  static std::int64_t lines(std::int64_t elements) { return (elements + line - 1) / line * line; }
  std::int64_t bytes() const { return 4 * (lines(x) + lines(y) + lines(weight)); }
};

// The convolution that is left to do; its workspace lies behind what was made here.
inline ConvCall rounded_operands(const ConvCall& call) {
  const RoundedOperands sizes(call.shape);
  ConvCall left = call;
  left.shape = after_rounding(call.shape);
  auto* to = static_cast<float*>(call.workspace);
  const auto rounded = [&](const void* operand, std::int64_t elements) -> const void* {
    if (elements == 0) return operand;
    const auto* from = static_cast<const float*>(operand);
    float* const out = to;
    for (std::int64_t i = 0; i < elements; ++i) out[i] = rounding::to_tf32(from[i]);
    to += RoundedOperands::lines(elements);
    return out;
  };
  left.x = rounded(call.x, sizes.x), left.y = rounded(call.y, sizes.y), left.weight = rounded(call.weight, sizes.weight);
  left.workspace = to;
  return left;
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
