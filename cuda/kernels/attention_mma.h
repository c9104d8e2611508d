// Attention of bf16 heads of up to 128 elements on tensor cores (Dao, FlashAttention-2, 2023): the algorithm of attention.cu
// with products of bf16 that are added in f32 (attention_panel.h).
//
// Scores, softmax and all sums are f32. Rounded to bf16 are what the next product multiplies: the probabilities, before they
// are divided by their sum, and in the sweep ds = p (<g, v> - <g, out>), the cotangent of a score before its scale. Every term
// of out, dq, dk and dv errs by a factor 1 + e, |e| <= 2^-8, for that; the sum that divides, and so log_sum_exp, is of the
// numbers that were not rounded. Exponentials are powers of 2 of scores times log2(e), by the device's approximation, 2^-22.
#pragma once
#include "attention_panel.h"

namespace costate::cuda {
namespace {

constexpr float log2_e = 1.44269504f;
constexpr int swept = 32;  // columns at a time of the sweep's kernels, whose scores are two tiles: what registers hold

// How many blocks a multiprocessor is to have at once: the compiler's limit of registers, 65536 of all threads together.
template <int S>
constexpr int forward_blocks = S <= 2 ? 4 : S <= 5 ? 3 : 2;
template <int S>
constexpr int dq_blocks = S <= 2 ? 4 : S <= 4 ? 3 : 2;
template <int S>
constexpr int dkv_blocks = S <= 2 ? 4 : 2;

// Where a head of a sample begins: in q, k and v, in the result and its cotangent, and in what has one number a query.
struct OfHead {
  std::int64_t head, sample, number, q, k, v, out;

