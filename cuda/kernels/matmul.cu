// Matrix products: by a library, with operands prepared as it wants them and the activation behind it, or by tiles, which
// take every call that MatmulCall describes.
#include "../table.h"
#include <costate/tensor/rounding.h>

#include "activation.h"
#include "product.h"

namespace costate::cuda {
namespace {

template <class T>
__device__ __forceinline__ T rounded(T v, Precision precision) {
  if constexpr (sizeof(T) == 8)
    return v;
  else
    return precision == Precision::tf32            ? rounding::to_tf32(v)
           : precision == Precision::bf16_products ? rounding::to_bf16(v)
                                                   : v;
}

// op(a) (m x k) times `scale` element by element, rounded for `precision`.
template <class T, bool transposed>
struct Left {
  using W = Wide<T>;
  static constexpr bool contiguous_k = !transposed;
  const T *a, *scale;
  std::int64_t row, stride;
  Precision precision;

  __device__ __forceinline__ void select(std::int64_t i) { a += i * stride; }
  __device__ __forceinline__ W at(std::int64_t m, std::int64_t k) const {
    const std::int64_t i = transposed ? k * row + m : m * row + k;
    return rounded(scale ? a[i] * scale[i] : W(a[i]), precision);
  }
};

// op(b) (k x n), asked for as (n, k).
template <class T, bool transposed>
struct Right {
  static constexpr bool contiguous_k = transposed;
  const T* b;
  std::int64_t row, stride;
  Precision precision;

  __device__ __forceinline__ void select(std::int64_t i) { b += i * stride; }
  __device__ __forceinline__ Wide<T> at(std::int64_t n, std::int64_t k) const {
    return rounded(Wide<T>(transposed ? b[n * row + k] : b[k * row + n]), precision);
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
  __device__ __forceinline__ void put(std::int64_t m, std::int64_t n, Wide<T> sum) const {
    const std::int64_t at = m * row + n;
    Wide<T> z = accumulate ? c[at] + sum : sum, slope;
    if (bias) z += bias[n];
    c[at] = activate<activation>(z, slope);
    if (derivative) derivative[at] = slope;
  }
};

template <class T, Activation activation>
__global__ void __launch_bounds__(block_threads) finish(std::int64_t elements, Result<T, activation> result) {
  for (std::int64_t e = first_task(); e < elements; e += task_stride()) {
    const std::int64_t m = e / result.row, n = e % result.row;
    Wide<T> z = result.c[e], slope;
    if (result.bias) z += result.bias[n];
    result.c[m * result.row + n] = activate<activation>(z, slope);
    if (result.derivative) result.derivative[e] = slope;
  }
}

template <class T>
__global__ void __launch_bounds__(block_threads)
    sum_scaled_columns(std::int64_t m, std::int64_t k, const T* a, const T* scale, T* out) {
  constexpr int columns = 32, lanes = block_threads / columns;
  COSTATE_SHARED(Wide<T>, part, [lanes][columns]);
  const int column = static_cast<int>(threadIdx.x) % columns, lane = static_cast<int>(threadIdx.x) / columns;
  const std::int64_t c = static_cast<std::int64_t>(blockIdx.x) * columns + column;
  Wide<T> s = 0;
  if (c < m)
    for (std::int64_t i = lane; i < k; i += lanes) s += scale ? a[i * m + c] * scale[i * m + c] : Wide<T>(a[i * m + c]);
  part[lane][column] = s;
  __syncthreads();
  if (lane == 0 && c < m) {
    for (int l = 1; l < lanes; ++l) s += part[l][column];
    out[c] = s;
  }
}

// out = in scale, element by element, as T or rounded to bf16, as libraries take operands.
template <class T, class Out>
__global__ void __launch_bounds__(block_threads) prepare(std::int64_t n, const T* in, const T* scale, Out* out) {
  for (std::int64_t e = first_task(); e < n; e += task_stride()) {
    out[e] = static_cast<Out>(scale ? in[e] * scale[e] : Wide<T>(in[e]));
  }
}

bool rounds(const MatmulShape& s) {
  return s.precision == Precision::bf16_products && s.dtype == DType::f32 && s.n > 4;  // precision.h
}
// What the tiles do to operands.
Precision rounding_of(const MatmulShape& s) {
  if (s.dtype == DType::f32 && s.precision == Precision::tf32) return Precision::tf32;
  return rounds(s) ? Precision::bf16_products : Precision::f32;
}
std::int64_t elements_of_a(const MatmulShape& s) { return (s.batch - 1) * s.stride_a + s.m * s.k; }
std::int64_t elements_of_b(const MatmulShape& s) { return (s.batch - 1) * s.stride_b + s.n * s.k; }
std::int64_t whole_lines(std::int64_t bytes) { return (bytes + 255) / 256 * 256; }

template <class T, class Output>
void launch_tiles(bool transpose_a, bool transpose_b, const MatmulShape& s, const void* a, const void* scale, const void* b,
                  Precision precision, const Output& output) {
  const auto left = [&](auto transposed) {
    return Left<T, decltype(transposed)::value>{static_cast<const T*>(a), static_cast<const T*>(scale),
                                                transpose_a ? s.m : s.k, s.stride_a, precision};
  };
  const auto right = [&](auto transposed) {
    return Right<T, decltype(transposed)::value>{static_cast<const T*>(b), transpose_b ? s.k : s.n, s.stride_b, precision};
  };
  const auto run = [&](const auto& x, const auto& y) {
    launch_product<Wide<T>>("matmul", s.m, s.n, s.k, s.batch, x, y, output);
  };
  if (transpose_a && transpose_b)
    run(left(std::true_type{}), right(std::true_type{}));
  else if (transpose_a)
    run(left(std::true_type{}), right(std::false_type{}));
  else if (transpose_b)
    run(left(std::false_type{}), right(std::true_type{}));
  else
    run(left(std::false_type{}), right(std::false_type{}));
}

void row_sums(const MatmulCall& call) {
  by_stored_type(call.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch("sums of rows", sum_scaled_columns<T>, dim3(static_cast<unsigned>((call.m + 31) / 32)), dim3(block_threads), 0,
           call.m, call.k, static_cast<const T*>(call.a), static_cast<const T*>(call.scale_a), static_cast<T*>(call.row_sums));
  });
}

}  // namespace

void tiled_matmul(const MatmulCall& call) {
  by_stored_type(call.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_activation(call.activation, [&](auto a) {
      const Result<T, decltype(a)::value> result{
          static_cast<T*>(call.c), static_cast<const T*>(call.bias), static_cast<T*>(call.derivative), call.n, call.m * call.n,
          call.accumulate};
      launch_tiles<T>(call.transpose_a, call.transpose_b, call, call.a, call.scale_a, call.b, rounding_of(call), result);
    });
  });
}

