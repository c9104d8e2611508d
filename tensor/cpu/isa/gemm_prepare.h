// Operands made ready in the workspace for a method that takes them as they are: multiplied by scale_a, rounded to bf16 or
// TF32. Row sums are taken on the way. For instruction sets that have no method of their own for these.
#pragma once
#include <costate/tensor/kernels.h>
#include <costate/tensor/rounding.h>

namespace costate::cpu::COSTATE_ISA {
namespace {

COSTATE_INLINE void round_all(Precision precision, std::int64_t n, const float* in, float* out) {
  if (precision == Precision::tf32)
    for (std::int64_t i = 0; i < n; ++i) out[i] = rounding::to_tf32(in[i]);
  else
    for (std::int64_t i = 0; i < n; ++i) out[i] = rounding::to_bf16(in[i]);
}
COSTATE_INLINE void round_all(Precision, std::int64_t, const double*, double*) {}  // never asked for

template <class T>
bool rounds(const MatmulShape& s) {
  return sizeof(T) == 4 && s.precision != Precision::f32;
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
  if (rounds<T>(call)) round_all(call.precision, size, a, a);
  left.a = a;
  bytes += prepared_a_bytes<T>(call);
  if (prepared_b_bytes<T>(call)) {
    T* const b = reinterpret_cast<T*>(bytes);
    const T* const plain = static_cast<const T*>(call.b);
    const std::int64_t count = (call.stride_b ? call.batch : 1) * call.n * call.k;
    round_all(call.precision, count, plain, b);
    left.b = b;
    bytes += prepared_b_bytes<T>(call);
  }
  left.workspace = bytes;
  return left;
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
