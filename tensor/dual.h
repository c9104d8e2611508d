// Dual numbers: Dual<T> is v + d e with e^2 = 0, so that f(Dual(x, 1)).d is f'(x), and Dual<Dual<T>> gives
// second derivatives (Griewank and Walther, Evaluating Derivatives, 2008, chapter 3). Functions of them:
// scalar.h.
//
// Everything here is forced inline: this header is compiled for several instruction sets in one program, and
// the linker must not be able to hand the copy of one to callers of another.
#pragma once
#include <type_traits>

#ifdef __CUDACC__
#define COSTATE_HD __host__ __device__
#define COSTATE_INLINE __host__ __device__ __forceinline__
#else
#define COSTATE_HD
#define COSTATE_INLINE inline __attribute__((always_inline))
#endif

namespace costate::scalar {

template <class T>
struct Dual;

template <class T>
struct Base {
  using type = T;
};
template <class T>
struct Base<Dual<T>> {
  using type = typename Base<T>::type;
};
template <class T>
using base_t = typename Base<T>::type;  // float or double, however deep the nesting: the type of constants

// ------------------------------------------------------------------------------------------ dual numbers
template <class T>
struct Dual {
  using B = base_t<T>;
  T v;  // value
  T d;  // derivative

  Dual() = default;
  COSTATE_INLINE Dual(const T& value, const T& derivative) : v(value), d(derivative) {}
  COSTATE_INLINE Dual(const T& value) : v(value), d(B(0)) {}
  template <class S, std::enable_if_t<std::is_arithmetic_v<S> && !std::is_same_v<S, T>, int> = 0>
  COSTATE_INLINE Dual(S constant) : v(B(constant)), d(B(0)) {}

  friend COSTATE_INLINE Dual operator+(const Dual& a) { return a; }
  friend COSTATE_INLINE Dual operator-(const Dual& a) { return {-a.v, -a.d}; }
  friend COSTATE_INLINE Dual operator+(const Dual& a, const Dual& b) { return {a.v + b.v, a.d + b.d}; }
  friend COSTATE_INLINE Dual operator-(const Dual& a, const Dual& b) { return {a.v - b.v, a.d - b.d}; }
  friend COSTATE_INLINE Dual operator*(const Dual& a, const Dual& b) {
    return {a.v * b.v, a.d * b.v + a.v * b.d};
  }
  friend COSTATE_INLINE Dual operator/(const Dual& a, const Dual& b) {
    const T q = a.v / b.v;
    return {q, (a.d - q * b.d) / b.v};
  }
  // With a constant: no products with a derivative that is zero, which compilers may not drop.
  friend COSTATE_INLINE Dual operator+(const Dual& a, B c) { return {a.v + c, a.d}; }
  friend COSTATE_INLINE Dual operator+(B c, const Dual& a) { return {c + a.v, a.d}; }
  friend COSTATE_INLINE Dual operator-(const Dual& a, B c) { return {a.v - c, a.d}; }
  friend COSTATE_INLINE Dual operator-(B c, const Dual& a) { return {c - a.v, -a.d}; }
  friend COSTATE_INLINE Dual operator*(const Dual& a, B c) { return {a.v * c, a.d * c}; }
  friend COSTATE_INLINE Dual operator*(B c, const Dual& a) { return {c * a.v, c * a.d}; }
  friend COSTATE_INLINE Dual operator/(const Dual& a, B c) { return {a.v / c, a.d / c}; }
  friend COSTATE_INLINE Dual operator/(B c, const Dual& a) {
    const T q = c / a.v;
    return {q, -q * a.d / a.v};
  }
  COSTATE_INLINE Dual& operator+=(const Dual& b) { return *this = *this + b; }
  COSTATE_INLINE Dual& operator-=(const Dual& b) { return *this = *this - b; }
  COSTATE_INLINE Dual& operator*=(const Dual& b) { return *this = *this * b; }
  COSTATE_INLINE Dual& operator/=(const Dual& b) { return *this = *this / b; }

  // Comparisons look at the values alone.
  friend COSTATE_INLINE bool operator<(const Dual& a, const Dual& b) { return a.v < b.v; }
  friend COSTATE_INLINE bool operator>(const Dual& a, const Dual& b) { return a.v > b.v; }
  friend COSTATE_INLINE bool operator<=(const Dual& a, const Dual& b) { return a.v <= b.v; }
  friend COSTATE_INLINE bool operator>=(const Dual& a, const Dual& b) { return a.v >= b.v; }
  friend COSTATE_INLINE bool operator==(const Dual& a, const Dual& b) { return a.v == b.v; }
  friend COSTATE_INLINE bool operator!=(const Dual& a, const Dual& b) { return a.v != b.v; }
};

// The plain number inside.
COSTATE_INLINE float value(float x) { return x; }
COSTATE_INLINE double value(double x) { return x; }
template <class T>
COSTATE_INLINE base_t<T> value(const Dual<T>& x) {
  return value(x.v);
}

// yes ? a : b, part by part.
COSTATE_INLINE float select(bool yes, float a, float b) { return yes ? a : b; }
COSTATE_INLINE double select(bool yes, double a, double b) { return yes ? a : b; }
template <class T>
COSTATE_INLINE Dual<T> select(bool yes, const Dual<T>& a, const Dual<T>& b) {
  return {select(yes, a.v, b.v), select(yes, a.d, b.d)};
}

// The larger resp. smaller argument; NaN if either is. Subgradient rule: at a tie the derivative is the
// second argument's, so that max(x, 0) has derivative 0 at 0 and a clamp has derivative 0 on its bounds.
template <class T>
COSTATE_INLINE T max(const T& a, const std::type_identity_t<T>& b) {
  return select(value(a) > value(b), a, select(value(a) == value(a), T(b), a));
}
template <class T>
COSTATE_INLINE T min(const T& a, const std::type_identity_t<T>& b) {
  return select(value(a) < value(b), a, select(value(a) == value(a), T(b), a));
}
// The same with a constant bound, in the order of operands that is one machine instruction and keeps NaN.
template <class T>
COSTATE_INLINE T at_least(const T& x, base_t<T> low) {
  return select(low >= value(x), T(low), x);
}
template <class T>
COSTATE_INLINE T at_most(const T& x, base_t<T> high) {
  return select(high <= value(x), T(high), x);
}
template <class T>
COSTATE_INLINE T clamp(const T& x, base_t<T> low, base_t<T> high) {
  return at_most(at_least(x, low), high);
}

}  // namespace costate::scalar
