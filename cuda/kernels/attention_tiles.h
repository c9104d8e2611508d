// Attention in f32 for heads of up to 128 elements: the algorithm of attention.cu with sums in registers. A block of 16 x 16
// threads holds a square tile of scores, of which thread (group, lane) has the rows group + 16 i and the columns lane + 16 j,
// i, j < R; of what it sums up it has the same rows and the elements lane + 16 c, c < C. Rows in shared memory are 16 C
// elements long, and zeros behind the head's width, so that all loops have lengths that the compiler knows; they lie one more
// element apart, so that a column is spread over all banks.
#pragma once
#include "attention.h"

namespace costate::cuda {
namespace {

constexpr int side = 16;

template <int R, int C>
struct Tiles {
  static constexpr int rows = side * R, length = side * C, row = length + 1, score = rows + 1;
  using Scores = float[R][R];
  using Sums = float[R][C];

  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % side; }
  static __device__ __forceinline__ int group() { return static_cast<int>(threadIdx.x) / side; }

  // `from` (count, width), rows `stride` apart: its rows first, first + 1, ..., and zeros beyond its end.
  static __device__ __forceinline__ void load(const float* from, std::int64_t stride, std::int64_t first, std::int64_t count,
                                              int width, float* to) {
    for (int e = static_cast<int>(threadIdx.x); e < rows * length; e += block_threads) {
      const int r = e / length, d = e % length;
      to[r * row + d] = d < width && first + r < count ? from[(first + r) * stride + d] : 0.0f;
    }
  }
  // s += a b^T
  static __device__ __forceinline__ void multiply(const float* a, const float* b, Scores& s) {
    COSTATE_UNROLL4
    for (int d = 0; d < length; ++d) {
      float x[R], y[R];
      COSTATE_UNROLL
      for (int i = 0; i < R; ++i) x[i] = a[(group() + side * i) * row + d], y[i] = b[(lane() + side * i) * row + d];
      COSTATE_UNROLL
      for (int i = 0; i < R; ++i) COSTATE_UNROLL
      for (int j = 0; j < R; ++j) s[i][j] += x[i] * y[j];
    }
  }
  // sum += p b, where p is a tile of scores.
  static __device__ __forceinline__ void weigh(const float* p, const float* b, Sums& sum) {
    COSTATE_UNROLL4
    for (int j = 0; j < rows; ++j) {
      float x[R], y[C];
      COSTATE_UNROLL
      for (int i = 0; i < R; ++i) x[i] = p[(group() + side * i) * score + j];
      COSTATE_UNROLL
      for (int c = 0; c < C; ++c) y[c] = b[j * row + lane() + side * c];
      COSTATE_UNROLL
      for (int i = 0; i < R; ++i) COSTATE_UNROLL
      for (int c = 0; c < C; ++c) sum[i][c] += x[i] * y[c];
    }
  }
  static __device__ __forceinline__ void keep(const Scores& s, float* p) {
    COSTATE_UNROLL
    for (int i = 0; i < R; ++i) COSTATE_UNROLL
    for (int j = 0; j < R; ++j) p[(group() + side * i) * score + lane() + side * j] = s[i][j];
  }
  // to[first + r, d] = factor_r sum_r of the rows that there are.
  template <class Factor>
  static __device__ __forceinline__ void store(const Sums& sum, const Factor& factor, std::int64_t stride, std::int64_t first,
                                               std::int64_t count, int width, float* to) {
    COSTATE_UNROLL
    for (int i = 0; i < R; ++i) {
      const std::int64_t r = first + group() + side * i;
      if (r >= count) continue;
      COSTATE_UNROLL
      for (int c = 0; c < C; ++c)
        if (lane() + side * c < width) to[r * stride + lane() + side * c] = factor(i) * sum[i][c];
    }
  }
  // Of the 16 threads that share a row.
  template <class Combine>
  static __device__ __forceinline__ float of_row(float v, Combine combine) {
    COSTATE_UNROLL
    for (int bits = side / 2; bits > 0; bits /= 2) v = combine(v, __shfl_xor_sync(whole_warp, v, bits));
    return v;
  }
};

template <int R, int C>
constexpr std::size_t forward_tiles_bytes() {
  using T = Tiles<R, C>;
  return (2 * T::rows * T::row + T::rows * T::score) * sizeof(float);
}

template <int R, int C>
__global__ void __launch_bounds__(block_threads) attention_forward_tiles(Attention<float> c, float* out, float* log_sum_exp) {
  using T = Tiles<R, C>;
  COSTATE_DYNAMIC_SHARED(float, q);
  float *const kv = q + T::rows * T::row, *const p = kv + T::rows * T::row;
  const int width = static_cast<int>(c.width);
  const std::int64_t sample = blockIdx.z, head = blockIdx.y, q0 = static_cast<std::int64_t>(blockIdx.x) * T::rows;
  const float *const keys = c.k + sample * c.keys * c.row_k + head * width,
                    *const values = c.v + sample * c.keys * c.row_v + head * width;
  T::load(c.q + sample * c.queries * c.row_q + head * width, c.row_q, q0, c.queries, width, q);
  float top[R], mass[R] = {};
  typename T::Sums sum = {};
  for (int i = 0; i < R; ++i) top[i] = lowest<float>();
  for (std::int64_t k0 = 0; k0 < c.keys; k0 += T::rows) {
    T::load(keys, c.row_k, k0, c.keys, width, kv);
    __syncthreads();
    typename T::Scores s = {};
    T::multiply(q, kv, s);
    COSTATE_UNROLL
    for (int i = 0; i < R; ++i) {
      float largest = lowest<float>(), added = 0;
      COSTATE_UNROLL
      for (int j = 0; j < R; ++j) {
        s[i][j] = k0 + T::lane() + side * j < c.keys ? c.scale * s[i][j] : lowest<float>();
        largest = Larger{}(largest, s[i][j]);
      }
      const float now = Larger{}(top[i], T::of_row(largest, Larger{})), shrink = scalar::exp(top[i] - now);
      COSTATE_UNROLL
      for (int j = 0; j < R; ++j) s[i][j] = scalar::exp(s[i][j] - now), added += s[i][j];
      mass[i] = mass[i] * shrink + T::of_row(added, Add{}), top[i] = now;
      COSTATE_UNROLL
      for (int e = 0; e < C; ++e) sum[i][e] *= shrink;
    }
    T::keep(s, p);
    __syncthreads();  // the keys have been read
    T::load(values, c.row_v, k0, c.keys, width, kv);
    __syncthreads();
    T::weigh(p, kv, sum);
    __syncthreads();
  }
  T::store(sum, [&](int i) { return 1.0f / mass[i]; }, c.row_out(), q0, c.queries, width,
           out + sample * c.queries * c.row_out() + head * width);
  if (!log_sum_exp || T::lane() != 0) return;
  for (int i = 0; i < R; ++i)
    if (const std::int64_t r = q0 + T::group() + side * i; r < c.queries)
      log_sum_exp[(sample * c.heads + head) * c.queries + r] = top[i] + scalar::log(mass[i]);
}

template <int R, int C>
constexpr std::size_t dq_tiles_bytes() {
  using T = Tiles<R, C>;
  return (4 * T::rows * T::row + T::rows * T::score) * sizeof(float);
}
template <int R, int C>
constexpr std::size_t dkv_tiles_bytes() {
  using T = Tiles<R, C>;
  return (4 * T::rows * T::row + 2 * T::rows * T::score) * sizeof(float);
}

template <int R, int C>
__global__ void __launch_bounds__(block_threads)
    attention_dq_tiles(Attention<float> c, const float* log_sum_exp, const float* inner, const float* cotangent, float* dq) {
  using T = Tiles<R, C>;
  COSTATE_DYNAMIC_SHARED(float, q);
  constexpr int size = T::rows * T::row;
  float *const g = q + size, *const k = g + size, *const v = k + size, *const kept = v + size;
  const int width = static_cast<int>(c.width);
  const std::int64_t sample = blockIdx.z, head = blockIdx.y, q0 = static_cast<std::int64_t>(blockIdx.x) * T::rows,
                     at_row = (sample * c.heads + head) * c.queries;
  T::load(c.q + sample * c.queries * c.row_q + head * width, c.row_q, q0, c.queries, width, q);
  T::load(cotangent + sample * c.queries * c.row_out() + head * width, c.row_out(), q0, c.queries, width, g);
  float logs[R], slopes[R];
  for (int i = 0; i < R; ++i) {
    const std::int64_t r = q0 + T::group() + side * i;
    logs[i] = r < c.queries ? log_sum_exp[at_row + r] : 0.0f, slopes[i] = r < c.queries ? inner[at_row + r] : 0.0f;
  }
  typename T::Sums sum = {};
  for (std::int64_t k0 = 0; k0 < c.keys; k0 += T::rows) {
    T::load(c.k + sample * c.keys * c.row_k + head * width, c.row_k, k0, c.keys, width, k);
    T::load(c.v + sample * c.keys * c.row_v + head * width, c.row_v, k0, c.keys, width, v);
    __syncthreads();
    typename T::Scores s = {}, ds = {};
    T::multiply(q, k, s);
    T::multiply(g, v, ds);
    COSTATE_UNROLL
    for (int i = 0; i < R; ++i) COSTATE_UNROLL
    for (int j = 0; j < R; ++j)
      ds[i][j] = k0 + T::lane() + side * j < c.keys ? scalar::exp(c.scale * s[i][j] - logs[i]) * (ds[i][j] - slopes[i]) : 0.0f;
    T::keep(ds, kept);
    __syncthreads();
    T::weigh(kept, k, sum);
    __syncthreads();
  }
  T::store(sum, [&](int) { return c.scale; }, c.row_q, q0, c.queries, width,
           dq + sample * c.queries * c.row_q + head * width);
}

// Rows of the tiles are keys here, and columns queries.
template <int R, int C>
__global__ void __launch_bounds__(block_threads)
    attention_dkv_tiles(Attention<float> c, const float* log_sum_exp, const float* inner, const float* cotangent, float* dk,
                        float* dv) {
  using T = Tiles<R, C>;
  COSTATE_DYNAMIC_SHARED(float, q);
  constexpr int size = T::rows * T::row;
  float *const g = q + size, *const k = g + size, *const v = k + size, *const weights = v + size,
               *const slopes = weights + T::rows * T::score;
  const int width = static_cast<int>(c.width);
  const std::int64_t sample = blockIdx.z, head = blockIdx.y, k0 = static_cast<std::int64_t>(blockIdx.x) * T::rows,
                     at_row = (sample * c.heads + head) * c.queries;
  T::load(c.k + sample * c.keys * c.row_k + head * width, c.row_k, k0, c.keys, width, k);
  T::load(c.v + sample * c.keys * c.row_v + head * width, c.row_v, k0, c.keys, width, v);
  typename T::Sums sum_k = {}, sum_v = {};
  for (std::int64_t q0 = 0; q0 < c.queries; q0 += T::rows) {
    T::load(c.q + sample * c.queries * c.row_q + head * width, c.row_q, q0, c.queries, width, q);
    T::load(cotangent + sample * c.queries * c.row_out() + head * width, c.row_out(), q0, c.queries, width, g);
    __syncthreads();
    typename T::Scores p = {}, ds = {};
    T::multiply(k, q, p);
    T::multiply(v, g, ds);
    COSTATE_UNROLL
    for (int j = 0; j < R; ++j) {
      const std::int64_t query = q0 + T::lane() + side * j;
      const bool there = query < c.queries;
      const float log = there ? log_sum_exp[at_row + query] : 0.0f, slope = there ? inner[at_row + query] : 0.0f;
      COSTATE_UNROLL
      for (int i = 0; i < R; ++i) {
        p[i][j] = there ? scalar::exp(c.scale * p[i][j] - log) : 0.0f;
        ds[i][j] = p[i][j] * (ds[i][j] - slope);
      }
    }
    T::keep(p, weights);
    T::keep(ds, slopes);
    __syncthreads();
    T::weigh(weights, g, sum_v);
    T::weigh(slopes, q, sum_k);
    __syncthreads();
  }
  if (dk)
    T::store(sum_k, [&](int) { return c.scale; }, c.row_k, k0, c.keys, width, dk + sample * c.keys * c.row_k + head * width);
  if (dv) T::store(sum_v, [&](int) { return 1.0f; }, c.row_v, k0, c.keys, width, dv + sample * c.keys * c.row_v + head * width);
}

}  // namespace
}  // namespace costate::cuda
