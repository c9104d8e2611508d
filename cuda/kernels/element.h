// What kernels read and write, and what they compute with: bf16 is stored in half the bytes of f32 and is float everywhere
// else. A kernel of T holds numbers of Wide<T> and converts where it reads and writes.
#pragma once
#include <costate/tensor/rounding.h>

#include <type_traits>

namespace costate::cuda {

// The upper half of an f32 number. Converts itself, so that `sum += x[i]` and `y[i] = sum` are what they say.
struct Bf16 {
  std::uint16_t bits;

  Bf16() = default;
  COSTATE_INLINE Bf16(float x) : bits(rounding::bf16_bits(x)) {}
  COSTATE_INLINE operator float() const { return rounding::from_bf16_bits(bits); }
};
static_assert(sizeof(Bf16) == 2 && std::is_trivially_copyable_v<Bf16>);

template <class T>
using Wide = std::conditional_t<std::is_same_v<T, Bf16>, float, T>;

}  // namespace costate::cuda
