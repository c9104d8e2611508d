// Scaled dot-product attention: the scores of a few rows are computed, used and forgotten; the sweep computes them again
// from the logarithm of their sum (Dao et al., FlashAttention, 2022). Rows of the result are independent of each other.
#include <costate/tensor/parallel.h>

#include "attention_plain.h"
#include "table.h"
#if defined(__AVX2__) && defined(__FMA__)
#include "attention_tiles.h"
#endif

namespace costate::cpu::COSTATE_ISA {
namespace {

// body(task, 0.f or 0.0), by all threads when there is enough to do.
template <class Body>
void tasks(const AttentionCall& call, std::int64_t count, const Body& body) {
  const auto typed = [&](auto zero) {
    const auto one = [&](std::int64_t task) { body(task, zero); };
    if (call.n * call.heads * call.queries * call.keys * call.width < (1 << 19))
      for (std::int64_t task = 0; task < count; ++task) one(task);
    else parallel(count, one);
  };
  if (call.dtype == DType::f32) typed(0.f);
  else typed(0.0);
}

}  // namespace

void attention(const AttentionCall& call, void* out, void* log_sum_exp) {
  // A few large heads are cut into runs of queries.
  const std::int64_t heads = call.n * call.heads, runs = heads < 8 ? (call.queries + 127) / 128 : 1;
  tasks(call, heads * runs, [&](std::int64_t task, auto zero) {
    using T = decltype(zero);
    const std::int64_t run = task % runs;
    attend<T>(call, Head<T>(call, task / runs), call.queries * run / runs, call.queries * (run + 1) / runs,
              static_cast<T*>(out), static_cast<T*>(log_sum_exp));
  });
}

void attention_vjp(const AttentionCall& call, const void* out, const void* log_sum_exp, const void* cotangent, void* dq,
                   void* dk, void* dv) {
  tasks(call, call.n * call.heads, [&](std::int64_t task, auto zero) {
    using T = decltype(zero);
    const Head<T> head(call, task);
    attend_vjp<T>(call, head, static_cast<const T*>(out), static_cast<const T*>(log_sum_exp),
                  static_cast<const T*>(cotangent), dq ? static_cast<T*>(dq) + head.at_q : nullptr,
                  dk ? static_cast<T*>(dk) + head.at_k : nullptr, dv ? static_cast<T*>(dv) + head.at_v : nullptr);
  });
}

}  // namespace costate::cpu::COSTATE_ISA
