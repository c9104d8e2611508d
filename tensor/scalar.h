// Scalar mathematics shared by host and device, for T = float, double and (nested) Dual<T>.
//
// The float functions are polynomials of our own (minimax fits by iteratively reweighted least squares)
// without branches, so that compilers vectorise loops over them; each states its error in ulp (of the result)
// where it is relative. They are right at 0, +-inf and NaN, and never make a NaN out of a finite argument of
// their domain. Results below the smallest normal number may flush to zero. The double functions are those of
// <cmath>.
//
// Qualify the calls (scalar::exp): a using-directive at global scope would meet the functions of <math.h>.
#pragma once
#include <math.h>

#include <costate/tensor/dual.h>
#include <cstdint>
#include <type_traits>

namespace costate::scalar {

namespace detail {
COSTATE_INLINE std::uint32_t bits(float x) { return __builtin_bit_cast(std::uint32_t, x); }
COSTATE_INLINE std::uint64_t bits(double x) { return __builtin_bit_cast(std::uint64_t, x); }
COSTATE_INLINE float from_bits(std::uint32_t b) { return __builtin_bit_cast(float, b); }
COSTATE_INLINE double from_bits(std::uint64_t b) { return __builtin_bit_cast(double, b); }

// Adding this number rounds to the nearest integer and leaves it in the low bits: 1.5 * 2^23 and 1.5 * 2^52.
constexpr float round_f = 12582912.0f;
constexpr double round_d = 6755399441055744.0;

// (e^r - 1 - r) / r^2 for |r| <= 0.4.
COSTATE_INLINE float exp_tail(float r) {
  return 0.5f + r * (0.166665435f + r * (0.0416662805f + r * (0.00836660154f + r * 0.0013946481f)));
}

struct Exponent {
  float r;         // the remainder, |r| <= ln 2 / 2
  std::int32_t n;  // x = n ln 2 + r
};
COSTATE_INLINE Exponent split_exponent(float x) {
  const float t = x * 1.44269504f + round_f, n = t - round_f;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;  // Cody and Waite: the first product is exact
  return {r, static_cast<std::int32_t>(bits(t) - bits(round_f))};
}
// 2^n for -126 <= n <= 127; 0 for -127, infinity for 128.
COSTATE_INLINE float power_of_two(std::int32_t n) {
  return from_bits((static_cast<std::uint32_t>(n) + 127u) << 23);
}

// exp(x + low) for |low| <= 0.05. The power of two is applied in halves: results may be infinite or
// subnormal.
COSTATE_INLINE float exp_of_sum(float x, float low) {
  const Exponent e = split_exponent(clamp(x, -105.0f, 89.0f));
  const float r = e.r + low, p = 1.0f + (r + r * r * exp_tail(r));
  const std::int32_t half = e.n >> 1;
  return p * power_of_two(half) * power_of_two(e.n - half);
}

// 1 / (1 + e^-x) for -88.7 <= x <= 88.2: the power of two needs no halves, as it may be 0 or infinite.
constexpr float sigmoid_low = -88.7f, sigmoid_high = 88.2f;
COSTATE_INLINE float sigmoid_of_cut(float x) {
  const Exponent e = split_exponent(-x);
  const float p = 1.0f + e.r * (1.0f + e.r * exp_tail(e.r));
  return 1.0f / (1.0f + p * power_of_two(e.n));
}

// log(1 + f) + n log 2 for sqrt(1/2) - 1 <= f <= sqrt(2) - 1.
COSTATE_INLINE float log_of_parts(float f, float n) {
  float p = 0.0691534653f;
  p = p * f + -0.117898822f;
  p = p * f + 0.118730269f;
  p = p * f + -0.123843409f;
  p = p * f + 0.142186508f;
  p = p * f + -0.16669251f;
  p = p * f + 0.200022265f;
  p = p * f + -0.249999866f;
  p = p * f + 0.333333105f;
  const float f2 = f * f;
  return (f + ((f2 * f * p + n * -2.12194440e-4f) - 0.5f * f2)) + n * 0.693359375f;
}

// erfc(t) for t >= 0, relative error 4e-7: exp(-t^2) Q((t-2)/(t+2)) / (t+2). The square is taken in two parts
// because its rounding error would be multiplied by t^2.
COSTATE_INLINE float erfc_positive(float t) {
  t = at_most(t, 10.1f);
  const float inverse = 1.0f / (t + 2.0f), q = (t - 2.0f) * inverse;
  float p = 6.94808259e-05f;
  p = p * q + 4.69400693e-05f;
  p = p * q + -0.000592562137f;
  p = p * q + -0.000832063786f;
  p = p * q + 0.00306260563f;
  p = p * q + 0.00647587935f;
  p = p * q + -0.0215057228f;
  p = p * q + -0.0364417844f;
  p = p * q + 0.279471785f;
  p = p * q + -0.687160671f;
  p = p * q + 1.02158272f;
  const float head = from_bits(bits(t) & 0xfffff000u);
  return exp_of_sum(-head * head, (head - t) * (head + t)) * p * inverse;
}

// sin(r + n pi) from the remainder r of a reduction in double precision and t = n + round_d, whose last bit
// is the parity of n. Remainders that are not remainders, for |x| > 1e15, are cut to stay in the range of a
// sine.
COSTATE_INLINE float sine_of_remainder(double remainder, double t) {
  const double half_pi = 1.5707963267948966;
  const double cut = clamp(remainder, -half_pi, half_pi);
  const float r = static_cast<float>(from_bits(bits(cut) ^ (bits(t) << 63)));
  const float s = r * r;
  const float p = -0.166666597f + s * (0.00833306648f + s * (-0.000198096022f + s * 2.60578008e-06f));
  return r + r * (s * p);
}
COSTATE_INLINE double minus_n_pi(double x, double n) {
  return (x - n * 3.1415926218032837) -
         n * 3.1786509424591713e-08;  // pi in 27 + 53 bits: the first product is exact
}
}  // namespace detail

// ------------------------------------------------------------------------------------------ float, double
// Error 1.1 ulp; subnormal results are not flushed.
COSTATE_INLINE float exp(float x) { return detail::exp_of_sum(x, 0.0f); }
COSTATE_INLINE double exp(double x) { return ::exp(x); }

// Error 1 ulp. log(0) = -inf; NaN for x < 0.
COSTATE_INLINE float log(float x) {
  const bool tiny = x < 1.17549435e-38f;
  const float scaled = tiny ? x * 8388608.0f : x;
  // With sqrt(1/2) taken off, the exponent field is that of a mantissa in [sqrt(1/2), sqrt(2)).
  const std::uint32_t shifted = detail::bits(scaled) - 0x3f3504f3u;
  const std::int32_t n = static_cast<std::int32_t>(shifted) >> 23;
  const float m = detail::from_bits((shifted & 0x007fffffu) + 0x3f3504f3u);
  float y = detail::log_of_parts(m - 1.0f, static_cast<float>(n) - (tiny ? 23.0f : 0.0f));
  y = x < __builtin_inff() ? y : x;  // also NaN
  y = x < 0.0f ? __builtin_nanf("") : y;
  return x == 0.0f ? -__builtin_inff() : y;
}
COSTATE_INLINE double log(double x) { return ::log(x); }

// Correctly rounded.
COSTATE_INLINE float sqrt(float x) { return ::sqrtf(x); }
COSTATE_INLINE double sqrt(double x) { return ::sqrt(x); }

COSTATE_INLINE float abs(float x) { return ::fabsf(x); }
COSTATE_INLINE double abs(double x) { return ::fabs(x); }

// Error 2.5 ulp, odd bit for bit: with E = exp(2|x|) - 1 accurate near 0, tanh |x| = E / (E + 2).
COSTATE_INLINE float tanh(float x) {
  const detail::Exponent e = detail::split_exponent(at_most(2.0f * ::fabsf(x), 20.0f));
  const float scale = detail::power_of_two(e.n), q = e.r + e.r * e.r * detail::exp_tail(e.r);
  const float expm1 = scale * q + (scale - 1.0f);
  return ::copysignf(expm1 / (expm1 + 2.0f), x);
}
COSTATE_INLINE double tanh(double x) { return ::tanh(x); }

// 1 / (1 + e^-x). Error 2.5 ulp; flushes to 0 below -88.
COSTATE_INLINE float sigmoid(float x) {
  return detail::sigmoid_of_cut(clamp(x, detail::sigmoid_low, detail::sigmoid_high));
}
COSTATE_INLINE double sigmoid(double x) { return 1.0 / (1.0 + ::exp(-x)); }

// log(1 + e^x), written so that neither side overflows. Error 2 ulp.
COSTATE_INLINE float softplus(float x) {
  const float t = exp(-::fabsf(x));  // in [0, 1]; log(1 + t) without rounding 1 + t:
  const bool big = t > 0.41421356f;
  const float tail = detail::log_of_parts(big ? 0.5f * (t - 1.0f) : t, big ? 1.0f : 0.0f);
  return max(x, 0.0f) + tail;
}
COSTATE_INLINE double softplus(double x) { return max(x, 0.0) + ::log1p(::exp(-::fabs(x))); }

// Error 2.5 ulp.
COSTATE_INLINE float erf(float x) {
  const float t = ::fabsf(x), s = x * x;
  const float small =
      x * (1.12837911f +
           s * (-0.376125246f +
                s * (0.112821415f + s * (-0.0267789215f + s * (0.00501197763f + s * -0.00060904253f)))));
  const float large = ::copysignf(1.0f - detail::erfc_positive(t), x);
  return t < 0.9f ? small : large;
}
COSTATE_INLINE double erf(double x) { return ::erf(x); }

// The distribution function of the standard normal law, Phi. Relative error 4e-7 + 8e-8 x^2 (float), so that
// the left tail keeps its digits; flushes to 0 below -14.
COSTATE_INLINE float normal_cdf(float x) {
  const float tail = 0.5f * detail::erfc_positive(::fabsf(x) * 0.707106781f);
  return x > 0.0f ? 1.0f - tail : tail;
}
COSTATE_INLINE double normal_cdf(double x) { return 0.5 * ::erfc(x * -0.70710678118654752440); }

// Absolute error 1.3e-7 + 3e-16 |x| (the argument is reduced in double precision), 2 ulp for |x| < 100; in
// [-1, 1] but meaningless for |x| > 1e15; NaN at +-inf.
COSTATE_INLINE float sin(float x) {
  const double t = x * 0.31830988618379067154 + detail::round_d, n = t - detail::round_d;
  return detail::sine_of_remainder(detail::minus_n_pi(x, n), t);
}
COSTATE_INLINE float cos(float x) {  // = -sin(x - pi/2)
  const double t = (x * 0.31830988618379067154 - 0.5) + detail::round_d, n = t - detail::round_d;
  return -detail::sine_of_remainder(detail::minus_n_pi(x, n + 0.5), t);
}
COSTATE_INLINE double sin(double x) { return ::sin(x); }
COSTATE_INLINE double cos(double x) { return ::cos(x); }

// x^p for a constant p; error 0.51 ulp (evaluated in double precision). As in <cmath>: x^0 = 1 even for NaN,
// a negative x has a power only for an integer p, 0^p = inf for p < 0.
COSTATE_INLINE float pow(float x, double p) {
  using namespace detail;
  const double size = ::fabs(static_cast<double>(x));  // normal in double precision even when x is subnormal
  const std::uint64_t root_half = 0x3fe6a09e667f3bcdu, one = 0x3ff0000000000000u;
  const std::uint64_t biased =
      (bits(size) + (one - root_half)) >> 52;  // exponent of a mantissa in [sqrt 1/2, sqrt 2)
  const double m = from_bits(bits(size) - (biased << 52) + one);
  const double n = from_bits(biased | 0x4330000000000000u) - (4503599627370496.0 + 1023.0);
  const double s = (m - 1.0) / (m + 1.0), s2 = s * s;  // log m = 2 artanh s
  const double log_m =
      2.0 * s + s * s2 *
                    (0.66666665645183854 +
                     s2 * (0.40000335262035547 + s2 * (0.28537303514123274 + s2 * 0.23582255223032669)));
  const double y = clamp(p * (log_m + n * 0.69314718055994530942), -150.0, 150.0);
  const double t = y * 1.44269504088896340736 + round_d, k = t - round_d;
  const double r = y - k * 0.69314718055994530942;
  double q = 2.4891731523327738e-05;
  q = q * r + 0.00019915832082389819;
  q = q * r + 0.0013888785178551425;
  q = q * r + 0.0083332662098235897;
  q = q * r + 0.041666667151552116;
  q = q * r + 0.16666666890031875;
  q = q * r + 0.49999999999258538;
  q = q * r + 0.9999999999800393;
  double result = (1.0 + r * q) * from_bits((bits(t) - bits(round_d) + 1023u) << 52);

  const double at_zero = p < 0 ? __builtin_inf() : 0.0, at_infinity = p < 0 ? 0.0 : __builtin_inf();
  result = size == 0.0 ? at_zero : result;
  result = size == __builtin_inf() ? at_infinity : result;
  const bool integer = ::floor(p) == p, odd = integer && ::floor(0.5 * p) != 0.5 * p;
  const double mirrored = odd ? -result : integer ? result : __builtin_nan("");
  const bool negative = (bits(x) >> 31) != 0 && (integer || (size != 0.0 && size != __builtin_inf()));
  result = negative ? mirrored : result;
  result = x != x ? static_cast<double>(x) : result;
  return static_cast<float>(p == 0.0 ? 1.0 : result);
}
COSTATE_INLINE double pow(double x, double p) { return ::pow(x, p); }

// ------------------------------------------------------------------------------------------ derivatives
template <class T>
COSTATE_INLINE T square(const T& x) {
  return x * x;
}
template <class T>
COSTATE_INLINE T reciprocal(const T& x) {
  return base_t<T>(1) / x;
}
template <class T>
COSTATE_INLINE Dual<T> exp(const Dual<T>& x) {
  const T y = exp(x.v);
  return {y, y * x.d};
}
template <class T>
COSTATE_INLINE Dual<T> log(const Dual<T>& x) {
  return {log(x.v), x.d / x.v};
}
template <class T>
COSTATE_INLINE Dual<T> sqrt(const Dual<T>& x) {
  const T y = sqrt(x.v);
  return {y, base_t<T>(0.5) * x.d / y};
}
// Subgradient rule: 0 at 0.
template <class T>
COSTATE_INLINE Dual<T> abs(const Dual<T>& x) {
  const base_t<T> sign = base_t<T>(value(x) > 0) - base_t<T>(value(x) < 0);
  return {abs(x.v), sign * x.d};
}
template <class T>
COSTATE_INLINE Dual<T> tanh(const Dual<T>& x) {
  const T y = tanh(x.v);
  return {y, (base_t<T>(1) - y * y) * x.d};
}
template <class T>
COSTATE_INLINE Dual<T> sigmoid(const Dual<T>& x) {
  const T y = sigmoid(x.v);
  return {y, y * (base_t<T>(1) - y) * x.d};
}
template <class T>
COSTATE_INLINE Dual<T> softplus(const Dual<T>& x) {
  return {softplus(x.v), sigmoid(x.v) * x.d};
}
template <class T>
COSTATE_INLINE Dual<T> sin(const Dual<T>& x);
template <class T>
COSTATE_INLINE Dual<T> cos(const Dual<T>& x) {
  return {cos(x.v), -sin(x.v) * x.d};
}
template <class T>
COSTATE_INLINE Dual<T> sin(const Dual<T>& x) {
  return {sin(x.v), cos(x.v) * x.d};
}
template <class T>
COSTATE_INLINE Dual<T> pow(const Dual<T>& x, double p) {
  return {pow(x.v, p), base_t<T>(p) * pow(x.v, p == 0 ? 0.0 : p - 1) * x.d};
}

namespace detail {
// exp(-(k x)^2), cut where it is 0 so that products with x stay finite.
template <class T>
COSTATE_INLINE T gauss(const T& x, base_t<T> k) {
  const T t = k * clamp(x, base_t<T>(-40), base_t<T>(40));
  return exp(-(t * t));
}
}  // namespace detail

template <class T>
COSTATE_INLINE Dual<T> erf(const Dual<T>& x) {
  return {erf(x.v), base_t<T>(1.12837916709551257390) * detail::gauss(x.v, base_t<T>(1)) * x.d};
}
template <class T>
COSTATE_INLINE Dual<T> normal_cdf(const Dual<T>& x) {
  const base_t<T> peak = base_t<T>(0.39894228040143267794), k = base_t<T>(0.70710678118654752440);
  return {normal_cdf(x.v), peak * detail::gauss(x.v, k) * x.d};
}

// ------------------------------------------------------------------------------------------ activations
// Value, and the derivative into `slope`; what is not used costs nothing. Arguments are cut where the
// function has reached its asymptote, because inf * 0 is not a limit. Absolute errors (float) are below 3e-7
// max(1, |x|).

namespace detail {
COSTATE_INLINE double sigmoid_of_cut(double x) { return sigmoid(x); }
template <class T>
COSTATE_INLINE Dual<T> sigmoid_of_cut(const Dual<T>& x) {
  const T y = sigmoid_of_cut(x.v);
  return {y, y * (base_t<T>(1) - y) * x.d};
}
// Where to cut x: sigmoid is 0 resp. 1 there, and its argument in x sigmoid(u(x)) within the range of
// sigmoid_of_cut.
template <class B>
struct Cut {  // double
  static constexpr B silu_low = -800, silu_high = 800, gelu_low = -25, gelu_high = 25;
};
template <>
struct Cut<float> {
  static constexpr float silu_low = sigmoid_low, silu_high = sigmoid_high, gelu_low = -10.05f,
                         gelu_high = 10.0f;
};
}  // namespace detail

// x sigmoid(x) (Elfwing et al. 2018). Below -88, where it is above -4e-37, 0.
template <class T>
COSTATE_INLINE T silu_and_slope(const T& x, T& slope) {
  using B = base_t<T>;
  const T floored = at_least(x, detail::Cut<B>::silu_low), t = at_most(floored, detail::Cut<B>::silu_high);
  const T s = detail::sigmoid_of_cut(t);
  slope = s * (B(1) + t * (B(1) - s));
  return floored * s;
}

// x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)), the tanh form of Hendrycks and Gimpel (2016) without its
// cancellation.
template <class T>
COSTATE_INLINE T gelu_tanh_and_slope(const T& x, T& slope) {
  using B = base_t<T>;
  const T floored = at_least(x, detail::Cut<B>::gelu_low), t = at_most(floored, detail::Cut<B>::gelu_high),
          t2 = t * t;
  const B c = B(1.59576912160573071176);
  const T s = detail::sigmoid_of_cut(t * (c + B(0.044715) * c * t2));
  slope = s * (B(1) + t * (B(1) - s) * (c + B(3 * 0.044715) * c * t2));
  return floored * s;
}

// x Phi(x) (Hendrycks and Gimpel 2016).
template <class T>
COSTATE_INLINE T gelu_erf_and_slope(const T& x, T& slope) {
  using B = base_t<T>;
  const T floored = at_least(x, B(-40)), t = at_most(floored, B(40));
  const T phi = normal_cdf(t);
  slope = phi + t * (B(0.39894228040143267794) * detail::gauss(t, B(0.70710678118654752440)));
  return floored * phi;
}

template <class T>
COSTATE_INLINE T silu(const T& x) {
  T slope;
  return silu_and_slope(x, slope);
}
template <class T>
COSTATE_INLINE T gelu_tanh(const T& x) {
  T slope;
  return gelu_tanh_and_slope(x, slope);
}
template <class T>
COSTATE_INLINE T gelu_erf(const T& x) {
  T slope;
  return gelu_erf_and_slope(x, slope);
}
template <class T>
COSTATE_INLINE Dual<T> silu(const Dual<T>& x) {
  T slope;
  const T y = silu_and_slope(x.v, slope);
  return {y, slope * x.d};
}
template <class T>
COSTATE_INLINE Dual<T> gelu_tanh(const Dual<T>& x) {
  T slope;
  const T y = gelu_tanh_and_slope(x.v, slope);
  return {y, slope * x.d};
}
template <class T>
COSTATE_INLINE Dual<T> gelu_erf(const Dual<T>& x) {
  T slope;
  const T y = gelu_erf_and_slope(x.v, slope);
  return {y, slope * x.d};
}

}  // namespace costate::scalar
