// Kernels over rows: softmax, layer norm, gather.
#include <costate/tensor/parallel.h>
#include <costate/tensor/scalar.h>

#include "row_sum.h"
#include "table.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

// body(row) for every row, cut by the length of rows alone.
template <class Body>
void each_row(std::int64_t rows, std::int64_t n, const Body& body) {
  const std::int64_t per_task = n > (1 << 13) ? 1 : (1 << 13) / (n > 0 ? n : 1);
  parallel_for(rows, per_task, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) body(r);
  });
}

template <class Body>
void by_type(DType dtype, const Body& body) {
  if (dtype == DType::f32) body(0.f);
  else body(0.0);
}

}  // namespace

void softmax(DType dtype, bool log, std::int64_t rows, std::int64_t n, const void* in, void* out) {
  by_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    each_row(rows, n, [&](std::int64_t r) {
      const T* x = static_cast<const T*>(in) + r * n;
      T* y = static_cast<T*>(out) + r * n;
      T top = x[0];
      for (std::int64_t i = 1; i < n; ++i) top = x[i] > top ? x[i] : top;
      for (std::int64_t i = 0; i < n; ++i) y[i] = scalar::exp(x[i] - top);
      const T sum = row_sum<T>(n, [&](std::int64_t i) { return y[i]; });
      if (log) {
        const T shift = top + scalar::log(sum);
        for (std::int64_t i = 0; i < n; ++i) y[i] = x[i] - shift;
      } else {
        const T scale = T(1) / sum;
        for (std::int64_t i = 0; i < n; ++i) y[i] *= scale;
      }
    });
  });
}

// softmax: dx = y (g - <y, g>); log softmax: dx = g - exp(y) sum(g).
void softmax_vjp(DType dtype, bool log, std::int64_t rows, std::int64_t n, const void* out, const void* cotangent,
                 void* dx) {
  by_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    each_row(rows, n, [&](std::int64_t r) {
      const T* y = static_cast<const T*>(out) + r * n;
      const T* g = static_cast<const T*>(cotangent) + r * n;
      T* d = static_cast<T*>(dx) + r * n;
      if (log) {
        const T sum = row_sum<T>(n, [&](std::int64_t i) { return g[i]; });
        for (std::int64_t i = 0; i < n; ++i) d[i] = g[i] - scalar::exp(y[i]) * sum;
      } else {
        const T dot = row_sum<T>(n, [&](std::int64_t i) { return y[i] * g[i]; });
        for (std::int64_t i = 0; i < n; ++i) d[i] = y[i] * (g[i] - dot);
      }
    });
  });
}

void layer_norm(DType dtype, std::int64_t rows, std::int64_t n, double eps, const void* in, void* out, void* rstd) {
  by_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    each_row(rows, n, [&](std::int64_t r) {
      const T* x = static_cast<const T*>(in) + r * n;
      T* y = static_cast<T*>(out) + r * n;
      const T mean = row_sum<T>(n, [&](std::int64_t i) { return x[i]; }) / static_cast<T>(n);
      const T variance = row_sum<T>(n, [&](std::int64_t i) { return (x[i] - mean) * (x[i] - mean); }) / static_cast<T>(n);
      const T scale = T(1) / scalar::sqrt(variance + static_cast<T>(eps));
      static_cast<T*>(rstd)[r] = scale;
      for (std::int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * scale;
    });
  });
}

// dx = rstd (g - mean(g) - y mean(g y))
void layer_norm_vjp(DType dtype, std::int64_t rows, std::int64_t n, const void* out, const void* rstd,
                    const void* cotangent, void* dx) {
  by_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    each_row(rows, n, [&](std::int64_t r) {
      const T* y = static_cast<const T*>(out) + r * n;
      const T* g = static_cast<const T*>(cotangent) + r * n;
      T* d = static_cast<T*>(dx) + r * n;
      const T mean = row_sum<T>(n, [&](std::int64_t i) { return g[i]; }) / static_cast<T>(n);
      const T slope = row_sum<T>(n, [&](std::int64_t i) { return g[i] * y[i]; }) / static_cast<T>(n);
      const T scale = static_cast<const T*>(rstd)[r];
      for (std::int64_t i = 0; i < n; ++i) d[i] = scale * (g[i] - mean - y[i] * slope);
    });
  });
}

void gather_rows(DType dtype, std::int64_t rows, std::int64_t n, std::int64_t, const std::int32_t* index, const void* table,
                 void* out) {
  const auto typed = [&](auto zero) {
    using T = decltype(zero);
    each_row(rows, n, [&](std::int64_t r) {
      const T* source = static_cast<const T*>(table) + index[r] * n;
      T* target = static_cast<T*>(out) + r * n;
      for (std::int64_t i = 0; i < n; ++i) target[i] = source[i];
    });
  };
  if (dtype == DType::bf16) typed(std::uint16_t{});
  else by_type(dtype, typed);
}

// Serial: rows that meet in one target are added in order.
void scatter_add_rows(DType dtype, std::int64_t rows, std::int64_t n, std::int64_t, const std::int32_t* index, const void* in,
                      void* out) {
  by_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* source = static_cast<const T*>(in) + r * n;
      T* target = static_cast<T*>(out) + index[r] * n;
      for (std::int64_t i = 0; i < n; ++i) target[i] += source[i];
    }
  });
}

}  // namespace costate::cpu::COSTATE_ISA
