// Scaled dot-product attention: the scores of a row are computed, used and forgotten; the sweep computes them again from
// the logarithm of their sum (Dao et al., FlashAttention, 2022). A task is one head of one sample.
#include <costate/tensor/parallel.h>
#include <costate/tensor/scalar.h>

#include "scratch.h"
#include "table.h"

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

template <class T>
struct Head {
  std::int64_t row_out, keys, queries, width;
  T scale;
  std::int64_t at_q, at_k, at_v, at_out, at_sum;  // offsets of this head

  Head(const AttentionCall& call, std::int64_t task)
      : row_out(call.heads * call.width), keys(call.keys), queries(call.queries), width(call.width),
        scale(T(1) / scalar::sqrt(static_cast<T>(call.width))) {
    const std::int64_t sample = task / call.heads, first = task % call.heads * width;
    at_q = sample * queries * call.row_q + first;
    at_k = sample * keys * call.row_k + first;
    at_v = sample * keys * call.row_v + first;
    at_out = sample * queries * row_out + first;
    at_sum = task * queries;
  }
};

template <class T>
void forward(const AttentionCall& call, const Head<T>& h, T* out, T* log_sum_exp) {
  const T* const q = static_cast<const T*>(call.q) + h.at_q;
  const T* const k = static_cast<const T*>(call.k) + h.at_k;
  const T* const v = static_cast<const T*>(call.v) + h.at_v;
  static thread_local Scratch scratch;
  T* const p = scratch.get<T>(h.keys);
  for (std::int64_t i = 0; i < h.queries; ++i) {
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
void backward(const AttentionCall& call, const Head<T>& h, const T* out, const T* log_sum_exp, const T* cotangent, T* dq, T* dk,
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

template <class Body>
void each_head(const AttentionCall& call, const Body& body) {
  const auto typed = [&](auto zero) {
    using T = decltype(zero);
    const auto one = [&](std::int64_t task) { body(Head<T>(call, task), zero); };
    if (call.n * call.heads * call.queries * call.keys * call.width < (1 << 18))
      for (std::int64_t task = 0; task < call.n * call.heads; ++task) one(task);
    else parallel(call.n * call.heads, one);
  };
  if (call.dtype == DType::f32) typed(0.f);
  else typed(0.0);
}

}  // namespace

void attention(const AttentionCall& call, void* out, void* log_sum_exp) {
  each_head(call, [&](const auto& head, auto zero) {
    using T = decltype(zero);
    forward<T>(call, head, static_cast<T*>(out), static_cast<T*>(log_sum_exp));
  });
}

void attention_vjp(const AttentionCall& call, const void* out, const void* log_sum_exp, const void* cotangent, void* dq,
                   void* dk, void* dv) {
  each_head(call, [&](const auto& head, auto zero) {
    using T = decltype(zero);
    backward<T>(call, head, static_cast<const T*>(out), static_cast<const T*>(log_sum_exp), static_cast<const T*>(cotangent),
                dq ? static_cast<T*>(dq) + head.at_q : nullptr, dk ? static_cast<T*>(dk) + head.at_k : nullptr,
                dv ? static_cast<T*>(dv) + head.at_v : nullptr);
  });
}

}  // namespace costate::cpu::COSTATE_ISA
