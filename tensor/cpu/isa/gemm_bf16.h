// Products of bf16 with sums in f32, where the processor has AVX512-BF16: operands are rounded to the nearest bf16 (ties
// to even, denormals to zero) while they are packed, two neighbours along k in one lane, and VDPBF16PS adds both products
// to the lane's sum (Intel, Architecture Instruction Set Extensions Programming Reference, "VDPBF16PS").
//
// These functions are compiled for that extension one by one, and called when the processor has it.
#pragma once
#include "gemm_pack.h"
#include "gemm_tile.h"

#ifdef __AVX512F__
#define COSTATE_BF16 __attribute__((target("avx512bf16")))

namespace costate::cpu::COSTATE_ISA {
namespace {

inline bool native_bf16() { return __builtin_cpu_supports("avx512bf16"); }

// As `tile` in gemm_tile.h.
template <int R, int vectors, bool packed_a>
COSTATE_BF16 void tile_pairs(const TileCall<Pair>& call) {
  const std::int64_t k = call.k, lda = call.lda, ldb = call.ldb, ldc = call.ldc;
  const Pair* a = call.a;
  const Pair* b = call.b;
  __m512 x[R], y[R];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) x[i] = y[i] = _mm512_setzero_ps();
#pragma GCC unroll 2
  for (std::int64_t kk = 0; kk < k; ++kk) {
    const auto b0 = (__m512bh)_mm512_loadu_si512(b);
    const auto b1 = (__m512bh)(vectors == 2 ? _mm512_loadu_si512(b + lanes<Pair>) : _mm512_setzero_si512());
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      int both;
      __builtin_memcpy(&both, packed_a ? a + i : a + i * lda, 4);
      const auto ai = (__m512bh)_mm512_set1_epi32(both);
      x[i] = _mm512_dpbf16_ps(x[i], ai, b0);
      if constexpr (vectors == 2) y[i] = _mm512_dpbf16_ps(y[i], ai, b1);
    }
    a += packed_a ? lda : 1;
    b += ldb;
  }
  float* c = call.c;
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    if (call.accumulate) {
      x[i] = _mm512_add_ps(x[i], _mm512_loadu_ps(c + i * ldc));
      if constexpr (vectors == 2) y[i] = _mm512_add_ps(y[i], _mm512_loadu_ps(c + i * ldc + lanes<Pair>));
    }
    _mm512_storeu_ps(c + i * ldc, x[i]);
    if constexpr (vectors == 2) _mm512_storeu_ps(c + i * ldc + lanes<Pair>, y[i]);
  }
}
template <int vectors, bool packed_a>
struct TilesOfRows<Pair, vectors, packed_a> {
  Tile<Pair> of_rows[tile_rows];
  template <int... R>
  constexpr explicit TilesOfRows(std::integer_sequence<int, R...>)
      : of_rows{&tile_pairs<R + 1, vectors, packed_a>...} {}
};

// Lane j holds x[j], and above it y[j].
COSTATE_BF16 inline __m512i paired(__m512 x, __m512 y) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(y, x));
}
inline __m512 part(const float* p, std::int64_t count) {
  return count >= 16 ? _mm512_loadu_ps(p)
         : count > 0 ? _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask(static_cast<int>(count))), p)
                     : _mm512_setzero_ps();
}

// k elements to ceil(k / 2) pairs, an odd one followed by zero.
COSTATE_BF16 inline void round_row(const float* s, const float* scale, std::int64_t k, Pair* d) {
  for (std::int64_t i = 0; i < k; i += 32) {
    __m512 x = part(s + i, k - i), y = part(s + i + 16, k - i - 16);
    if (scale) {
      x = _mm512_mul_ps(x, part(scale + i, k - i));
      y = _mm512_mul_ps(y, part(scale + i + 16, k - i - 16));
    }
    const auto both = (__m512i)_mm512_cvtne2ps_pbh(y, x);
    const std::int64_t left = (k - i + 1) / 2;
    if (left >= 16)
      _mm512_storeu_si512(d + i / 2, both);
    else
      _mm512_mask_storeu_epi32(d + i / 2, static_cast<__mmask16>(mask(static_cast<int>(left))), both);
  }
}
inline void copy_rows(const float* a, const float* scale, std::int64_t lda, std::int64_t rows, std::int64_t k, Pair* d,
                      std::int64_t ldd) {
  for (std::int64_t i = 0; i < rows; ++i)
    round_row(a + i * lda, scale ? scale + i * lda : nullptr, k, d + i * ldd);
}

COSTATE_BF16 inline void pack_panel(bool transpose_b, const float* b, std::int64_t ldb, std::int64_t k, int n,
                                    Pair* d) {
  constexpr int N = tile_columns<Pair>;
  if (!transpose_b) {
    for (std::int64_t kk = 0; kk < k; kk += 2, b += 2 * ldb, d += N) {
      const bool odd = kk + 1 == k;
      for (int half = 0; half < N; half += 16)
        _mm512_storeu_si512(d + half, paired(part(b + half, n - half),
                                             odd ? _mm512_setzero_ps() : part(b + ldb + half, n - half)));
    }
    return;
  }
  // Four columns at a time are rounded side by side, then transposed as if pairs were floats.
  const std::int64_t rows = ceil_div(k, 2);
  constexpr std::int64_t most = k_block<Pair>;
  alignas(64) Pair side[4 * most];
  for (int j = 0; j < N; j += 4) {
    for (int q = 0; q < 4; ++q) {
      if (j + q < n)
        round_row(b + (j + q) * ldb, nullptr, k, side + q * most);
      else
        __builtin_memset(side + q * most, 0, static_cast<std::size_t>(rows) * sizeof(Pair));
    }
    transpose_four<float>(reinterpret_cast<const float*>(side), most, rows, reinterpret_cast<float*>(d + j), N);
  }
}

COSTATE_BF16 inline void pack_columns(const float* a, const float* scale, std::int64_t lda, std::int64_t k,
                                      const std::int64_t* first, std::int64_t blocks, Pair* d, float* sums) {
  constexpr std::int64_t stride = packed_a_stride<Pair>;
  static_assert(stride == 16);
  for (std::int64_t kk = 0; kk < k; kk += 2)
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t at = kk * lda + first[block], count = first[block + 1] - first[block];
      __m512 x = part(a + at, count), y = kk + 1 < k ? part(a + at + lda, count) : _mm512_setzero_ps();
      if (scale) {
        x = _mm512_mul_ps(x, part(scale + at, count));
        if (kk + 1 < k) y = _mm512_mul_ps(y, part(scale + at + lda, count));
      }
      if (sums) {
        float* s = sums + block * stride;
        _mm512_storeu_ps(s, _mm512_add_ps(_mm512_add_ps(_mm512_loadu_ps(s), x), y));
      }
      _mm512_storeu_si512(d + (block * ceil_div(k, 2) + kk / 2) * stride, paired(x, y));
    }
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
#endif
