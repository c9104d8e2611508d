// Matrix products by tiles, for every call that MatmulCall describes, and what is done around those of libraries: the
// activation with its derivative, and sums of rows.
#include "../table.h"
#include "activation.h"
#include "product.h"

namespace costate::cuda {
namespace {

// op(a) (m x k), times `scale` element by element, rounded to bf16 if wished.
template <class T, bool transposed>
struct Left {
  static constexpr bool contiguous_k = !transposed;
  const T *a, *scale;
  std::int64_t row, stride;
  bool round;

  __device__ __forceinline__ void select(std::int64_t i) { a += i * stride; }
  __device__ __forceinline__ T at(std::int64_t m, std::int64_t k) const {
    const std::int64_t i = transposed ? k * row + m : m * row + k;
    const T v = scale ? a[i] * scale[i] : a[i];
    return round ? rounded(v) : v;
  }
  // To the nearest number with 8 significant bits, ties to even; infinities and NaN stay.
  static __device__ __forceinline__ T rounded(T v) {
    if constexpr (sizeof(T) == 8) return v;
    else {
      const std::uint32_t bits = scalar::detail::bits(v);
      if ((bits & 0x7f800000u) == 0x7f800000u) return v;
      return scalar::detail::from_bits((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
    }
  }
};

// op(b) (k x n), asked for as (n, k).
template <class T, bool transposed>
struct Right {
  static constexpr bool contiguous_k = transposed;
  const T* b;
  std::int64_t row, stride;
  bool round;

  __device__ __forceinline__ void select(std::int64_t i) { b += i * stride; }
  __device__ __forceinline__ T at(std::int64_t n, std::int64_t k) const {
    const T v = transposed ? b[n * row + k] : b[k * row + n];
    return round ? Left<T, false>::rounded(v) : v;
  }
};

template <class T, Activation activation>
struct Result {
  T* c;
  const T* bias;
  T* derivative;
  std::int64_t row, stride;
  bool accumulate;

  __device__ __forceinline__ void select(std::int64_t i) {
    c += i * stride;
    if (derivative) derivative += i * stride;
  }
  __device__ __forceinline__ void put(std::int64_t m, std::int64_t n, T sum) const {
    const std::int64_t at = m * row + n;
    T z = accumulate ? c[at] + sum : sum, slope;
    if (bias) z += bias[n];
    c[at] = activate<activation>(z, slope);
    if (derivative) derivative[at] = slope;
  }
};

template <class T, Activation activation>
__global__ void __launch_bounds__(block_threads)
    finish(std::int64_t elements, Result<T, activation> result) {
  for (std::int64_t e = first_task(); e < elements; e += task_stride()) {
    const std::int64_t m = e / result.row, n = e % result.row;
    T z = result.c[e], slope;
    if (result.bias) z += result.bias[n];
    result.c[m * result.row + n] = activate<activation>(z, slope);
    if (result.derivative) result.derivative[e] = slope;
  }
}

template <class T>
__global__ void __launch_bounds__(block_threads)
    sum_scaled_columns(std::int64_t m, std::int64_t k, const T* a, const T* scale, T* out) {
  constexpr int columns = 32, lanes = block_threads / columns;
  COSTATE_SHARED(T, part, [lanes][columns]);
  const int column = static_cast<int>(threadIdx.x) % columns, lane = static_cast<int>(threadIdx.x) / columns;
  const std::int64_t c = static_cast<std::int64_t>(blockIdx.x) * columns + column;
  T s = T(0);
  if (c < m)
    for (std::int64_t i = lane; i < k; i += lanes) s += scale ? a[i * m + c] * scale[i * m + c] : a[i * m + c];
  part[lane][column] = s;
  __syncthreads();
  if (lane == 0 && c < m) {
    for (int l = 1; l < lanes; ++l) s += part[l][column];
    out[c] = s;
  }
}

template <class T>
void typed(const MatmulCall& call) {
  const bool round = call.precision == Precision::bf16_products && call.dtype == DType::f32 && call.n > 4;  // precision.h
  const auto left = [&](auto transposed) {
    return Left<T, decltype(transposed)::value>{static_cast<const T*>(call.a), static_cast<const T*>(call.scale_a),
                                                call.transpose_a ? call.m : call.k, call.stride_a, round};
  };
  const auto right = [&](auto transposed) {
    return Right<T, decltype(transposed)::value>{static_cast<const T*>(call.b), call.transpose_b ? call.k : call.n, call.stride_b,
                                                 round};
  };
  with_activation(call.activation, [&](auto a) {
    const Result<T, decltype(a)::value> result{static_cast<T*>(call.c), static_cast<const T*>(call.bias),
                                               static_cast<T*>(call.derivative), call.n, call.m * call.n, call.accumulate};
    const auto run = [&](const auto& x, const auto& y) {
      launch_product<T>("matmul", call.m, call.n, call.k, call.batch, x, y, result);
    };
    if (call.transpose_a && call.transpose_b) run(left(std::true_type{}), right(std::true_type{}));
    else if (call.transpose_a) run(left(std::true_type{}), right(std::false_type{}));
    else if (call.transpose_b) run(left(std::false_type{}), right(std::true_type{}));
    else run(left(std::false_type{}), right(std::false_type{}));
  });
}

}  // namespace

void tiled_matmul(const MatmulCall& call) {
  by_type(call.dtype, [&](auto zero) { typed<decltype(zero)>(call); });
}

void row_sums(const MatmulCall& call) {
  if (call.m == 0) return;
  by_type(call.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch("sums of rows", sum_scaled_columns<T>, dim3(static_cast<unsigned>((call.m + 31) / 32)), dim3(block_threads), 0, call.m,
           call.k, static_cast<const T*>(call.a), static_cast<const T*>(call.scale_a), static_cast<T*>(call.row_sums));
  });
}

void finish_product(const MatmulCall& call) {
  const std::int64_t elements = call.batch * call.m * call.n;
  if (elements == 0) return;
  by_type(call.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_activation(call.activation, [&](auto a) {
      const Result<T, decltype(a)::value> result{static_cast<T*>(call.c), static_cast<const T*>(call.bias),
                                                 static_cast<T*>(call.derivative), call.n, 0, false};
      launch("bias and activation", finish<T, decltype(a)::value>, grid_for(elements), dim3(block_threads), 0, elements, result);
    });
  });
}

}  // namespace costate::cuda
