// Attention in f32 on the tiles of the matrix product: specialisations of attention_plain.h. All keys and values of a head
// are packed once; then a block of queries at a time, whose scores stay in the second-level cache.
#pragma once
#include "attention_plain.h"
#include "gemm_pack.h"
#include "gemm_tile.h"
#include "vector_math.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

// A matrix (k rows, `columns`) in panels of tile_columns columns, each contiguous and filled up with zeros.
struct Panels {
  static constexpr int N = tile_columns<float>, W = lanes<float>;
  const float* data;
  std::int64_t k, columns;

  static std::int64_t size(std::int64_t k, std::int64_t columns) { return ceil_div(columns, N) * N * k; }
  // From rows b (k, columns) with row stride ldb, or, transposed, (columns, k).
  static Panels pack(bool transposed, const float* b, std::int64_t ldb, std::int64_t k, std::int64_t columns, float* to) {
    for (std::int64_t j = 0; j < columns; j += N)
      pack_panel<float>(transposed, transposed ? b + j * ldb : b + j, ldb, k, static_cast<int>(smaller(N, columns - j)), to + j * k);
    return {to, k, columns};
  }
  // c (rows, columns in whole vectors) = or += a times the rows first .. first + count of this matrix. a: rows with stride lda,
  // or, turned, (count, rows).
  void product(bool turned, std::int64_t rows, const float* a, std::int64_t lda, std::int64_t first, std::int64_t count,
               float* c, std::int64_t ldc, bool accumulate) const {
    TileCall<float> call;
    call.k = count, call.lda = lda, call.ldb = N, call.ldc = ldc, call.accumulate = accumulate;
    const std::int64_t blocks = ceil_div(rows, tile_rows);
    for (std::int64_t j = 0; j < columns; j += N) {
      call.b = data + j * k + first * N;
      const int vectors = columns - j > W ? 2 : 1;
      for (std::int64_t block = 0; block < blocks; ++block) {
        const std::int64_t i = rows * block / blocks, end = rows * (block + 1) / blocks;  // of even size
        call.a = turned ? a + i : a + i * lda;
        call.c = c + i * ldc + j;
        choose_tile<float>(static_cast<int>(end - i), vectors, turned)(call);
      }
    }
  }
};
constexpr std::int64_t whole_vectors(std::int64_t n) { return ceil_div(n, lanes<float>) * lanes<float>; }

