// The kernels of attention on tensor cores, one for each width in shared memory, and which calls they take.
#include <algorithm>

#include "attention_mma.h"

namespace costate::cuda {
namespace {

// body(Panel<...>) for the bf16 heads that these kernels take: the narrowest rows that a head fits into.
template <class Body>
bool with_panel(const AttentionCall& call, const Body& body) {
  constexpr std::int64_t farthest = std::int64_t{1} << 24, most = std::int64_t{1} << 30;  // 64 rows are in reach of an int
  if (call.dtype != DType::bf16 || call.width > 128 || std::max(call.queries, call.keys) > most ||
      std::max({call.row_q, call.row_k, call.row_v, call.heads * call.width}) > farthest)
    return false;
  if (call.width <= 16)
    body(Panel<1>{});
  else if (call.width <= 32)
    body(Panel<2>{});
  else if (call.width <= 64)
    body(Panel<4>{});
  else if (call.width <= 80)
    body(Panel<5>{});
  else if (call.width <= 96)
    body(Panel<6>{});
  else
    body(Panel<8>{});
  return true;
}

// Whether all rows of all heads begin at multiples of 16 bytes and end there.
bool in_vectors(const AttentionCall& call, std::initializer_list<const void*> others) {
  const auto whole = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  return (call.width | call.row_q | call.row_k | call.row_v) % 8 == 0 && whole(call.q) && whole(call.k) && whole(call.v) &&
         std::all_of(others.begin(), others.end(), whole);
}

}  // namespace

bool attention_on_tensor_cores(const AttentionCall& call, void* out, float* log_sum_exp) {
  return with_panel(call, [&]<int S>(Panel<S>) {
    launch("attention", attention_forward_mma<S>, attention_grid(call, call.queries, panel_rows), dim3(panel_threads),
           Passing<S, false>::bytes, Attention<Bf16>(call), in_vectors(call, {out}), static_cast<Bf16*>(out), log_sum_exp);
  });
}

bool attention_vjp_on_tensor_cores(const AttentionCall& call, const float* log_sum_exp, const float* inner,
                                   const void* cotangent, void* dq, void* dk, void* dv) {
  return with_panel(call, [&]<int S>(Panel<S>) {
    const Attention<Bf16> c(call);
    const auto* const g = static_cast<const Bf16*>(cotangent);
    const bool vectors = in_vectors(call, {cotangent, dq, dk, dv});
    if (dq)
      launch("attention dq", attention_dq_mma<S>, attention_grid(call, call.queries, panel_rows), dim3(panel_threads),
             Passing<S, false>::bytes, c, vectors, log_sum_exp, inner, g, static_cast<Bf16*>(dq));
    if (dk || dv)
      launch("attention dk, dv", attention_dkv_mma<S>, attention_grid(call, call.keys, panel_rows), dim3(panel_threads),
             Passing<S, !dkv_in_registers<S>>::bytes, c, vectors, log_sum_exp, inner, g, static_cast<Bf16*>(dk),
             static_cast<Bf16*>(dv));
  });
}

}  // namespace costate::cuda
