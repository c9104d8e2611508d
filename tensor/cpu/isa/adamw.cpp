#include <costate/tensor/parallel.h>
#include <costate/tensor/pointwise.h>
#include <costate/tensor/scalar.h>

#include <cmath>

#include "table.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class T>
void update(std::int64_t n, const AdamWRates& a, const AdamWNow& now, double factor, const T* __restrict g, T* __restrict m,
            T* __restrict v, T* __restrict p) {
  const T beta1 = static_cast<T>(a.beta1), beta2 = static_cast<T>(a.beta2), rest1 = static_cast<T>(1 - a.beta1),
          rest2 = static_cast<T>(1 - a.beta2), scale = static_cast<T>(factor), eps = static_cast<T>(a.eps),
          step = static_cast<T>(now.step), root = static_cast<T>(now.root), keep = static_cast<T>(now.keep);
  for (std::int64_t i = 0; i < n; ++i) {
    const T gi = g[i] * scale;
    m[i] = beta1 * m[i] + rest1 * gi;
    v[i] = beta2 * v[i] + rest2 * gi * gi;
    p[i] = keep * p[i] - step * m[i] / (scalar::sqrt(v[i] * root) + eps);
  }
}

// average += weight (parameter - average), by the row that does so elsewhere.
void follow(DType dtype, const Optimised& piece, double weight) {
  PointwiseCall call{};
  const double parameters[4] = {1 - weight, weight};
  call.op = static_cast<int>(Pointwise::axpby), call.dtype = dtype, call.operands = 2, call.parameters = parameters;
  call.in[0] = piece.average, call.in[1] = piece.parameter, call.out = piece.average;
  call.loop.rank = 1, call.loop.numel = call.loop.extent[0] = piece.n;
  for (int k = 0; k < 3; ++k) call.loop.stride[k][0] = 1;
  pointwise(call);
}

}  // namespace

void adamw(DType dtype, std::int64_t pieces, const Optimised* piece, const AdamWRates& a, const AdamWNow* now,
           const double* squares, const double* check) {
  if ((squares && !std::isfinite(*squares)) || (check && !std::isfinite(*check))) return;
  const double norm = squares ? std::sqrt(*squares) : 0.0,
               factor = now->scale * (now->limit > 0 && norm > now->limit ? now->limit / norm : 1.0);
  for (std::int64_t i = 0; i < pieces; ++i) {
    const Optimised& of = piece[i];
    parallel_for(of.n, 1 << 14, [&](std::int64_t begin, std::int64_t end) {
      const auto typed = [&](auto zero) {
        using T = decltype(zero);
        update<T>(end - begin, a, *now, factor, static_cast<const T*>(of.gradient) + begin, static_cast<T*>(of.m) + begin,
                  static_cast<T*>(of.v) + begin, static_cast<T*>(of.parameter) + begin);
      };
      if (dtype == DType::f32) typed(0.f);
      else typed(0.0);
    });
    if (of.average) follow(dtype, of, now->average_weight);
  }
}

}  // namespace costate::cpu::COSTATE_ISA