void tiled_library_product(const LibraryProduct& p) {
  MatmulShape s{};
  s.m = p.m, s.n = p.n, s.k = p.k, s.batch = p.batch, s.stride_a = p.stride_a, s.stride_b = p.stride_b;
  by_stored_type(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto run = [&](auto activation) {
      const Result<T, decltype(activation)::value> result{
          static_cast<T*>(p.c), static_cast<const T*>(p.bias), nullptr, p.n, p.m * p.n, p.accumulate};
      if (p.bf16)
        launch_tiles<Bf16>(p.transpose_a, p.transpose_b, s, p.a, nullptr, p.b, Precision::f32, result);
      else
        launch_tiles<T>(p.transpose_a, p.transpose_b, s, p.a, nullptr, p.b, p.tf32 ? Precision::tf32 : Precision::f32, result);
    };
    if (p.relu)
      run(ActivationTag<Activation::relu>{});
    else
      run(ActivationTag<Activation::none>{});
  });
}

void finish_product(const MatmulCall& call) {
  const std::int64_t elements = call.batch * call.m * call.n;
  if (elements == 0) return;
  by_stored_type(call.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_activation(call.activation, [&](auto a) {
      const Result<T, decltype(a)::value> result{
          static_cast<T*>(call.c), static_cast<const T*>(call.bias), static_cast<T*>(call.derivative), call.n, 0, false};
      launch("bias and activation", finish<T, decltype(a)::value>, grid_for(elements), dim3(block_threads), 0, elements,
             result);
    });
  });
}

bool multiplies_bf16() { return true; }

std::int64_t matmul_workspace(const MatmulShape& s) {
  if (rounds(s)) return whole_lines(2 * elements_of_a(s)) + whole_lines(2 * elements_of_b(s));
  return s.scaled ? whole_lines(size_of(s.dtype) * elements_of_a(s)) : 0;
}

void matmul(const MatmulCall& call) {
  if (call.row_sums && call.m) row_sums(call);
  if (call.m * call.n * call.batch == 0) return;
  if (call.k == 0) return tiled_matmul(call);
  // What a library does not fuse is one more pass: an activation with a derivative. (cuBLASLt's GELU is of unknown accuracy.)
  const bool fused = !call.derivative && (call.activation == Activation::none || call.activation == Activation::relu);
  LibraryProduct p{call.dtype,
                   rounds(call),
                   rounding_of(call) == Precision::tf32,
                   call.transpose_a,
                   call.transpose_b,
                   call.accumulate,
                   fused && call.activation == Activation::relu,
                   call.m,
                   call.n,
                   call.k,
                   call.batch,
                   call.stride_a,
                   call.stride_b,
                   call.a,
                   call.b,
                   fused ? call.bias : nullptr,
                   call.c};
  const std::int64_t a = elements_of_a(call), b = elements_of_b(call);
  by_stored_type(call.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto prepared = [&](std::int64_t n, const void* in, const void* scale, auto* out) {
      launch("operands of a product", prepare<T, std::remove_pointer_t<decltype(out)>>, grid_for(n), dim3(block_threads), 0, n,
             static_cast<const T*>(in), static_cast<const T*>(scale), out);
      return out;
    };
    auto* const work = static_cast<std::byte*>(call.workspace);
    if constexpr (std::is_same_v<T, float>) {
      if (p.bf16) {
        p.a = prepared(a, call.a, call.scale_a, reinterpret_cast<Bf16*>(work));
        p.b = prepared(b, call.b, nullptr, reinterpret_cast<Bf16*>(work + whole_lines(2 * a)));
      }
    }
    if (call.scale_a && !p.bf16) p.a = prepared(a, call.a, call.scale_a, reinterpret_cast<T*>(work));
  });
  if (!library_product(p)) return tiled_matmul(call);
  if (!fused) finish_product(call);
}

}  // namespace costate::cuda
