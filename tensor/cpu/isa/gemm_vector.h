// The vectors of the matrix products: GCC vector extensions, and the few operations that these lack. Only for
// instruction sets with fused multiply-add (AVX2, AVX-512).
#pragma once
#include <immintrin.h>

#include <costate/tensor/scalar.h>
#include <cstdint>

#include "scratch.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

#ifdef __AVX512F__
constexpr int vector_bytes = 64;
constexpr int tile_rows = 14;  // 14 x 2 accumulators, 2 columns of b and 1 broadcast fill 31 of 32 registers
#else
constexpr int vector_bytes = 32;
constexpr int tile_rows = 6;  // 6 x 2 accumulators, 2 + 1: 15 of 16 registers
#endif

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(vector_bytes)));
  typedef float unaligned __attribute__((vector_size(vector_bytes), aligned(4), may_alias));
  typedef float four __attribute__((vector_size(16)));
  typedef float four_unaligned __attribute__((vector_size(16), aligned(4), may_alias));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(vector_bytes)));
  typedef double unaligned __attribute__((vector_size(vector_bytes), aligned(8), may_alias));
  typedef double four __attribute__((vector_size(32)));
  typedef double four_unaligned __attribute__((vector_size(32), aligned(8), may_alias));
};
template <class T>
using Vector = typename VectorOf<T>::type;

// What packed operands consist of: float, double, or two neighbours along k rounded to bf16.
struct Pair {
  std::uint16_t first, second;
};
template <class E>
struct Element {
  using Sum = E;                   // the type of c, and of a and b in memory
  static constexpr int along_k = 1;  // how many elements of a row of a lie in one
};
template <>
struct Element<Pair> {
  using Sum = float;
  static constexpr int along_k = 2;
};
template <class E>
using Sum = typename Element<E>::Sum;

template <class T>
constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));
template <class T>
constexpr int tile_columns = 2 * lanes<T>;

template <class T>
COSTATE_INLINE Vector<T> load(const T* p) {
  return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(p);
}
template <class T>
COSTATE_INLINE void store(T* p, Vector<T> v) {
  *reinterpret_cast<typename VectorOf<T>::unaligned*>(p) = v;
}

// The first `count` lanes, 0 <= count <= lanes; the others read as 0 resp. are not written.
#ifdef __AVX512F__
COSTATE_INLINE Vector<float> broadcast(float x) { return (Vector<float>)_mm512_set1_ps(x); }
COSTATE_INLINE Vector<double> broadcast(double x) { return (Vector<double>)_mm512_set1_pd(x); }
COSTATE_INLINE unsigned mask(int count) { return (1u << count) - 1u; }
COSTATE_INLINE Vector<float> load_first(const float* p, int count) {
  return (Vector<float>)_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask(count)), p);
}
COSTATE_INLINE Vector<double> load_first(const double* p, int count) {
  return (Vector<double>)_mm512_maskz_loadu_pd(static_cast<__mmask8>(mask(count)), p);
}
COSTATE_INLINE void store_first(float* p, int count, Vector<float> v) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>(mask(count)), (__m512)v);
}
COSTATE_INLINE void store_first(double* p, int count, Vector<double> v) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>(mask(count)), (__m512d)v);
}
#else
COSTATE_INLINE Vector<float> broadcast(float x) { return (Vector<float>)_mm256_set1_ps(x); }
COSTATE_INLINE Vector<double> broadcast(double x) { return (Vector<double>)_mm256_set1_pd(x); }
COSTATE_INLINE Vector<float> load_first(const float* p, int count) {
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return (Vector<float>)_mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(count), index));
}
COSTATE_INLINE Vector<double> load_first(const double* p, int count) {
  const __m256i index = _mm256_setr_epi64x(0, 1, 2, 3);
  return (Vector<double>)_mm256_maskload_pd(p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), index));
}
template <class T>  // masked stores are microcoded on several AVX2 machines
COSTATE_INLINE void store_first(T* p, int count, Vector<T> v) {
  for (int i = 0; i < count; ++i) p[i] = v[i];
}
#endif

// The sum of all lanes: the upper half is added to the lower one until one lane is left.
COSTATE_INLINE float sum(Vector<float> v) {
#ifdef __AVX512F__
  const __m256 eight = (__m256)__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                       (__m256)__builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
#else
  const __m256 eight = (__m256)v;
#endif
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
COSTATE_INLINE double sum(Vector<double> v) {
#ifdef __AVX512F__
  const __m256d four =
      (__m256d)__builtin_shufflevector(v, v, 0, 1, 2, 3) + (__m256d)__builtin_shufflevector(v, v, 4, 5, 6, 7);
#else
  const __m256d four = (__m256d)v;
#endif
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
constexpr std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

}  // namespace
}  // namespace costate::cpu::COSTATE_ISA