  __device__ __forceinline__ explicit OfHead(const Attention<Bf16>& c)
      : head(blockIdx.y),
        sample(blockIdx.z),
        number((sample * c.heads + head) * c.queries),
        q(sample * c.queries * c.row_q + head * c.width),
        k(sample * c.keys * c.row_k + head * c.width),
        v(sample * c.keys * c.row_v + head * c.width),
        out(sample * c.queries * c.row_out() + head * c.width) {}
};

// Scores of the lane's rows become probabilities but for their common factor; what was summed up shrinks as the maximum grows.
// left: how many columns there are.
template <int N, int M>
__device__ __forceinline__ void soften(float scale, int left, MatrixC (&s)[N], float (&top)[2], float (&mass)[2],
                                       MatrixC (&sum)[M]) {
  if (left < 8 * N) {
    const int there = left - Lane().column;
    COSTATE_UNROLL
    for (int n = 0; n < N; ++n) COSTATE_UNROLL
    for (int e = 0; e < 4; ++e)
      if (8 * n + e % 2 >= there) s[n].at[e] = lowest<float>();
  }
  COSTATE_UNROLL
  for (int h = 0; h < 2; ++h) {
    float largest = top[h];  // a NaN is no maximum, and comes through the sum
    COSTATE_UNROLL
    for (int n = 0; n < N; ++n) largest = fmaxf(largest, fmaxf(s[n].at[2 * h], s[n].at[2 * h + 1]));
    largest = of_lanes(largest, [](float a, float b) { return fmaxf(a, b); });
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
__global__ void __launch_bounds__(panel_threads, forward_blocks<S>)
    attention_forward_mma(Attention<Bf16> c, bool vectors, Bf16* out, float* log_sum_exp) {
  using P = Panel<S>;
  COSTATE_DYNAMIC_SHARED(Bf16, tiles);
  const OfHead at(c);
  const Lane lane;
  const int width = static_cast<int>(c.width), row_q = static_cast<int>(c.row_q), row_k = static_cast<int>(c.row_k),
            row_v = static_cast<int>(c.row_v), row_out = static_cast<int>(c.row_out()), queries = static_cast<int>(c.queries),
            keys = static_cast<int>(c.keys);
  const int q0 = static_cast<int>(blockIdx.x) * panel_rows;
  const int owned = rows_left(queries, q0);
  const Passing<S, false> passing{c.k + at.k, c.v + at.v, row_k, row_v, keys, width, vectors, tiles};
  Owned<S, true> q;
  float top[2] = {lowest<float>(), lowest<float>()}, mass[2] = {};
  typename P::Sums sum = {};
  passing.each([&](Bf16* tile, Bf16*) { P::fetch(c.q + at.q + std::int64_t{q0} * row_q, row_q, owned, width, vectors, tile); },
               [&](const Bf16* tile, const Bf16*) { q.take(tile, lane.warp_row); }, [](int, int, int) {},
               [&](int left, int stage) {
                 MatrixC s[panel_rows / 8] = {};
                 P::multiply(q, passing.tile_a(stage), s);
                 soften(c.scale * log2_e, left, s, top, mass, sum);
                 P::weigh(s, passing.tile_b(stage), sum);
               });
  float factor[2];
  COSTATE_UNROLL
  for (int h = 0; h < 2; ++h) {
    mass[h] = of_lanes(mass[h], Add{}), factor[h] = 1.0f / mass[h];
    const int r = lane.row + 8 * h;
    if (log_sum_exp && lane.column == 0 && r < owned) log_sum_exp[at.number + q0 + r] = c.scale * top[h] + scalar::log(mass[h]);
  }
  P::store(sum, factor, row_out, owned, width, vectors, out + at.out + std::int64_t{q0} * row_out);
}

// log: the log of the sum of a query's exponentials; slope: <out, cotangent> of a query.
template <int S>
__global__ void __launch_bounds__(panel_threads, dq_blocks<S>)
    attention_dq_mma(Attention<Bf16> c, bool vectors, const float* log_sum_exp, const float* inner, const Bf16* cotangent,
                     Bf16* dq) {
  using P = Panel<S>;
  COSTATE_DYNAMIC_SHARED(Bf16, tiles);
  const OfHead at(c);
  const Lane lane;
  const int width = static_cast<int>(c.width), row_q = static_cast<int>(c.row_q), row_k = static_cast<int>(c.row_k),
            row_v = static_cast<int>(c.row_v), row_out = static_cast<int>(c.row_out()), queries = static_cast<int>(c.queries),
            keys = static_cast<int>(c.keys);
  const int q0 = static_cast<int>(blockIdx.x) * panel_rows;
  const int owned = rows_left(queries, q0);
  const Passing<S, false> passing{c.k + at.k, c.v + at.v, row_k, row_v, keys, width, vectors, tiles};
  const float scale = c.scale * log2_e;
  float log[2] = {}, slope[2] = {};
  COSTATE_UNROLL
  for (int h = 0; h < 2; ++h)
    if (const int r = lane.row + 8 * h; r < owned)
      log[h] = log_sum_exp[at.number + q0 + r] * log2_e, slope[h] = inner[at.number + q0 + r];
  Owned<S, true> q, g;
  typename P::Sums sum = {};
  passing.each(
      [&](Bf16* of_q, Bf16* of_g) {
        P::fetch(c.q + at.q + std::int64_t{q0} * row_q, row_q, owned, width, vectors, of_q);
        P::fetch(cotangent + at.out + std::int64_t{q0} * row_out, row_out, owned, width, vectors, of_g);
      },
      [&](const Bf16* of_q, const Bf16* of_g) { q.take(of_q, lane.warp_row), g.take(of_g, lane.warp_row); },
      [](int, int, int) {},
      [&](int left, int stage) {
        COSTATE_ROLLED
        for (int j0 = 0; j0 < panel_rows; j0 += swept) {
          const Bf16* const k = passing.tile_a(stage) + j0 * P::row;
          MatrixC p[swept / 8] = {}, ds[swept / 8] = {};
          P::multiply(q, k, p);
          P::multiply(g, passing.tile_b(stage) + j0 * P::row, ds);
          const int there = left - j0 - lane.column;
          COSTATE_UNROLL
          for (int n = 0; n < swept / 8; ++n) COSTATE_UNROLL
          for (int e = 0; e < 4; ++e) {
            const float weight = exp2_approximate(scale * p[n].at[e] - log[e / 2]);
            ds[n].at[e] = 8 * n + e % 2 < there ? weight * (ds[n].at[e] - slope[e / 2]) : 0.0f;
          }
          P::weigh(ds, k, sum);
        }
      });
  const float factor[2] = {c.scale, c.scale};
  P::store(sum, factor, row_q, owned, width, vectors, dq + at.q + std::int64_t{q0} * row_q);
}

// Keys and values that a block owns stay in registers while these suffice, else in shared memory.
template <int S>
constexpr bool dkv_in_registers = S <= 4;

// Rows are keys here, and columns queries. Queries beyond the end are zeros, and so is what they add.
template <int S>
__global__ void __launch_bounds__(panel_threads, dkv_blocks<S>)
    attention_dkv_mma(Attention<Bf16> c, bool vectors, const float* log_sum_exp, const float* inner, const Bf16* cotangent,
                      Bf16* dk, Bf16* dv) {
  using P = Panel<S>;
  COSTATE_DYNAMIC_SHARED(Bf16, tiles);
  COSTATE_SHARED(float, log, [2 * panel_rows]);  // of two stages
  COSTATE_SHARED(float, slope, [2 * panel_rows]);
  const OfHead at(c);
  const Lane lane;
  const int width = static_cast<int>(c.width), row_q = static_cast<int>(c.row_q), row_k = static_cast<int>(c.row_k),
            row_v = static_cast<int>(c.row_v), row_out = static_cast<int>(c.row_out()), queries = static_cast<int>(c.queries),
            keys = static_cast<int>(c.keys);
  const int k0 = static_cast<int>(blockIdx.x) * panel_rows;
  const int owned = rows_left(keys, k0);
  const Passing<S, !dkv_in_registers<S>> passing{c.q + at.q, cotangent + at.out, row_q, row_out, queries, width, vectors,
                                                 tiles};
  const float scale = c.scale * log2_e;
  Owned<S, dkv_in_registers<S>> k, v;
  typename P::Sums sum_k = {}, sum_v = {};
  passing.each(
      [&](Bf16* of_k, Bf16* of_v) {
        P::fetch(c.k + at.k + std::int64_t{k0} * row_k, row_k, owned, width, vectors, of_k);
        P::fetch(c.v + at.v + std::int64_t{k0} * row_v, row_v, owned, width, vectors, of_v);
      },
      [&](const Bf16* of_k, const Bf16* of_v) { k.take(of_k, lane.warp_row), v.take(of_v, lane.warp_row); },
      [&](int q0, int left, int stage) {
        if (const int r = static_cast<int>(threadIdx.x); r < panel_rows) {
          const std::int64_t from = at.number + q0 + r;
          begin_copy<4>(log_sum_exp + from, log + stage * panel_rows + r, r < left);
          begin_copy<4>(inner + from, slope + stage * panel_rows + r, r < left);
        }
      },
      [&](int, int stage) {
        COSTATE_ROLLED
        for (int j0 = 0; j0 < panel_rows; j0 += swept) {
          const Bf16 *const q = passing.tile_a(stage) + j0 * P::row, *const g = passing.tile_b(stage) + j0 * P::row;
          MatrixC p[swept / 8] = {}, ds[swept / 8] = {};
          P::multiply(k, q, p);
          P::multiply(v, g, ds);
          COSTATE_UNROLL
          for (int n = 0; n < swept / 8; ++n) COSTATE_UNROLL
          for (int e = 0; e < 4; ++e) {
            const int column = stage * panel_rows + j0 + 8 * n + lane.column + e % 2;
            p[n].at[e] = exp2_approximate(scale * p[n].at[e] - log2_e * log[column]);
            ds[n].at[e] = p[n].at[e] * (ds[n].at[e] - slope[column]);
          }
          P::weigh(p, g, sum_v);
          P::weigh(ds, q, sum_k);
        }
      });
  const float factor_k[2] = {c.scale, c.scale}, factor_v[2] = {1, 1};
  if (dk) P::store(sum_k, factor_k, row_k, owned, width, vectors, dk + at.k + std::int64_t{k0} * row_k);
  if (dv) P::store(sum_v, factor_v, row_v, owned, width, vectors, dv + at.v + std::int64_t{k0} * row_v);
}

}  // namespace
}  // namespace costate::cuda
