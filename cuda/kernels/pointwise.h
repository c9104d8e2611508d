// The pointwise kernels, generated from pointwise.def: every variant of every row, by vectors where all operands lie like
// the result, by strides otherwise. The variants are those of tensor/pointwise.h; the cpu's (tensor/cpu/isa/pointwise.cpp)
// are the specification. One translation unit an element type.
#pragma once
#include <costate/tensor/pointwise.h>

#include <utility>

#include "grid.h"

namespace costate::cuda {
namespace {

template <class T>
struct PointwiseArguments {
  const T* in[Loop::max_operands];
  T* out;
  Wide<T> parameters[4];
  std::int64_t n;
  int rank;
  std::int64_t extent[Shape::max_rank], stride[Loop::max_operands][Shape::max_rank];
};

// The scalar function of a variant, of operands x_1 .. x_n, then g, then h.
template <class F, class T, int N, int Variant>
struct Term {
  using Dual = scalar::Dual<T>;
  static constexpr bool value = Variant == 0, first = !value && Variant <= N;
  static constexpr int i = (Variant - 1 - N) / (N + 1), j = (Variant - 1 - N) % (N + 1);
  static constexpr int operands = value ? N : first ? N + 1 : N + 2;

  template <std::size_t... I>
  static COSTATE_INLINE T eval(const T* p, const T* x, std::index_sequence<I...>) {
    if constexpr (value)
      return F::eval(p, x[I]...);
    else if constexpr (first)
      return x[N] * F::eval(p, Dual(x[I], T(static_cast<int>(I) == Variant - 1 ? 1 : 0))...).d;
    else if constexpr (j == N)  // d/dg of g d_i f, times h
      return x[N + 1] * F::eval(p, Dual(x[I], T(static_cast<int>(I) == i ? 1 : 0))...).d;
    else
      return x[N] * x[N + 1] *
             F::eval(p, scalar::Dual<Dual>(Dual(x[I], T(static_cast<int>(I) == j ? 1 : 0)),
                                           Dual(T(static_cast<int>(I) == i ? 1 : 0), T(0)))...)
                 .d.d;
  }
  static COSTATE_INLINE T eval(const T* p, const T* x) { return eval(p, x, std::make_index_sequence<N>{}); }
};

template <class T>
struct Vector;  // 16 bytes
template <>
struct Vector<float> {
  using type = float4;
  static constexpr int width = 4;
};
template <>
struct Vector<double> {
  using type = double2;
  static constexpr int width = 2;
};

template <>
struct Vector<Bf16> {
  using type = float4;
  static constexpr int width = 8;
};

template <class Term, class T>
__global__ void __launch_bounds__(block_threads) pointwise_vectors(PointwiseArguments<T> a) {
  constexpr int width = Vector<T>::width;
  using V = typename Vector<T>::type;
  const std::int64_t vectors = a.n / width;
  for (std::int64_t v = first_task(); v <= vectors; v += task_stride()) {
    Wide<T> x[width][Term::operands];
    T y[width];
    if (v == vectors) {  // what is left of a vector
      for (std::int64_t e = v * width; e < a.n; ++e) {
        for (int k = 0; k < Term::operands; ++k) x[0][k] = a.in[k][e];
        a.out[e] = Term::eval(a.parameters, x[0]);
      }
      break;
    }
    COSTATE_UNROLL
    for (int k = 0; k < Term::operands; ++k) {
      const V loaded = reinterpret_cast<const V*>(a.in[k])[v];
      T part[width];
      memcpy(part, &loaded, sizeof part);
      COSTATE_UNROLL
      for (int l = 0; l < width; ++l) x[l][k] = part[l];
    }
    COSTATE_UNROLL
    for (int l = 0; l < width; ++l) y[l] = Term::eval(a.parameters, x[l]);
    V result;
    static_assert(sizeof result == sizeof y);
    memcpy(&result, y, sizeof y);
    reinterpret_cast<V*>(a.out)[v] = result;
  }
}

template <class Term, class T>
__global__ void __launch_bounds__(block_threads) pointwise_strided(PointwiseArguments<T> a) {
  for (std::int64_t e = first_task(); e < a.n; e += task_stride()) {
    std::int64_t at[Term::operands] = {};
    std::int64_t rest = e;
    for (int axis = a.rank - 1; axis >= 0; --axis) {
      // 32-bit division is several times cheaper, and enough for all but huge tensors.
      std::int64_t q;
      if (rest <= 0x7fffffff)
        q = static_cast<std::uint32_t>(rest) / static_cast<std::uint32_t>(a.extent[axis]);
      else
        q = rest / a.extent[axis];
      const std::int64_t c = rest - q * a.extent[axis];
      rest = q;
      COSTATE_UNROLL
      for (int k = 0; k < Term::operands; ++k) at[k] += c * a.stride[k][axis];
    }
    Wide<T> x[Term::operands];
    COSTATE_UNROLL
    for (int k = 0; k < Term::operands; ++k) x[k] = a.in[k][at[k]];
    a.out[e] = Term::eval(a.parameters, x);
  }
}

template <class T>
using PointwiseKernel = void (*)(PointwiseArguments<T>);

// What a variant computes under another number: second derivatives are symmetric, and d/dg leaves h for g.
template <int N, int Variant>
constexpr int same_as() {
  if (Variant <= N) return Variant;
  const int i = (Variant - 1 - N) / (N + 1), j = (Variant - 1 - N) % (N + 1);
  return j < i ? 1 + N + j * (N + 1) + i : Variant;
}

constexpr int max_variants = 1 + 3 + 3 * 4;

template <class T>
struct PointwiseKernels {
  PointwiseKernel<T> vectors[max_variants], strided[max_variants];
};

template <class F, class T, int N, std::size_t... V>
constexpr PointwiseKernels<T> kernels_of(std::index_sequence<V...>) {
  return {{&pointwise_vectors<Term<F, Wide<T>, N, same_as<N, static_cast<int>(V)>()>, T>...},
          {&pointwise_strided<Term<F, Wide<T>, N, same_as<N, static_cast<int>(V)>()>, T>...}};
}
template <class F, class T, int N, int Order>
constexpr PointwiseKernels<T> kernels_of() {
  constexpr int variants = 1 + N + (Order == 2 ? N * (N + 1) : 0);
  static_assert(variants <= max_variants);
  return kernels_of<F, T, N>(std::make_index_sequence<variants>{});
}

template <class T>
void launch_pointwise(const PointwiseCall& call) {
  static const PointwiseKernels<T> kernels[] = {
#define COSTATE_POINTWISE(name, operands, parameters, order) kernels_of<functors::name, T, operands, order>(),
#include <costate/tensor/pointwise.def>
#undef COSTATE_POINTWISE
  };
  const Loop& loop = call.loop;
  if (loop.numel == 0) return;
  PointwiseArguments<T> a{};
  std::uintptr_t addresses = reinterpret_cast<std::uintptr_t>(call.out);
  for (int k = 0; k < call.operands; ++k) {
    a.in[k] = static_cast<const T*>(call.in[k]);
    addresses |= reinterpret_cast<std::uintptr_t>(call.in[k]);
  }
  a.out = static_cast<T*>(call.out);
  for (int p = 0; p < pointwise_rows[call.op].parameters; ++p) a.parameters[p] = static_cast<Wide<T>>(call.parameters[p]);
  a.n = loop.numel;
  if (loop.contiguous && addresses % 16 == 0) {
    launch(pointwise_rows[call.op].name.data(), kernels[call.op].vectors[call.variant], grid_for(a.n / Vector<T>::width + 1),
           dim3(block_threads), 0, a);
    return;
  }
  if (loop.contiguous) {
    a.rank = 1, a.extent[0] = loop.numel;
    for (int k = 0; k < call.operands; ++k) a.stride[k][0] = 1;
  } else {
    a.rank = loop.rank;
    for (int axis = 0; axis < loop.rank; ++axis) {
      a.extent[axis] = loop.extent[axis];
      for (int k = 0; k < call.operands; ++k) a.stride[k][axis] = loop.stride[k][axis];
    }
  }
  launch(pointwise_rows[call.op].name.data(), kernels[call.op].strided[call.variant], grid_for(a.n), dim3(block_threads), 0, a);
}

}  // namespace

void pointwise_bf16(const PointwiseCall&);
void pointwise_f32(const PointwiseCall&);
void pointwise_f64(const PointwiseCall&);

}  // namespace costate::cuda
