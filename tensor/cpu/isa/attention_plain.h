// Attention by its definition, a row of scores at a time: for f64, and for instruction sets without the tiles of
// gemm_tile.h.
#pragma once
#include "attention_head.h"
#include "scratch.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

template <class T>
T dot(std::int64_t n, const T* a, const T* b) {
  constexpr int lanes = 8;
  T part[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int l = 0; l < lanes; ++l) part[l] += a[i + l] * b[i + l];
  for (int l = 0; i < n; ++i, ++l) part[l] += a[i] * b[i];
  return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}
template <class T>
void add_scaled(std::int64_t n, T factor, const T* __restrict x, T* __restrict sum) {
  for (std::int64_t i = 0; i < n; ++i) sum[i] += factor * x[i];
}

// Queries begin .. end of a head.
template <class T>
void attend(const AttentionCall& call, const Head<T>& h, std::int64_t begin, std::int64_t end, T* out, T* log_sum_exp) {
  const T* const q = static_cast<const T*>(call.q) + h.at_q;
  const T* const k = static_cast<const T*>(call.k) + h.at_k;
  const T* const v = static_cast<const T*>(call.v) + h.at_v;
  static thread_local Scratch scratch;
  T* const p = scratch.get<T>(h.keys);
  for (std::int64_t i = begin; i < end; ++i) {
    T top = -__builtin_inff(), sum = T(0);
    for (std::int64_t j = 0; j < h.keys; ++j) {
      p[j] = h.scale * dot(h.width, q + i * call.row_q, k + j * call.row_k);
      top = p[j] > top ? p[j] : top;
    }
    for (std::int64_t j = 0; j < h.keys; ++j) p[j] = scalar::exp(p[j] - top), sum += p[j];
    T* const y = out + h.at_out + i * h.row_out;
    for (std::int64_t c = 0; c < h.width; ++c) y[c] = T(0);
    for (std::int64_t j = 0; j < h.keys; ++j) add_scaled(h.width, p[j] / sum, v + j * call.row_v, y);
    if (log_sum_exp) log_sum_exp[h.at_sum + i] = top + scalar::log(sum);
  }
}

// With p = exp(score - log_sum_exp) and D = <g, out>: dv_j = sum p g_i, ds = p (<g_i, v_j> - D) scale, dq_i = sum ds k_j,
// dk_j = sum ds q_i.
template <class T>
void attend_vjp(const AttentionCall& call, const Head<T>& h, const T* out, const T* log_sum_exp, const T* cotangent, T* dq, T* dk,
                T* dv) {
  const T* const q = static_cast<const T*>(call.q) + h.at_q;
  const T* const k = static_cast<const T*>(call.k) + h.at_k;
  const T* const v = static_cast<const T*>(call.v) + h.at_v;
  const auto clear = [&](T* rows, std::int64_t n, std::int64_t row) {
    for (std::int64_t i = 0; rows && i < n; ++i)
      for (std::int64_t c = 0; c < h.width; ++c) rows[i * row + c] = T(0);
  };
  clear(dq, h.queries, call.row_q), clear(dk, h.keys, call.row_k), clear(dv, h.keys, call.row_v);
  for (std::int64_t i = 0; i < h.queries; ++i) {
    const T* const qi = q + i * call.row_q;
    const T* const gi = cotangent + h.at_out + i * h.row_out;
    const T along = dot(h.width, gi, out + h.at_out + i * h.row_out);
    for (std::int64_t j = 0; j < h.keys; ++j) {
      const T p = scalar::exp(h.scale * dot(h.width, qi, k + j * call.row_k) - log_sum_exp[h.at_sum + i]);
      if (dv) add_scaled(h.width, p, gi, dv + j * call.row_v);
      if (!dq && !dk) continue;
      const T ds = p * (dot(h.width, gi, v + j * call.row_v) - along) * h.scale;
      if (dq) add_scaled(h.width, ds, k + j * call.row_k, dq + i * call.row_q);
      if (dk) add_scaled(h.width, ds, qi, dk + j * call.row_k);
    }
  }
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
