// Operands made ready in the workspace for a method that takes them as they are: multiplied by scale_a, rounded to bf16.
// Row sums are taken on the way. For instruction sets that have no method of their own for these.
#pragma once
#include <costate/tensor/kernels.h>
#include <costate/tensor/scalar.h>

namespace costate::cpu::COSTATE_ISA {
namespace {

// The nearest bf16, ties to even; a NaN stays one.
COSTATE_INLINE float rounded(float x) {
  const std::uint32_t b = __builtin_bit_cast(std::uint32_t, x);
  const std::uint32_t up = b + 0x7fffu + (b >> 16 & 1u);
  return __builtin_bit_cast(float, (x != x ? b | 0x400000u : up) & 0xffff0000u);
}
COSTATE_INLINE double rounded(double x) { return x; }

template <class T>
bool rounds(const MatmulShape& s) {
  return sizeof(T) == 4 && s.precision == Precision::bf16_products;
}
constexpr std::int64_t whole_lines(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }

template <class T>
std::int64_t prepared_a_bytes(const MatmulShape& s) {
  return whole_lines((s.stride_a ? s.batch : 1) * s.m * s.k * static_cast<std::int64_t>(sizeof(T)));
}
template <class T>
std::int64_t prepared_b_bytes(const MatmulShape& s) {
  if (!rounds<T>(s) || s.packed) return 0;
  return whole_lines((s.stride_b ? s.batch : 1) * s.n * s.k * static_cast<std::int64_t>(sizeof(T)));
}

// The shape of what is left to do.
inline MatmulShape after_preparing(MatmulShape s) {
  s.scaled = s.summed = false, s.precision = Precision::f32;
  return s;
}
// The product that is left to do; its workspace lies behind what was made here.
template <class T>
MatmulCall prepare(const MatmulCall& call) {
  MatmulCall left = call;
  static_cast<MatmulShape&>(left) = after_preparing(call);
  const bool round = rounds<T>(call);
  auto* bytes = static_cast<std::byte*>(call.workspace);
  T* const a = reinterpret_cast<T*>(bytes);
  const T* const from = static_cast<const T*>(call.a);
  const T* const scale = call.scaled ? static_cast<const T*>(call.scale_a) : nullptr;
  const std::int64_t size = (call.stride_a ? call.batch : 1) * call.m * call.k;
  for (std::int64_t i = 0; i < size; ++i) a[i] = scale ? from[i] * scale[i] : from[i];
  if (call.summed) {
    T* const sums = static_cast<T*>(call.row_sums);
    for (std::int64_t i = 0; i < call.m; ++i) sums[i] = T(0);
    for (std::int64_t kk = 0; kk < call.k; ++kk)
      for (std::int64_t i = 0; i < call.m; ++i) sums[i] += a[kk * call.m + i];
  }
  if (round)
    for (std::int64_t i = 0; i < size; ++i) a[i] = rounded(a[i]);
  left.a = a;
  bytes += prepared_a_bytes<T>(call);
  if (prepared_b_bytes<T>(call)) {
    T* const b = reinterpret_cast<T*>(bytes);
    const T* const plain = static_cast<const T*>(call.b);
    const std::int64_t count = (call.stride_b ? call.batch : 1) * call.n * call.k;
    for (std::int64_t i = 0; i < count; ++i) b[i] = rounded(plain[i]);
    left.b = b;
    bytes += prepared_b_bytes<T>(call);
  }
  left.workspace = bytes;
  return left;
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
