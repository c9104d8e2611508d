// The pointwise kernels of one instruction set: every variant of every row is a loop over contiguous arrays; operands
// that are walked otherwise are gathered, a block at a time, into a buffer that stays in the first-level cache.
#include <costate/tensor/parallel.h>
#include <costate/tensor/pointwise.h>
#include <costate/tensor/rounding.h>

#include <utility>

#include "table.h"

namespace costate::cpu::COSTATE_ISA {
namespace {

using scalar::Dual;

constexpr std::int64_t block = 256;
constexpr std::int64_t grain = 1 << 14;

using Function = void (*)(std::int64_t n, const void* const* in, const double* parameters, void* out);

template <class T>
struct Parameters {
  T p[4];
  explicit Parameters(const double* parameters, int count) {
    for (int i = 0; i < count; ++i) p[i] = static_cast<T>(parameters[i]);
  }
};

#if defined(__clang__)
#define COSTATE_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define COSTATE_INDEPENDENT _Pragma("GCC ivdep")
#endif

// f(x...), for an element-for-element loop an operand may be the result.
template <class F, class T, int Count, std::size_t... I>
void value(std::int64_t n, const T* const (&x)[sizeof...(I)], const double* parameters, T* out,
           std::index_sequence<I...>) {
  const Parameters<T> p(parameters, Count);
  COSTATE_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) out[i] = F::eval(p.p, x[I][i]...);
}

template <class F, class T, int Count, int D, std::size_t... I>
void first(std::int64_t n, const T* const (&x)[sizeof...(I)], const T* g, const double* parameters, T* out,
           std::index_sequence<I...>) {
  const Parameters<T> p(parameters, Count);
  COSTATE_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i)
    out[i] = g[i] * F::eval(p.p, Dual<T>(x[I][i], T(I == D ? 1 : 0))...).d;
}

template <class F, class T, int Count, int D, int E, std::size_t... I>
void second(std::int64_t n, const T* const (&x)[sizeof...(I)], const T* g, const T* h, const double* parameters, T* out,
            std::index_sequence<I...>) {
  using D1 = Dual<T>;
  const Parameters<T> p(parameters, Count);
  COSTATE_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i)
    out[i] = g[i] * h[i] *
             F::eval(p.p, Dual<D1>(D1(x[I][i], T(I == E ? 1 : 0)), D1(T(I == D ? 1 : 0), T(0)))...).d.d;
}

template <class F, class T, int N, int Count, int Variant>
void run(std::int64_t n, const void* const* in, const double* parameters, void* out) {
  constexpr auto indices = std::make_index_sequence<N>{};
  const T* x[N];
  for (int i = 0; i < N; ++i) x[i] = static_cast<const T*>(in[i]);
  const T* const(&cx)[N] = x;
  T* const o = static_cast<T*>(out);
  if constexpr (Variant == 0) {
    value<F, T, Count>(n, cx, parameters, o, indices);
  } else if constexpr (Variant <= N) {
    first<F, T, Count, Variant - 1>(n, cx, static_cast<const T*>(in[N]), parameters, o, indices);
  } else {
    constexpr int i = (Variant - 1 - N) / (N + 1), j = (Variant - 1 - N) % (N + 1);
    const T* const h = static_cast<const T*>(in[N + 1]);
    // d/dg (g d_i f) h is the first derivative with h for g; and second derivatives are symmetric.
    if constexpr (j == N) first<F, T, Count, i>(n, cx, h, parameters, o, indices);
    else if constexpr (i <= j)
      second<F, T, Count, i, j>(n, cx, static_cast<const T*>(in[N]), h, parameters, o, indices);
    else run<F, T, N, Count, 1 + N + j * (N + 1) + i>(n, in, parameters, out);
  }
}

constexpr int max_variants = 1 + 3 + 3 * 4;  // order 2 for at most three operands, order 1 for at most eight

struct Row {
  Function f32[max_variants], f64[max_variants];
};

template <class F, int N, int Count, std::size_t... V>
constexpr Row make_row(std::index_sequence<V...>) {
  return Row{{&run<F, float, N, Count, V>...}, {&run<F, double, N, Count, V>...}};
}
template <class F, int N, int Count, int Order>
constexpr Row make_row() {
  constexpr int variants = 1 + N + (Order == 2 ? N * (N + 1) : 0);
  static_assert(variants <= max_variants);
  return make_row<F, N, Count>(std::make_index_sequence<variants>{});
}

constexpr Row rows[] = {
#define COSTATE_POINTWISE(name, operands, parameters, order) make_row<functors::name, operands, parameters, order>(),
#include <costate/tensor/pointwise.def>
#undef COSTATE_POINTWISE
};