COSTATE_INLINE float largest(Vector<float> v) {
#ifdef __AVX512F__
  const __m256 eight = _mm256_max_ps((__m256)__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                                     (__m256)__builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
#else
  const __m256 eight = (__m256)v;
#endif
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
// to = factor from, n elements.
COSTATE_INLINE void put_scaled(std::int64_t n, float factor, const float* from, float* to) {
  constexpr int W = lanes<float>;
  const Vector<float> f = broadcast(factor);
  std::int64_t c = 0;
  for (; c + W <= n; c += W) store(to + c, load(from + c) * f);
  if (c < n) store_first(to + c, static_cast<int>(n - c), load_first(from + c, static_cast<int>(n - c)) * f);
}

// What is added to the last vector of a row of scores, whose lanes behind the last key are 0: there the exponential becomes 0.
COSTATE_INLINE Vector<float> behind(std::int64_t keys) {
  alignas(64) float v[lanes<float>] = {};
  for (std::int64_t j = keys; j < whole_vectors(keys); ++j) v[j % lanes<float>] = -3e38f;
  return load(v);
}
// p = exp(scale s - scale max), in place, over whole vectors. Returns the sum and the maximum.
struct RowSum {
  float sum, top;
};
COSTATE_INLINE RowSum exponentials(float* s, std::int64_t keys, float scale, Vector<float> behind_last) {
  constexpr int W = lanes<float>;
  const std::int64_t padded = whole_vectors(keys);
  if (keys < padded) {
    float* const last = s + padded - W;
    store(last, load_first(last, static_cast<int>(keys - (padded - W))) + behind_last);
  }
  Vector<float> m = load(s);
  for (std::int64_t j = W; j < padded; j += W) m = vec::larger_of(m, load(s + j));
  const float top = largest(m), shift = -scale * top;
  vec::Several<4> sums{};
  in_vectors(padded, [&](std::int64_t j, int count, auto k) __attribute__((always_inline)) {
    constexpr int K = decltype(k)::value;
    const auto x = load_several<K>(s + j), p = vec::exp_below(vec::fma(x, scale, vec::constant_like(x, shift)));
    store_several(s + j, count, p);
    for (int i = 0; i < K; ++i) sums.v[i] += p.v[i];
  });
  return {sum((sums.v[0] + sums.v[1]) + (sums.v[2] + sums.v[3])), top};
}

template <>
void attend<float>(const AttentionCall& call, const Head<float>& h, std::int64_t begin, std::int64_t end, float* out,
                   float* log_sum_exp) {
  const float* const q = static_cast<const float*>(call.q) + h.at_q;
  const std::int64_t ld = whole_vectors(h.keys), ldo = whole_vectors(h.width);
  static thread_local Scratch scratch;
  float* const at_k = scratch.get<float>(Panels::size(h.width, h.keys) + Panels::size(h.keys, h.width) + tile_rows * (ld + ldo));
  float* const at_v = at_k + Panels::size(h.width, h.keys);
  float* const s = at_v + Panels::size(h.keys, h.width);
  float* const y = s + tile_rows * ld;
  const Panels k = Panels::pack(true, static_cast<const float*>(call.k) + h.at_k, call.row_k, h.width, h.keys, at_k);
  const Panels v = Panels::pack(false, static_cast<const float*>(call.v) + h.at_v, call.row_v, h.keys, h.width, at_v);
  const std::int64_t blocks = ceil_div(end - begin, tile_rows);
  const Vector<float> behind_last = behind(h.keys);
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t i0 = begin + (end - begin) * block / blocks, rows = begin + (end - begin) * (block + 1) / blocks - i0;
    k.product(false, rows, q + i0 * call.row_q, call.row_q, 0, h.width, s, ld, false);
    float share[tile_rows];
    for (std::int64_t i = 0; i < rows; ++i) {
      const RowSum row = exponentials(s + i * ld, h.keys, h.scale, behind_last);
      share[i] = 1.0f / row.sum;
      if (log_sum_exp) log_sum_exp[h.at_sum + i0 + i] = h.scale * row.top + scalar::log(row.sum);
    }
    v.product(false, rows, s, ld, 0, h.keys, y, ldo, false);
    for (std::int64_t i = 0; i < rows; ++i) put_scaled(h.width, share[i], y + i * ldo, out + h.at_out + (i0 + i) * h.row_out);
  }
}

template <>
void attend_vjp<float>(const AttentionCall& call, const Head<float>& h, const float* out, const float* log_sum_exp,
                       const float* cotangent, float* dq, float* dk, float* dv) {
  const float* const q = static_cast<const float*>(call.q) + h.at_q;
  const float* const keys = static_cast<const float*>(call.k) + h.at_k;
  const float* const values = static_cast<const float*>(call.v) + h.at_v;
  const float* const g = cotangent + h.at_out;
  const bool scores = dq || dk;
  const std::int64_t ld = whole_vectors(h.keys), ldw = whole_vectors(h.width);
  // Two blocks of scores take at most 256 KiB, unless one tile of them takes more.
  const std::int64_t most = larger(tile_rows, (1 << 15) / ld), blocks = ceil_div(h.queries, most), rows = ceil_div(h.queries, blocks);
  static thread_local Scratch scratch;
  const std::int64_t wide = Panels::size(h.width, h.keys), tall = Panels::size(h.keys, h.width), of_queries = Panels::size(h.queries, h.width);
  float* next = scratch.get<float>(2 * wide + tall + 2 * of_queries + 2 * rows * ld + rows * ldw + 2 * h.keys * ldw);
  const auto take = [&](std::int64_t n) { return next += n, next - n; };
  const Panels k_turned = Panels::pack(true, keys, call.row_k, h.width, h.keys, take(wide));
  const Panels v_turned = scores ? Panels::pack(true, values, call.row_v, h.width, h.keys, take(wide)) : Panels{};
  const Panels k = dq ? Panels::pack(false, keys, call.row_k, h.keys, h.width, take(tall)) : Panels{};
  const Panels q_rows = dk ? Panels::pack(false, q, call.row_q, h.queries, h.width, take(of_queries)) : Panels{};
  const Panels g_rows = dv ? Panels::pack(false, g, h.row_out, h.queries, h.width, take(of_queries)) : Panels{};
  float* const p = take(rows * ld);
  float* const ds = take(rows * ld);
  float* const dq_block = take(rows * ldw);
  float* const dk_sum = take(h.keys * ldw);
  float* const dv_sum = take(h.keys * ldw);
  const auto put = [&](const float* from, std::int64_t count, float* to, std::int64_t row) {
    for (std::int64_t i = 0; i < count; ++i) put_scaled(h.width, 1.0f, from + i * ldw, to + i * row);
  };
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t i0 = h.queries * block / blocks, count = h.queries * (block + 1) / blocks - i0;
    k_turned.product(false, count, q + i0 * call.row_q, call.row_q, 0, h.width, p, ld, false);
    if (scores) v_turned.product(false, count, g + i0 * h.row_out, h.row_out, 0, h.width, ds, ld, false);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t at = (i0 + i) * h.row_out;
      const float shift = -log_sum_exp[h.at_sum + i0 + i], along = scores ? -dot(h.width, g + at, out + h.at_out + at) : 0.0f;
      in_vectors(ld, [&](std::int64_t j, int lanes_used, auto several) __attribute__((always_inline)) {
        constexpr int K = decltype(several)::value;
        const auto s = load_several<K>(p + i * ld + j);
        const auto weight = vec::exp_below(vec::fma(s, h.scale, vec::constant_like(s, shift)));
        store_several(p + i * ld + j, lanes_used, weight);
        if (!scores) return;
        float* const d = ds + i * ld + j;
        store_several(d, lanes_used, vec::mul(vec::mul(weight, h.scale), vec::add(load_several<K>(d), along)));
      });
    }
    if (dq) {
      k.product(false, count, ds, ld, 0, h.keys, dq_block, ldw, false);
      put(dq_block, count, dq + i0 * call.row_q, call.row_q);
    }
    if (dk) q_rows.product(true, h.keys, ds, ld, i0, count, dk_sum, ldw, block > 0);
    if (dv) g_rows.product(true, h.keys, p, ld, i0, count, dv_sum, ldw, block > 0);
  }
  if (dk) put(dk_sum, h.keys, dk, call.row_k);
  if (dv) put(dv_sum, h.keys, dv, call.row_v);
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
