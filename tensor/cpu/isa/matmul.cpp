// The plain matrix product.
#include <costate/tensor/scalar.h>

#include "table.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class T>
void typed(const MatmulCall& c) {
  for (std::int64_t s = 0; s < c.batch; ++s)
    for (std::int64_t i = 0; i < c.m; ++i)
      for (std::int64_t j = 0; j < c.n; ++j) {
        const T* a = static_cast<const T*>(c.a) + s * c.stride_a;
        const T* b = static_cast<const T*>(c.b) + s * c.stride_b;
        const std::int64_t at = (s * c.m + i) * c.n + j;
        T sum = 0;
        for (std::int64_t k = 0; k < c.k; ++k)
          sum += (c.transpose_a ? a[k * c.m + i] : a[i * c.k + k]) * (c.transpose_b ? b[j * c.k + k] : b[k * c.n + j]);
        T* out = static_cast<T*>(c.c) + at;
        if (c.accumulate) sum += *out;
        if (c.bias) sum += static_cast<const T*>(c.bias)[j];
        const scalar::Dual<T> z(sum, T(1));
        scalar::Dual<T> y = z;
        if (c.activation == Activation::silu) y = scalar::silu(z);
        if (c.activation == Activation::gelu_tanh) y = scalar::gelu_tanh(z);
        if (c.activation == Activation::relu) y = scalar::max(z, scalar::Dual<T>(T(0), T(0)));
        *out = y.v;
        if (c.derivative) static_cast<T*>(c.derivative)[at] = y.d;
      }
}

}  // namespace

void matmul(const MatmulCall& call) {
  if (call.dtype == DType::f32) typed<float>(call);
  else typed<double>(call);
}
std::int64_t packed_bytes(DType, std::int64_t, std::int64_t) { return 0; }
void pack_b(DType, bool, std::int64_t, std::int64_t, const void*, void*) {}

}  // namespace costate::cpu::COSTATE_ISA
