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

// f(j, vectors) for the vectors of a row, four in step and then one at a time; f is called with std::integral_constant.
template <class F>
COSTATE_INLINE void each_vector(std::int64_t n, const F& f) {
  constexpr int W = lanes<float>;
  std::int64_t j = 0;
  for (; j + 4 * W <= n; j += 4 * W) f(j, std::integral_constant<int, 4>{});
  for (; j < n; j += W) f(j, std::integral_constant<int, 1>{});
}
template <int K>
COSTATE_INLINE vec::Several<K> load_several(const float* p) {
  vec::Several<K> x;
  for (int i = 0; i < K; ++i) x.v[i] = load(p + i * lanes<float>);
  return x;
}
template <int K>
COSTATE_INLINE void store_several(float* p, const vec::Several<K>& x) {
  for (int i = 0; i < K; ++i) store(p + i * lanes<float>, x.v[i]);
}
COSTATE_INLINE float largest(Vector<float> v) {
  float m = v[0];
  for (int i = 1; i < lanes<float>; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

// p = exp(scale s - scale max), in place, over whole vectors; what lies behind the last key becomes 0. Returns the sum and the
// maximum.
struct RowSum {
  float sum, top;
};
COSTATE_INLINE RowSum exponentials(float* s, std::int64_t keys, float scale) {
  constexpr int W = lanes<float>;
  const std::int64_t padded = whole_vectors(keys);
  for (std::int64_t j = keys; j < padded; ++j) s[j] = -3e38f;
  Vector<float> m = load(s);
  for (std::int64_t j = W; j < padded; j += W) m = vec::larger_of(m, load(s + j));
  const float top = largest(m), shift = -scale * top;
  vec::Several<4> sums{};
  each_vector(padded, [&](std::int64_t j, auto count) {
    constexpr int K = decltype(count)::value;
    const auto p = vec::exp_below(vec::fma(load_several<K>(s + j), scale, vec::constant_like(load_several<K>(s + j), shift)));
    store_several(s + j, p);
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
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t i0 = begin + (end - begin) * block / blocks, rows = begin + (end - begin) * (block + 1) / blocks - i0;
    k.product(false, rows, q + i0 * call.row_q, call.row_q, 0, h.width, s, ld, false);
    float share[tile_rows];
    for (std::int64_t i = 0; i < rows; ++i) {
      const RowSum row = exponentials(s + i * ld, h.keys, h.scale);
      share[i] = 1.0f / row.sum;
      if (log_sum_exp) log_sum_exp[h.at_sum + i0 + i] = h.scale * row.top + scalar::log(row.sum);
    }
    v.product(false, rows, s, ld, 0, h.keys, y, ldo, false);
    for (std::int64_t i = 0; i < rows; ++i) {
      float* const to = out + h.at_out + (i0 + i) * h.row_out;
      for (std::int64_t c = 0; c < h.width; ++c) to[c] = y[i * ldo + c] * share[i];
    }
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
    for (std::int64_t i = 0; i < count; ++i)
      for (std::int64_t c = 0; c < h.width; ++c) to[i * row + c] = from[i * ldw + c];
  };
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t i0 = h.queries * block / blocks, count = h.queries * (block + 1) / blocks - i0;
    k_turned.product(false, count, q + i0 * call.row_q, call.row_q, 0, h.width, p, ld, false);
    if (scores) v_turned.product(false, count, g + i0 * h.row_out, h.row_out, 0, h.width, ds, ld, false);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t at = (i0 + i) * h.row_out;
      const float shift = -log_sum_exp[h.at_sum + i0 + i], along = scores ? -dot(h.width, g + at, out + h.at_out + at) : 0.0f;
      each_vector(ld, [&](std::int64_t j, auto vectors) {
        constexpr int K = decltype(vectors)::value;
        const auto s = load_several<K>(p + i * ld + j);
        const auto weight = vec::exp_below(vec::fma(s, h.scale, vec::constant_like(s, shift)));
        store_several(p + i * ld + j, weight);
        if (!scores) return;
        float* const d = ds + i * ld + j;
        store_several(d, vec::mul(vec::mul(weight, h.scale), vec::add(load_several<K>(d), along)));
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
