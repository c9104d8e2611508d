// One AdamW update in place; see nn/optim.h for the formula.
#include "../table.h"
#include "grid.h"

namespace costate::cuda {
namespace {

template <class T>
struct Update {
  T beta1, beta2, rest1, rest2, scale, eps, step, root, keep;
};

template <class T>
__global__ void __launch_bounds__(block_threads) update(std::int64_t n, Update<T> u, const T* g, T* m, T* v, T* p) {
  for (std::int64_t i = first_task(); i < n; i += task_stride()) {
    const T gi = g[i] * u.scale, mi = u.beta1 * m[i] + u.rest1 * gi, vi = u.beta2 * v[i] + u.rest2 * gi * gi;
    m[i] = mi, v[i] = vi;
    p[i] = u.keep * p[i] - u.step * mi / (scalar::sqrt(vi * u.root) + u.eps);
  }
}

}  // namespace

void adamw(DType dtype, std::int64_t n, const Kernels::AdamW& a, const void* gradient, void* m, void* v, void* parameter) {
  if (n == 0) return;
  by_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Update<T> u{
        static_cast<T>(a.beta1),        static_cast<T>(a.beta2),          static_cast<T>(1 - a.beta1),
        static_cast<T>(1 - a.beta2),    static_cast<T>(a.gradient_scale), static_cast<T>(a.eps),
        static_cast<T>(a.lr / a.bias1), static_cast<T>(1 / a.bias2),      static_cast<T>(1 - a.lr * a.weight_decay)};
    launch("adamw", update<T>, grid_for(n), dim3(block_threads), 0, n, u, static_cast<const T*>(gradient), static_cast<T*>(m),
           static_cast<T*>(v), static_cast<T*>(parameter));
  });
}

}  // namespace costate::cuda
