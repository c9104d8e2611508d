// What the kernels of attention are given, and who takes which.
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

// Tiles of `rows` rows, heads, samples.
inline dim3 attention_grid(const AttentionCall& call, std::int64_t rows, int tile) {
  constexpr std::int64_t most = 65535;  // of the second and third extent of a grid
  if (call.heads > most || call.n > most)
    fail(Fault::argument, "attention: " + std::to_string(call.n) + " samples of " + std::to_string(call.heads) +
                              " heads are more than one launch can take");
  return dim3(static_cast<unsigned>((rows + tile - 1) / tile), static_cast<unsigned>(call.heads),
              static_cast<unsigned>(call.n));
}

}  // namespace

// attention_mma.cu; false, and nothing is done, for calls that they do not take. inner: <out, cotangent> of every query.
bool attention_on_tensor_cores(const AttentionCall& call, void* out, float* log_sum_exp);
bool attention_vjp_on_tensor_cores(const AttentionCall& call, const float* log_sum_exp, const float* inner,
                                   const void* cotangent, void* dq, void* dk, void* dv);

}  // namespace costate::cuda
