#include <costate/tensor/parallel.h>
#include <costate/tensor/scalar.h>

#include "table.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class T>
void update(std::int64_t n, const Kernels::AdamW& a, const T* __restrict g, T* __restrict m, T* __restrict v, T* __restrict p) {
  const T beta1 = static_cast<T>(a.beta1), beta2 = static_cast<T>(a.beta2), rest1 = static_cast<T>(1 - a.beta1),
          rest2 = static_cast<T>(1 - a.beta2), scale = static_cast<T>(a.gradient_scale), eps = static_cast<T>(a.eps),
          step = static_cast<T>(a.lr / a.bias1), root = static_cast<T>(1 / a.bias2),
          keep = static_cast<T>(1 - a.lr * a.weight_decay);
  for (std::int64_t i = 0; i < n; ++i) {
    const T gi = g[i] * scale;
    m[i] = beta1 * m[i] + rest1 * gi;
    v[i] = beta2 * v[i] + rest2 * gi * gi;
    p[i] = keep * p[i] - step * m[i] / (scalar::sqrt(v[i] * root) + eps);
  }
}
}  // namespace

void adamw(DType dtype, std::int64_t n, const Kernels::AdamW& a, const void* gradient, void* m, void* v, void* parameter) {
  parallel_for(n, 1 << 14, [&](std::int64_t begin, std::int64_t end) {
    const auto typed = [&](auto zero) {
      using T = decltype(zero);
      update<T>(end - begin, a, static_cast<const T*>(gradient) + begin, static_cast<T*>(m) + begin,
                static_cast<T*>(v) + begin, static_cast<T*>(parameter) + begin);
    };
    if (dtype == DType::f32) typed(0.f);
    else typed(0.0);
  });
}

}  // namespace costate::cpu::COSTATE_ISA
