// Pointwise operations. A row of pointwise.def names a functor of this file; everything else is generated from the two.
//
// A functor F is evaluated on scalars of type S, which is T (float or double) for the value and a dual number over T for
// derivatives; its parameters are constants of type T. Operands and results of bf16 are float in between.
//
// Kernel variants of an n-ary row, by number:
//   0                        f(x_1 .. x_n)                       operands x
//   1 + i                    g d_i f                             operands x, g
//   1 + n + i (n+1) + j      h d_j (g d_i f), j = n: d/dg        operands x, g, h     (order 2 only)
#pragma once
#include <costate/tensor/kernels.h>
#include <costate/tensor/scalar.h>

namespace costate {

enum class Pointwise : int {
#define COSTATE_POINTWISE(name, operands, parameters, order) name,
#include <costate/tensor/pointwise.def>
#undef COSTATE_POINTWISE
};

struct PointwiseRow {
  std::string_view name;
  int operands, parameters, order;
};
constexpr PointwiseRow pointwise_rows[] = {
#define COSTATE_POINTWISE(name, operands, parameters, order) {#name, operands, parameters, order},
#include <costate/tensor/pointwise.def>
#undef COSTATE_POINTWISE
};
constexpr int pointwise_count = static_cast<int>(std::size(pointwise_rows));
constexpr const PointwiseRow& row(Pointwise op) { return pointwise_rows[static_cast<int>(op)]; }

constexpr int variant_first(int i) { return 1 + i; }
constexpr int variant_second(int operands, int i, int j) { return 1 + operands + i * (operands + 1) + j; }

namespace functors {

#define COSTATE_UNARY(name, expression)                                   \
  struct name {                                                          \
    template <class S, class T>                                          \
    static COSTATE_INLINE S eval(const T*, S x) { return expression; } \
  }
COSTATE_UNARY(neg, -x);
COSTATE_UNARY(exp, scalar::exp(x));
COSTATE_UNARY(log, scalar::log(x));
COSTATE_UNARY(sqrt, scalar::sqrt(x));
COSTATE_UNARY(square, x* x);
COSTATE_UNARY(reciprocal, scalar::reciprocal(x));
COSTATE_UNARY(sin, scalar::sin(x));
COSTATE_UNARY(cos, scalar::cos(x));
COSTATE_UNARY(tanh, scalar::tanh(x));
COSTATE_UNARY(sigmoid, scalar::sigmoid(x));
COSTATE_UNARY(silu, scalar::silu(x));
COSTATE_UNARY(gelu_tanh, scalar::gelu_tanh(x));
COSTATE_UNARY(gelu_erf, scalar::gelu_erf(x));
COSTATE_UNARY(relu, scalar::max(x, S(T(0))));
COSTATE_UNARY(softplus, scalar::softplus(x));
COSTATE_UNARY(abs, scalar::abs(x));
#undef COSTATE_UNARY

struct affine {
  template <class S, class T>
  static COSTATE_INLINE S eval(const T* p, S x) { return p[0] * x + p[1]; }
};
struct power {
  template <class S, class T>
  static COSTATE_INLINE S eval(const T* p, S x) { return scalar::pow(x, static_cast<double>(p[0])); }
};
struct clamp {
  template <class S, class T>
  static COSTATE_INLINE S eval(const T* p, S x) { return scalar::min(scalar::max(x, S(p[0])), S(p[1])); }
};
struct add {
  template <class S, class T>
  static COSTATE_INLINE S eval(const T*, S x, S y) { return x + y; }
};
struct sub {
  template <class S, class T>
  static COSTATE_INLINE S eval(const T*, S x, S y) { return x - y; }
};
struct mul {
  template <class S, class T>
  static COSTATE_INLINE S eval(const T*, S x, S y) { return x * y; }
};
struct div {
  template <class S, class T>
  static COSTATE_INLINE S eval(const T*, S x, S y) { return x / y; }
};
struct maximum {
  template <class S, class T>
  static COSTATE_INLINE S eval(const T*, S x, S y) { return scalar::max(x, y); }
};
struct minimum {
  template <class S, class T>
  static COSTATE_INLINE S eval(const T*, S x, S y) { return scalar::min(x, y); }
};
struct axpby {
  template <class S, class T>
  static COSTATE_INLINE S eval(const T* p, S x, S y) { return p[0] * x + p[1] * y; }
};
struct multiply_add {
  template <class S, class T>
  static COSTATE_INLINE S eval(const T*, S x, S y, S z) { return x * y + z; }
};
// One step of a Gaussian chain: x' = A x + C prediction + std noise.
struct chain_step {
  template <class S, class T>
  static COSTATE_INLINE S eval(const T* p, S x, S prediction, S noise) {
    return p[0] * x + p[1] * prediction + p[2] * noise;
  }
};
// The residual of adjoint matching at one step: weight (prediction - base) + scale costate.
struct matching_residual {
  template <class S, class T>
  static COSTATE_INLINE S eval(const T* p, S prediction, S base, S costate) {
    return p[0] * (prediction - base) + p[1] * costate;
  }
};

}  // namespace functors
}  // namespace costate