// Elements begin..end of the loop, operands gathered where they are not contiguous.
template <class T>
void strided(Function f, const PointwiseCall& call, std::int64_t begin, std::int64_t end) {
  const Loop& loop = call.loop;
  const int last = loop.rank - 1;
  alignas(64) T buffer[Loop::max_operands][block];
  const void* in[Loop::max_operands];
  std::int64_t index[Shape::max_rank], at[Loop::max_operands] = {};
  for (std::int64_t axis = last, rest = begin; axis >= 0; --axis) {
    index[axis] = rest % loop.extent[axis];
    rest /= loop.extent[axis];
  }
  for (int k = 0; k < call.operands; ++k)
    for (int axis = 0; axis <= last; ++axis) at[k] += index[axis] * loop.stride[k][axis];
  const auto carry = [&] {  // from the end of a row of the last axis to the next row
    for (int axis = last; axis > 0 && index[axis] == loop.extent[axis]; --axis) {
      index[axis] = 0;
      ++index[axis - 1];
      for (int k = 0; k < call.operands; ++k)
        at[k] += loop.stride[k][axis - 1] - loop.extent[axis] * loop.stride[k][axis];
    }
  };
  T* out = static_cast<T*>(call.out);
  const bool long_rows = loop.extent[last] >= 32;
  const T* repeated[Loop::max_operands] = {};  // whose value fills the first elements of the buffer
  std::int64_t filled[Loop::max_operands] = {};
  for (std::int64_t i = begin; i < end;) {
    std::int64_t n = end - i < block ? end - i : block;
    if (long_rows) {
      const std::int64_t left = loop.extent[last] - index[last];
      if (left < n) n = left;
      for (int k = 0; k < call.operands; ++k) {
        const T* source = static_cast<const T*>(call.in[k]) + at[k];
        const std::int64_t stride = loop.stride[k][last];
        if (stride == 1) {
          in[k] = source;
        } else if (stride == 0) {  // one number for the whole row, and often for the next ones
          if (repeated[k] != source || filled[k] < n) {
            for (std::int64_t j = 0; j < n; ++j) buffer[k][j] = *source;
            repeated[k] = source, filled[k] = n;
          }
          in[k] = buffer[k];
        } else {
          for (std::int64_t j = 0; j < n; ++j) buffer[k][j] = source[j * stride];
          in[k] = buffer[k];
        }
        at[k] += n * stride;
      }
      index[last] += n;
      carry();
    } else {
      for (std::int64_t j = 0; j < n; ++j) {
        for (int k = 0; k < call.operands; ++k) {
          buffer[k][j] = static_cast<const T*>(call.in[k])[at[k]];
          at[k] += loop.stride[k][last];
        }
        ++index[last];
        carry();
      }
      for (int k = 0; k < call.operands; ++k) in[k] = buffer[k];
    }
    f(n, in, call.parameters, out + i);
    i += n;
  }
}

// bf16, whose blocks are widened, computed with in f32 and rounded: elements begin..end, operands wherever they lie.
void rounded(Function f, const PointwiseCall& call, std::int64_t begin, std::int64_t end) {
  const Loop& loop = call.loop;
  alignas(64) float buffer[Loop::max_operands][block], result[block];
  const void* in[Loop::max_operands];
  for (int k = 0; k < call.operands; ++k) in[k] = buffer[k];
  auto* const out = static_cast<std::uint16_t*>(call.out);
  for (std::int64_t i = begin; i < end; i += block) {
    const std::int64_t n = end - i < block ? end - i : block;
    for (int k = 0; k < call.operands; ++k) {
      const auto* const source = static_cast<const std::uint16_t*>(call.in[k]);
      if (loop.contiguous) {
        for (std::int64_t j = 0; j < n; ++j) buffer[k][j] = rounding::from_bf16_bits(source[i + j]);
        continue;
      }
      // Rows of the last axis, from where element i lies in it.
      std::int64_t index[Shape::max_rank], at = 0;
      const int last = loop.rank - 1;
      for (std::int64_t axis = last, rest = i; axis >= 0; --axis) {
        index[axis] = rest % loop.extent[axis];
        rest /= loop.extent[axis];
        at += index[axis] * loop.stride[k][axis];
      }
      for (std::int64_t j = 0; j < n;) {
        const std::int64_t left = loop.extent[last] - index[last], row = left < n - j ? left : n - j,
                           stride = loop.stride[k][last];
        for (std::int64_t e = 0; e < row; ++e) buffer[k][j + e] = rounding::from_bf16_bits(source[at + e * stride]);
        j += row, index[last] += row, at += row * stride;
        for (int axis = last; axis > 0 && index[axis] == loop.extent[axis]; --axis) {
          index[axis] = 0;
          ++index[axis - 1];
          at += loop.stride[k][axis - 1] - loop.extent[axis] * loop.stride[k][axis];
        }
      }
    }
    f(n, in, call.parameters, result);
    for (std::int64_t j = 0; j < n; ++j) out[i + j] = rounding::bf16_bits(result[j]);
  }
}

template <class T>
void typed(Function f, const PointwiseCall& call) {
  const std::int64_t n = call.loop.numel;
  if (!call.loop.contiguous) {
    parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) { strided<T>(f, call, begin, end); });
    return;
  }
  if (n <= grain) {
    f(n, call.in, call.parameters, call.out);
    return;
  }
  parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
    const void* in[Loop::max_operands];
    for (int k = 0; k < call.operands; ++k) in[k] = static_cast<const T*>(call.in[k]) + begin;
    f(end - begin, in, call.parameters, static_cast<T*>(call.out) + begin);
  });
}

}  // namespace

void pointwise(const PointwiseCall& call) {
  const Row& row = rows[call.op];
  if (call.dtype == DType::bf16)
    parallel_for(call.loop.numel, grain,
                 [&](std::int64_t begin, std::int64_t end) { rounded(row.f32[call.variant], call, begin, end); });
  else if (call.dtype == DType::f32) typed<float>(row.f32[call.variant], call);
  else typed<double>(row.f64[call.variant], call);
}

}  // namespace costate::cpu::COSTATE_ISA
