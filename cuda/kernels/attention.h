// What the kernels of attention are given.
#pragma once
#include "grid.h"

namespace costate::cuda {
namespace {

template <class T>
struct Attention {
  using W = Wide<T>;
  std::int64_t heads, queries, keys, width, row_q, row_k, row_v;
  W scale;
  const T *q, *k, *v;

  explicit Attention(const AttentionCall& c)
      : heads(c.heads),
        queries(c.queries),
        keys(c.keys),
        width(c.width),
        row_q(c.row_q),
        row_k(c.row_k),
        row_v(c.row_v),
        scale(W(1) / scalar::sqrt(static_cast<W>(c.width))),
        q(static_cast<const T*>(c.q)),
        k(static_cast<const T*>(c.k)),
        v(static_cast<const T*>(c.v)) {}
  __device__ __forceinline__ std::int64_t row_out() const { return heads * width; }
};

template <class T>
__device__ __forceinline__ T lowest() {
  return -static_cast<T>(__builtin_inff());
}

}  // namespace
}  // namespace costate::cuda
