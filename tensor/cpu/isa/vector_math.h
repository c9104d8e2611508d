// Elementary functions of vectors of floats: the formulas of tensor/scalar.h with the instructions that compilers do not find
// in them (minimum, rounding, scaling by a power of two, approximate reciprocals). Every lane is computed alike, so that an
// element's bits do not depend on its place. NaN passes through; infinities give the limits. Only for instruction sets
// with fused multiply-add.
//
// Arguments are Vector<float> or Several<K>, K vectors that are computed in step: chains of some twenty dependent
// operations fill a processor's scheduler before it sees the next one, so that one vector after the other waits.
//
// Largest errors, measured: silu and gelu_tanh 1.4e-7 max(1, |x|), their derivatives 1.2e-7 and 4e-7 max(1, |x|) (those of
// scalar.h have the same); exp_below 1 ulp, 0 below -87.3.
#pragma once
#include <type_traits>

#include "activation.h"
#include "gemm_vector.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

namespace vec {

using Floats = Vector<float>;

#ifdef __AVX512F__
// The second operand when either is NaN. (With masks of ones, because GCC 12 warns about what its own header leaves
// undefined without: bug 105593.)
constexpr __mmask16 every = 0xffff;
COSTATE_INLINE Floats larger_of(Floats a, Floats b) { return (Floats)_mm512_maskz_max_ps(every, (__m512)a, (__m512)b); }
COSTATE_INLINE Floats smaller_of(Floats a, Floats b) { return (Floats)_mm512_maskz_min_ps(every, (__m512)a, (__m512)b); }
// y where low < x or x is NaN, else 0.
COSTATE_INLINE Floats where_above(Floats low, Floats x, Floats y) {
  return (Floats)_mm512_maskz_mov_ps(_mm512_cmp_ps_mask((__m512)x, (__m512)low, _CMP_NLE_UQ), (__m512)y);
}
// a b + c, rounded once, whatever a compiler makes of products and sums: the functions below rely on it.
COSTATE_INLINE Floats fma(Floats a, Floats b, Floats c) { return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
// 1 / d for 1 <= d <= 2^126, error 1 ulp: 14 bits and one step of Newton's method.
COSTATE_INLINE Floats inverse(Floats d) {
  const Floats y = (Floats)_mm512_maskz_rcp14_ps(every, (__m512)d);
  return fma(y, fma(-d, y, broadcast(1.0f)), y);
}
#else
COSTATE_INLINE Floats larger_of(Floats a, Floats b) { return (Floats)_mm256_max_ps((__m256)a, (__m256)b); }
COSTATE_INLINE Floats smaller_of(Floats a, Floats b) { return (Floats)_mm256_min_ps((__m256)a, (__m256)b); }
COSTATE_INLINE Floats where_above(Floats low, Floats x, Floats y) {
  return (Floats)_mm256_and_ps(_mm256_cmp_ps((__m256)x, (__m256)low, _CMP_NLE_UQ), (__m256)y);
}
COSTATE_INLINE Floats fma(Floats a, Floats b, Floats c) { return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
// (Twelve bits and one step would be 2 ulp, and differ between makers of processors.)
COSTATE_INLINE Floats inverse(Floats d) { return 1.0f / d; }
#endif
// p 2^n, where n is the low bits of t = 1.5 2^23 + n, for 1/2 < p < 2 and -125 <= n <= 126.
COSTATE_INLINE Floats scale_by_low_bits(Floats p, Floats t) {
#ifdef __AVX512F__
  return (Floats)_mm512_maskz_add_epi32(every, (__m512i)p, _mm512_maskz_slli_epi32(every, (__m512i)t, 23));
#else
  return (Floats)_mm256_add_epi32((__m256i)p, _mm256_slli_epi32((__m256i)t, 23));
#endif
}
COSTATE_INLINE Floats fma(Floats a, float b, Floats c) { return fma(a, broadcast(b), c); }
COSTATE_INLINE Floats fma(Floats a, Floats b, float c) { return fma(a, b, broadcast(c)); }
COSTATE_INLINE Floats fma(Floats a, float b, float c) { return fma(a, broadcast(b), broadcast(c)); }
COSTATE_INLINE Floats add(Floats a, Floats b) { return a + b; }
COSTATE_INLINE Floats add(Floats a, float b) { return a + broadcast(b); }
COSTATE_INLINE Floats mul(Floats a, Floats b) { return a * b; }
COSTATE_INLINE Floats mul(Floats a, float b) { return a * broadcast(b); }
COSTATE_INLINE Floats one_minus(Floats a) { return broadcast(1.0f) - a; }
COSTATE_INLINE Floats sub(Floats a, Floats b) { return a - b; }
COSTATE_INLINE Floats at_least(Floats x, float low) { return larger_of(broadcast(low), x); }
COSTATE_INLINE Floats at_most(Floats x, float high) { return smaller_of(broadcast(high), x); }
COSTATE_INLINE Floats constant_like(Floats, float c) { return broadcast(c); }
COSTATE_INLINE Floats where_above(float low, Floats x, Floats y) { return where_above(broadcast(low), x, y); }

template <int K>
struct Several {
  Floats v[K];
};
template <int K>
COSTATE_INLINE Floats part(const Several<K>& x, int k) {
  return x.v[k];
}
COSTATE_INLINE float part(float x, int) { return x; }

// The functions above of Several: one instruction for all of them, then the next.
#define COSTATE_SEVERAL_1(name)                                    \
  template <int K>                                                 \
  COSTATE_INLINE Several<K> name(const Several<K>& a) {            \
    Several<K> r;                                                  \
    for (int k = 0; k < K; ++k) r.v[k] = name(a.v[k]);             \
    return r;                                                      \
  }
#define COSTATE_SEVERAL_2(name)                                              \
  template <int K, class B>                                                  \
  COSTATE_INLINE Several<K> name(const Several<K>& a, const B& b) {          \
    Several<K> r;                                                            \
    for (int k = 0; k < K; ++k) r.v[k] = name(a.v[k], part(b, k));           \
    return r;                                                                \
  }
COSTATE_SEVERAL_1(inverse)
COSTATE_SEVERAL_1(one_minus)
COSTATE_SEVERAL_2(add)
COSTATE_SEVERAL_2(mul)
COSTATE_SEVERAL_2(at_least)
COSTATE_SEVERAL_2(at_most)
COSTATE_SEVERAL_2(sub)
COSTATE_SEVERAL_2(scale_by_low_bits)
#undef COSTATE_SEVERAL_1
#undef COSTATE_SEVERAL_2
template <int K, class B, class C>
COSTATE_INLINE Several<K> fma(const Several<K>& a, const B& b, const C& c) {
  Several<K> r;
  for (int k = 0; k < K; ++k) r.v[k] = fma(a.v[k], part(b, k), part(c, k));
  return r;
}
template <int K>
COSTATE_INLINE Several<K> where_above(float low, const Several<K>& x, const Several<K>& y) {
  Several<K> r;
  for (int k = 0; k < K; ++k) r.v[k] = where_above(low, x.v[k], y.v[k]);
  return r;
}

template <int K>
COSTATE_INLINE Several<K> constant_like(const Several<K>&, float c) {
  Several<K> r;
  for (int k = 0; k < K; ++k) r.v[k] = broadcast(c);
  return r;
}

// e^x = 2^(n + f), n integral and |f| <= 1/2. Adding 1.5 2^23 rounds to the nearest integer and leaves it in the low bits.
constexpr float round_in_low_bits = 12582912.0f, log2_e = 1.44269502f, log2_e_rest = 1.92596303e-08f;
constexpr float low = -87.3f, high = 87.3f;  // between these, e^x and its steps are normal numbers

// For low <= x <= high. Polynomial of degree 6, relative error 3e-9.
template <class V>
COSTATE_INLINE V exp_of_cut(const V& x) {
  const V t = fma(x, log2_e, round_in_low_bits);
  const V f = fma(x, log2_e_rest, fma(x, log2_e, sub(constant_like(x, round_in_low_bits), t)));
  V p = fma(f, 0.000153264933f, 0.00133908121f);
  p = fma(p, f, 0.00961850584f);
  p = fma(p, f, 0.0555035993f);
  p = fma(p, f, 0.240226477f);
  p = fma(p, f, 0.693147182f);
  return scale_by_low_bits(fma(p, f, 1.0f), t);
}
// e^-x for low <= x <= high, where a relative error of 1e-7 + 2e-8 |x| does no harm: in 1 / (1 + e^-x), whose error is then
// 3e-8 + 1e-7 absolute. Degree 5, relative error 9e-8.
template <class V>
COSTATE_INLINE V exp_of_minus(const V& x) {
  const V t = fma(x, -log2_e, round_in_low_bits);
  const V f = fma(x, -log2_e, sub(constant_like(x, round_in_low_bits), t));
  V p = fma(f, 0.00132692745f, 0.00967130065f);
  p = fma(p, f, 0.055507116f);
  p = fma(p, f, 0.240222469f);
  p = fma(p, f, 0.693147004f);
  return scale_by_low_bits(fma(p, f, 1.0f), t);
}

// e^x for x <= high (an attention weight, a softmax); 0 below low.
template <class V>
COSTATE_INLINE V exp_below(const V& x) {
  return where_above(low, x, exp_of_cut(at_least(x, low)));
}

// 1 / (1 + e^-x) for an x that was cut to [low, high].
template <class V>
COSTATE_INLINE V sigmoid_of_cut(const V& x) {
  return inverse(add(exp_of_minus(x), 1.0f));
}

// x sigmoid(x), and its derivative s + x s (1 - s). Below `low` both stay what they are there, -1e-36; above `high` they are x
// and 1.
template <class V>
COSTATE_INLINE V silu_and_slope(const V& x, V& slope) {
  const V floored = at_least(x, low), t = at_most(floored, high);
  const V s = sigmoid_of_cut(t), y = mul(t, s);
  slope = fma(y, one_minus(s), s);
  return add(y, sub(floored, t));
}
// x sigmoid(u), u = 2 sqrt(2/pi) (x + 0.044715 x^3), cut at |x| = 9.999 where |u| reaches 87.29.
template <class V>
COSTATE_INLINE V gelu_tanh_and_slope(const V& x, V& slope) {
  constexpr float c = 1.59576912160573071176f, c3 = 0.044715f * c, edge = 9.999f;
  const V floored = at_least(x, -edge), t = at_most(floored, edge), t2 = mul(t, t);
  const V s = sigmoid_of_cut(mul(t, fma(t2, c3, c))), y = mul(t, s);
  slope = fma(mul(y, one_minus(s)), fma(t2, 3 * c3, c), s);
  return add(y, sub(floored, t));
}

}  // namespace vec

// The activations of activation.h, of a vector or several.
template <Activation activation, class V>
COSTATE_INLINE V activate_vector(const V& z, V& slope) {
  using namespace vec;
  if constexpr (activation == Activation::silu) {
    return silu_and_slope(z, slope);
  } else if constexpr (activation == Activation::gelu_tanh) {
    return gelu_tanh_and_slope(z, slope);
  } else if constexpr (activation == Activation::relu) {
    slope = where_above(0.0f, z, constant_like(z, 1.0f));
    return at_least(z, 0.0f);
  } else {
    slope = constant_like(z, 1.0f);
    return z;
  }
}

// f(i, count, integral_constant<K>) over n elements: runs of K = 4 vectors in step, then two, then single ones, the last with
// `count` of its lanes. To be called with a lambda that is forced inline, within the loop over rows: constants then stay in
// registers.
template <class F>
COSTATE_INLINE void in_vectors(std::int64_t n, const F& f) {
  constexpr int W = lanes<float>;
  std::int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W) f(i, W, std::integral_constant<int, 4>{});
  if (i + 2 * W <= n) f(i, W, std::integral_constant<int, 2>{}), i += 2 * W;
  if (i + W <= n) f(i, W, std::integral_constant<int, 1>{}), i += W;
  if (i < n) f(i, static_cast<int>(n - i), std::integral_constant<int, 1>{});
}
// K vectors; with count < lanes (only for K = 1) the first lanes of one.
template <int K>
COSTATE_INLINE vec::Several<K> load_several(const float* p, int count = lanes<float>) {
  vec::Several<K> x;
  if (K == 1 && count < lanes<float>) x.v[0] = load_first(p, count);
  else
    for (int k = 0; k < K; ++k) x.v[k] = load(p + k * lanes<float>);
  return x;
}
template <int K>
COSTATE_INLINE void store_several(float* p, int count, const vec::Several<K>& x) {
  if (K == 1 && count < lanes<float>) store_first(p, count, x.v[0]);
  else
    for (int k = 0; k < K; ++k) store(p + k * lanes<float>, x.v[k]);
}

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
