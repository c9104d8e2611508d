// Attention of bf16 heads of up to 128 elements on tensor cores (Dao, FlashAttention-2, 2023): the algorithm of attention.cu
// with products of bf16 that are added in f32 (attention_panel.h).
//
// Scores, softmax and all sums are f32. Rounded to bf16 are what the next product multiplies: the probabilities, before they are
// divided by their sum, and in the sweep ds = p (<g, v> - <g, out>), the cotangent of a score before its scale. Every term of
// out, dq, dk and dv errs by a factor 1 + e, |e| <= 2^-8, for that; the sum that divides, and so log_sum_exp, is of the numbers
// that were not rounded. Exponentials are powers of 2 of scores times log2(e), by the device's approximation, 2^-22.
#pragma once
#include "attention_panel.h"

namespace costate::cuda {
namespace {

constexpr float log2_e = 1.44269504f;
constexpr int swept = 32;  // columns at a time of the sweep's kernels, whose scores are two tiles: what registers hold

__device__ __forceinline__ float infinite() { return -lowest<float>(); }

// p = 2^(scale s - log of the row), the score s beside.
template <int S>
constexpr std::size_t forward_mma_bytes() {
  return 2 * Panel<S>::size * sizeof(Bf16);
}

// Scores of the lane's rows become probabilities but for their common factor; what was summed up shrinks as the maximum grows.
// left: how many columns there are.
template <int N, int M>
__device__ __forceinline__ void soften(float scale, std::int64_t left, MatrixC (&s)[N], float (&top)[2], float (&mass)[2],
                                       MatrixC (&sum)[M]) {
  if (left < 8 * N) {
    const int column = Lane().column;
    COSTATE_UNROLL
    for (int n = 0; n < N; ++n) COSTATE_UNROLL
    for (int e = 0; e < 4; ++e)
      if (8 * n + column + e % 2 >= left) s[n].at[e] = lowest<float>();
  }
  COSTATE_UNROLL
  for (int h = 0; h < 2; ++h) {
    float largest = top[h];
    COSTATE_UNROLL
    for (int n = 0; n < N; ++n) largest = Larger{}(Larger{}(largest, s[n].at[2 * h]), s[n].at[2 * h + 1]);
    largest = of_lanes(largest, Larger{});
    const float shrink = exp2_approximate(scale * (top[h] - largest)), low = scale * largest;
    float added = 0;
    COSTATE_UNROLL
    for (int n = 0; n < N; ++n) COSTATE_UNROLL
    for (int e = 2 * h; e < 2 * h + 2; ++e) s[n].at[e] = exp2_approximate(scale * s[n].at[e] - low), added += s[n].at[e];
    top[h] = largest, mass[h] = mass[h] * shrink + added;
    COSTATE_UNROLL
    for (int n = 0; n < M; ++n) sum[n].at[2 * h] *= shrink, sum[n].at[2 * h + 1] *= shrink;
  }
}

// grid: tiles of queries, heads, samples.
template <int S>
__global__ void __launch_bounds__(panel_threads)
    attention_forward_mma(Attention<Bf16> c, bool vectors, Bf16* out, float* log_sum_exp) {
  using P = Panel<S>;
  COSTATE_DYNAMIC_SHARED(Bf16, k);
  Bf16* const v = k + P::size;
  const int width = static_cast<int>(c.width);
  const std::int64_t sample = blockIdx.z, head = blockIdx.y, q0 = static_cast<std::int64_t>(blockIdx.x) * panel_rows;
  const Bf16 *const keys = c.k + sample * c.keys * c.row_k + head * width,
             *const values = c.v + sample * c.keys * c.row_v + head * width;
  const Lane at;
  typename P::Left q;
  P::load(c.q + sample * c.queries * c.row_q + head * width, c.row_q, q0, c.queries, width, vectors, k);
  __syncthreads();
  P::left(k, at.warp_row, q);
  float top[2] = {lowest<float>(), lowest<float>()}, mass[2] = {};
  typename P::Sums sum = {};
  for (std::int64_t k0 = 0; k0 < c.keys; k0 += panel_rows) {
    __syncthreads();  // what is in the tiles has been read
    P::load(keys, c.row_k, k0, c.keys, width, vectors, k);
    P::load(values, c.row_v, k0, c.keys, width, vectors, v);
    __syncthreads();
    MatrixC s[panel_rows / 8] = {};
    P::multiply([&](int step) { return q[step]; }, k, s);
    soften(c.scale * log2_e, c.keys - k0, s, top, mass, sum);
    P::weigh(s, v, sum);
  }
  float factor[2];
  COSTATE_UNROLL
  for (int h = 0; h < 2; ++h) {
    mass[h] = of_lanes(mass[h], Add{}), factor[h] = 1.0f / mass[h];
    const std::int64_t r = q0 + at.row + 8 * h;
    if (log_sum_exp && at.column == 0 && r < c.queries)
      log_sum_exp[(sample * c.heads + head) * c.queries + r] = c.scale * top[h] + scalar::log(mass[h]);
  }
  P::store(sum, factor, c.row_out(), q0, c.queries, width, vectors, out + sample * c.queries * c.row_out() + head * width);
}

template <int S>
constexpr std::size_t dq_mma_bytes() {
  return 2 * Panel<S>::size * sizeof(Bf16);
}

// log: of the sums of a query's exponentials, times log2(e), and infinite for rows that do not exist, whose probabilities are 0
// for that; slope: <out, cotangent> of a query.
template <int S>
__global__ void __launch_bounds__(panel_threads) attention_dq_mma(Attention<Bf16> c, bool vectors, const float* log_sum_exp,
                                                                  const float* inner, const Bf16* cotangent, Bf16* dq) {
  using P = Panel<S>;
  COSTATE_DYNAMIC_SHARED(Bf16, k);
  Bf16* const v = k + P::size;
  const int width = static_cast<int>(c.width);
  const std::int64_t sample = blockIdx.z, head = blockIdx.y, q0 = static_cast<std::int64_t>(blockIdx.x) * panel_rows,
                     at_row = (sample * c.heads + head) * c.queries;
  const Bf16 *const keys = c.k + sample * c.keys * c.row_k + head * width,
             *const values = c.v + sample * c.keys * c.row_v + head * width;
  const Lane at;
  typename P::Left q, g;
  P::load(c.q + sample * c.queries * c.row_q + head * width, c.row_q, q0, c.queries, width, vectors, k);
  P::load(cotangent + sample * c.queries * c.row_out() + head * width, c.row_out(), q0, c.queries, width, vectors, v);
  __syncthreads();
  P::left(k, at.warp_row, q);
  P::left(v, at.warp_row, g);
  const float scale = c.scale * log2_e;
  float log[2], slope[2];
  COSTATE_UNROLL
  for (int h = 0; h < 2; ++h) {
    const std::int64_t r = q0 + at.row + 8 * h;
    log[h] = r < c.queries ? log_sum_exp[at_row + r] * log2_e : infinite();
    slope[h] = r < c.queries ? inner[at_row + r] : 0.0f;
  }
  typename P::Sums sum = {};
  for (std::int64_t k0 = 0; k0 < c.keys; k0 += panel_rows) {
    __syncthreads();
    P::load(keys, c.row_k, k0, c.keys, width, vectors, k);
    P::load(values, c.row_v, k0, c.keys, width, vectors, v);
    __syncthreads();
    for (int j0 = 0; j0 < panel_rows; j0 += swept) {
      MatrixC p[swept / 8] = {}, ds[swept / 8] = {};
      P::multiply([&](int step) { return q[step]; }, k + j0 * P::row, p);
      P::multiply([&](int step) { return g[step]; }, v + j0 * P::row, ds);
      const std::int64_t left = c.keys - k0 - j0;
      COSTATE_UNROLL
      for (int n = 0; n < swept / 8; ++n) COSTATE_UNROLL
      for (int e = 0; e < 4; ++e) {
        const float weight = exp2_approximate(scale * p[n].at[e] - log[e / 2]);
        ds[n].at[e] = 8 * n + at.column + e % 2 < left ? weight * (ds[n].at[e] - slope[e / 2]) : 0.0f;
      }
      P::weigh(ds, k + j0 * P::row, sum);
    }
  }
  const float factor[2] = {c.scale, c.scale};
  P::store(sum, factor, c.row_q, q0, c.queries, width, vectors, dq + sample * c.queries * c.row_q + head * width);
}

// Keys and values that a block owns stay in registers while these suffice, else in shared memory.
template <int S>
constexpr bool owned_in_registers = S <= 5;
template <int S>
constexpr std::size_t dkv_mma_bytes() {
  return (owned_in_registers<S> ? 2 : 4) * Panel<S>::size * sizeof(Bf16);
}

// Rows are keys here, and columns queries.
template <int S>
__global__ void __launch_bounds__(panel_threads)
    attention_dkv_mma(Attention<Bf16> c, bool vectors, const float* log_sum_exp, const float* inner, const Bf16* cotangent,
                      Bf16* dk, Bf16* dv) {
  using P = Panel<S>;
  COSTATE_DYNAMIC_SHARED(Bf16, q);
  COSTATE_SHARED(float, log, [panel_rows]);
  COSTATE_SHARED(float, slope, [panel_rows]);
  Bf16 *const g = q + P::size, *const k = owned_in_registers<S> ? q : g + P::size, *const v = k + P::size;
  const int width = static_cast<int>(c.width);
  const std::int64_t sample = blockIdx.z, head = blockIdx.y, k0 = static_cast<std::int64_t>(blockIdx.x) * panel_rows,
                     at_row = (sample * c.heads + head) * c.queries;
  const Bf16 *const queries = c.q + sample * c.queries * c.row_q + head * width,
             *const cotangents = cotangent + sample * c.queries * c.row_out() + head * width;
  const Lane at;
  P::load(c.k + sample * c.keys * c.row_k + head * width, c.row_k, k0, c.keys, width, vectors, k);
  P::load(c.v + sample * c.keys * c.row_v + head * width, c.row_v, k0, c.keys, width, vectors, v);
  __syncthreads();
  typename P::Left own_k, own_v;
  if constexpr (owned_in_registers<S>) P::left(k, at.warp_row, own_k), P::left(v, at.warp_row, own_v);
  const auto of_k = [&](int step) {
    if constexpr (owned_in_registers<S>)
      return own_k[step];
    else
      return P::left(k, at.warp_row, step);
  };
  const auto of_v = [&](int step) {
    if constexpr (owned_in_registers<S>)
      return own_v[step];
    else
      return P::left(v, at.warp_row, step);
  };
  const float scale = c.scale * log2_e;
  typename P::Sums sum_k = {}, sum_v = {};
  for (std::int64_t q0 = 0; q0 < c.queries; q0 += panel_rows) {
    __syncthreads();
    P::load(queries, c.row_q, q0, c.queries, width, vectors, q);
    P::load(cotangents, c.row_out(), q0, c.queries, width, vectors, g);
    if (const int r = static_cast<int>(threadIdx.x); r < panel_rows) {
      const bool there = q0 + r < c.queries;
      log[r] = there ? log_sum_exp[at_row + q0 + r] * log2_e : infinite(), slope[r] = there ? inner[at_row + q0 + r] : 0.0f;
    }
    __syncthreads();
    for (int j0 = 0; j0 < panel_rows; j0 += swept) {
      MatrixC p[swept / 8] = {}, ds[swept / 8] = {};
      P::multiply(of_k, q + j0 * P::row, p);
      P::multiply(of_v, g + j0 * P::row, ds);
      COSTATE_UNROLL
      for (int n = 0; n < swept / 8; ++n) COSTATE_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int column = j0 + 8 * n + at.column + e % 2;
        p[n].at[e] = exp2_approximate(scale * p[n].at[e] - log[column]);
        ds[n].at[e] = p[n].at[e] * (ds[n].at[e] - slope[column]);
      }
      P::weigh(p, g + j0 * P::row, sum_v);
      P::weigh(ds, q + j0 * P::row, sum_k);
    }
  }
  const float factor_k[2] = {c.scale, c.scale}, factor_v[2] = {1, 1};
  if (dk)
    P::store(sum_k, factor_k, c.row_k, k0, c.keys, width, vectors, dk + sample * c.keys * c.row_k + head * width);
  if (dv)
    P::store(sum_v, factor_v, c.row_v, k0, c.keys, width, vectors, dv + sample * c.keys * c.row_v + head * width);
}

}  // namespace
}  // namespace costate::cuda
