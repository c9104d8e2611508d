// Reductions, in orders that depend on extents alone.
#include <costate/tensor/parallel.h>

#include "table.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

// Sixteen interleaved partial sums, combined pairwise at the end.
template <class T>
T sum_row(const T* x, std::int64_t n) {
  constexpr int lanes = 16;
  T part[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int l = 0; l < lanes; ++l) part[l] += x[i + l];
  for (int l = 0; i < n; ++i, ++l) part[l] += x[i];
  for (int width = lanes / 2; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) part[l] += part[l + width];
  return part[0];
}

template <class T>
void sum_typed(std::int64_t outer, std::int64_t n, std::int64_t inner, const T* in, T* out) {
  if (inner == 1) {
    const std::int64_t per_task = n > (1 << 14) ? 1 : (1 << 14) / (n > 0 ? n : 1);
    parallel_for(outer, per_task, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t o = begin; o < end; ++o) out[o] = sum_row(in + o * n, n);
    });
    return;
  }
  // Columns: whole rows are added, a block of columns at a time.
  constexpr std::int64_t columns = 512;
  const std::int64_t blocks = (inner + columns - 1) / columns;
  const auto one = [&](std::int64_t task) {
    const std::int64_t o = task / blocks, c0 = task % blocks * columns;
    const std::int64_t width = inner - c0 < columns ? inner - c0 : columns;
    T* target = out + o * inner + c0;
    for (std::int64_t c = 0; c < width; ++c) target[c] = T(0);
    for (std::int64_t i = 0; i < n; ++i) {
      const T* row = in + (o * n + i) * inner + c0;
      for (std::int64_t c = 0; c < width; ++c) target[c] += row[c];
    }
  };
  if (outer * n * inner < (1 << 15))
    for (std::int64_t task = 0; task < outer * blocks; ++task) one(task);
  else parallel(outer * blocks, one);
}

template <class T>
double sum_squares_typed(const T* x, std::int64_t n) {
  constexpr int lanes = 8;
  double part[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int l = 0; l < lanes; ++l) part[l] += static_cast<double>(x[i + l]) * static_cast<double>(x[i + l]);
  for (int l = 0; i < n; ++i, ++l) part[l] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

}  // namespace

void sum(DType dtype, std::int64_t outer, std::int64_t n, std::int64_t inner, const void* in, void* out) {
  if (dtype == DType::f32) sum_typed(outer, n, inner, static_cast<const float*>(in), static_cast<float*>(out));
  else sum_typed(outer, n, inner, static_cast<const double*>(in), static_cast<double*>(out));
}

void sum_squares(DType dtype, std::int64_t pieces, const Elements* piece, double* out) {
  double squares = 0;
  for (std::int64_t i = 0; i < pieces; ++i)
    squares += dtype == DType::f32 ? sum_squares_typed(static_cast<const float*>(piece[i].data), piece[i].n)
                                   : sum_squares_typed(static_cast<const double*>(piece[i].data), piece[i].n);
  *out = squares;
}

}  // namespace costate::cpu::COSTATE_ISA
