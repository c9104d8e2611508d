// AdamW updates of all parameters in one launch, with the clipping of the gradients' norm and the averages of the parameters;
// see nn/optim.h for the formulas. Everything that changes from update to update is read from the device's memory.
#include "../table.h"
#include "pieces.h"

namespace costate::cuda {
namespace {

constexpr std::int64_t chunk_length = 2048;

template <class T>
struct Rates {
  T beta1, beta2, rest1, rest2, eps;
};

__device__ __forceinline__ bool finite(double x) { return x - x == 0; }

template <class T>
__global__ void __launch_bounds__(block_threads) update(const __grid_constant__ Pieces<Optimised> list, Rates<T> r,
                                                        const AdamWNow* now, const double* squares, const double* check) {
  if ((squares && !finite(*squares)) || (check && !finite(*check))) return;
  double factor = now->scale;
  if (squares && now->limit > 0) {
    const double norm = scalar::sqrt(*squares);
    factor *= norm > now->limit ? now->limit / norm : 1.0;
  }
  const T scale = static_cast<T>(factor), step = static_cast<T>(now->step), root = static_cast<T>(now->root),
          keep = static_cast<T>(now->keep), far = static_cast<T>(1 - now->average_weight),
          near = static_cast<T>(now->average_weight);
  for (std::int64_t chunk = blockIdx.x; chunk < list.first[list.count]; chunk += gridDim.x) {
    const int which = list.of_chunk(chunk);
    const Optimised& of = list.entry[which];
    const std::int64_t begin = (chunk - list.first[which]) * chunk_length,
                       end = begin + chunk_length < of.n ? begin + chunk_length : of.n;
    const T* const g = static_cast<const T*>(of.gradient);
    T *const m = static_cast<T*>(of.m), *const v = static_cast<T*>(of.v), *const p = static_cast<T*>(of.parameter),
      *const average = static_cast<T*>(of.average);
    for (std::int64_t i = begin + threadIdx.x; i < end; i += block_threads) {
      const T gi = g[i] * scale, mi = r.beta1 * m[i] + r.rest1 * gi, vi = r.beta2 * v[i] + r.rest2 * gi * gi;
      const T pi = keep * p[i] - step * mi / (scalar::sqrt(vi * root) + r.eps);
      m[i] = mi, v[i] = vi, p[i] = pi;
      if (average) average[i] = far * average[i] + near * pi;
    }
  }
}

}  // namespace

void adamw(DType dtype, std::int64_t pieces, const Optimised* piece, const AdamWRates& a, const AdamWNow* now,
           const double* squares, const double* check) {
  by_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rates<T> r{static_cast<T>(a.beta1), static_cast<T>(a.beta2), static_cast<T>(1 - a.beta1),
                     static_cast<T>(1 - a.beta2), static_cast<T>(a.eps)};
    each_list(piece, pieces, chunk_length, [](const Optimised& o) { return o.n; },
              [&](const Pieces<Optimised>& list, std::int64_t) {
                launch("adamw", update<T>, grid_for(list.chunks() * block_threads), dim3(block_threads), 0, list, r, now,
                       squares, check);
              });
  });
}

}  // namespace costate::cuda
