// Attention without its matrix of scores in memory (Dao, FlashAttention-2, 2023): a block holds a tile of queries, keys and
// values pass by in tiles, and the softmax is corrected as its maximum grows (Milakov and Gimelshein 2018). The sweep
// computes the probabilities again from the log of the sums; its two kernels own queries resp. keys, so that nothing is
// added by several blocks and the bits do not depend on their order. Heads of up to 128 elements have their sums in registers:
// f32 (attention_tiles.h), and bf16 on tensor cores (attention_mma.h); the kernels of this file are for the others.
#include <algorithm>
#include <type_traits>

#include "../table.h"
#include "attention_tiles.h"

namespace costate::cuda {
namespace {

constexpr int threads = block_threads;

// Rows of a tile lie width + 1 apart in shared memory, so that a column is spread over all banks.
template <int tile, class T>
__device__ __forceinline__ void load_tile(const T* from, std::int64_t row, std::int64_t first, std::int64_t count,
                                          std::int64_t width, Wide<T>* to) {
  for (std::int64_t e = threadIdx.x; e < tile * width; e += threads) {
    const std::int64_t r = e / width, d = e % width;
    to[r * (width + 1) + d] = first + r < count ? Wide<T>(from[(first + r) * row + d]) : Wide<T>(0);
  }
}
template <class T>
__device__ __forceinline__ T dot(std::int64_t width, const T* a, const T* b) {
  T s = T(0);
  for (std::int64_t d = 0; d < width; ++d) s += a[d] * b[d];
  return s;
}
template <int tile, class T>
constexpr std::int64_t forward_bytes(std::int64_t width) {
  return (3 * tile * (width + 1) + tile * (tile + 1) + 3 * tile) * static_cast<std::int64_t>(sizeof(Wide<T>));
}

// grid: tiles of queries, heads, samples.
template <int tile, class T>
__global__ void __launch_bounds__(threads) attention_forward(Attention<T> c, T* out, Wide<T>* log_sum_exp) {
  using W = Wide<T>;
  COSTATE_DYNAMIC_SHARED(W, shared);
  const std::int64_t w = c.width, row = w + 1;
  W* const q = shared;
  W* const kv = q + tile * row;
  W* const sum = kv + tile * row;        // of p v
  W* const p = sum + tile * row;         // scores, then probabilities but for their common factor
  W* const top = p + tile * (tile + 1);  // of the scores so far
  W* const mass = top + tile;            // sum of p
  W* const shrink = mass + tile;         // what a new maximum does to older sums
  const std::int64_t sample = blockIdx.z, head = blockIdx.y, q0 = static_cast<std::int64_t>(blockIdx.x) * tile;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % warp;
  const T* const keys = c.k + sample * c.keys * c.row_k + head * w;
  const T* const values = c.v + sample * c.keys * c.row_v + head * w;
  load_tile<tile>(c.q + sample * c.queries * c.row_q + head * w, c.row_q, q0, c.queries, w, q);
  for (std::int64_t e = thread; e < tile * row; e += threads) sum[e] = W(0);
  for (int r = thread; r < tile; r += threads) top[r] = lowest<W>(), mass[r] = W(0);
  for (std::int64_t k0 = 0; k0 < c.keys; k0 += tile) {
    load_tile<tile>(keys, c.row_k, k0, c.keys, w, kv);
    __syncthreads();
    for (int e = thread; e < tile * tile; e += threads) {
      const int r = e / tile, j = e % tile;
      p[r * (tile + 1) + j] = k0 + j < c.keys ? c.scale * dot(w, q + r * row, kv + j * row) : lowest<W>();
    }
    __syncthreads();
    load_tile<tile>(values, c.row_v, k0, c.keys, w, kv);  // the keys have been read
    for (int r = thread / warp; r < tile; r += threads / warp) {
      const W score = lane < tile ? p[r * (tile + 1) + lane] : lowest<W>();
      const W before = top[r], now = Larger{}(before, Team<warp>::of_warp(score, Larger{}));
      const W weight = lane < tile ? scalar::exp(score - now) : W(0);
      const W added = Team<warp>::of_warp(weight, Add{});
      if (lane < tile) p[r * (tile + 1) + lane] = weight;
      __syncwarp();  // every lane has read top[r]
      if (lane == 0) {
        shrink[r] = scalar::exp(before - now);
        mass[r] = mass[r] * shrink[r] + added, top[r] = now;
      }
    }
    __syncthreads();
    for (std::int64_t e = thread; e < tile * w; e += threads) {
      const std::int64_t r = e / w, d = e % w;
      W s = sum[r * row + d] * shrink[r];
      for (int j = 0; j < tile; ++j) s += p[r * (tile + 1) + j] * kv[j * row + d];
      sum[r * row + d] = s;
    }
    __syncthreads();
  }
  for (std::int64_t e = thread; e < tile * w; e += threads) {
    const std::int64_t r = e / w, d = e % w;
    if (q0 + r < c.queries) out[(sample * c.queries + q0 + r) * c.row_out() + head * w + d] = sum[r * row + d] / mass[r];
  }
  if (log_sum_exp)
    for (int r = thread; r < tile; r += threads)
      if (q0 + r < c.queries) log_sum_exp[(sample * c.heads + head) * c.queries + q0 + r] = top[r] + scalar::log(mass[r]);
}

// inner (n, heads, queries): <out, cotangent> of a query, what the sweep of a softmax subtracts.
template <class T>
__global__ void __launch_bounds__(threads)
    attention_inner(Attention<T> c, std::int64_t rows, const T* out, const T* cotangent, Wide<T>* inner) {
  const Team<warp> team;
  const std::int64_t task = static_cast<std::int64_t>(blockIdx.x) * (threads / warp) + threadIdx.x / warp;
  if (task >= rows) return;
  const std::int64_t query = task % c.queries, head = task / c.queries % c.heads, sample = task / (c.queries * c.heads);
  const std::int64_t at = (sample * c.queries + query) * c.row_out() + head * c.width;
  Wide<T> s = 0;
  for (std::int64_t d = team.thread; d < c.width; d += warp) s += out[at + d] * cotangent[at + d];
  s = team.sum(s);
  if (team.thread == 0) inner[task] = s;
}

template <int tile, class T>
constexpr std::int64_t backward_bytes(std::int64_t width) {
  return (6 * tile * (width + 1) + 2 * tile * (tile + 1)) * static_cast<std::int64_t>(sizeof(Wide<T>));
}

// p(r, j) and ds(r, j), the cotangent of the score before its scale, of two tiles; q0, k0: their first rows.
template <int tile, class T>
__device__ __forceinline__ void probabilities(const Attention<T>& c, std::int64_t at_row, std::int64_t q0, std::int64_t k0,
                                              const Wide<T>* q, const Wide<T>* g, const Wide<T>* k, const Wide<T>* v,
                                              const Wide<T>* log_sum_exp, const Wide<T>* inner, Wide<T>* p, Wide<T>* ds) {
  using W = Wide<T>;
  const std::int64_t row = c.width + 1;
  for (int e = static_cast<int>(threadIdx.x); e < tile * tile; e += threads) {
    const int r = e / tile, j = e % tile;
    W weight = 0, slope = 0;
    if (q0 + r < c.queries && k0 + j < c.keys) {
      weight = scalar::exp(c.scale * dot(c.width, q + r * row, k + j * row) - log_sum_exp[at_row + q0 + r]);
      slope = weight * (dot(c.width, g + r * row, v + j * row) - inner[at_row + q0 + r]);
    }
    if (p) p[r * (tile + 1) + j] = weight;
    ds[r * (tile + 1) + j] = slope;
  }
}

template <int tile, class T>
__global__ void __launch_bounds__(threads)
    attention_dq(Attention<T> c, const Wide<T>* log_sum_exp, const Wide<T>* inner, const T* cotangent, T* dq) {
  using W = Wide<T>;
  COSTATE_DYNAMIC_SHARED(W, shared);
  const std::int64_t w = c.width, row = w + 1;
  W *const q = shared, *const g = q + tile * row, *const k = g + tile * row, *const v = k + tile * row,
           *const sum = v + tile * row, *const ds = sum + 2 * tile * row;
  const std::int64_t sample = blockIdx.z, head = blockIdx.y, q0 = static_cast<std::int64_t>(blockIdx.x) * tile;
  const int thread = static_cast<int>(threadIdx.x);
  load_tile<tile>(c.q + sample * c.queries * c.row_q + head * w, c.row_q, q0, c.queries, w, q);
  load_tile<tile>(cotangent + sample * c.queries * c.row_out() + head * w, c.row_out(), q0, c.queries, w, g);
  for (std::int64_t e = thread; e < tile * row; e += threads) sum[e] = W(0);
  for (std::int64_t k0 = 0; k0 < c.keys; k0 += tile) {
    load_tile<tile>(c.k + sample * c.keys * c.row_k + head * w, c.row_k, k0, c.keys, w, k);
    load_tile<tile>(c.v + sample * c.keys * c.row_v + head * w, c.row_v, k0, c.keys, w, v);
    __syncthreads();
    probabilities<tile>(c, (sample * c.heads + head) * c.queries, q0, k0, q, g, k, v, log_sum_exp, inner,
                        static_cast<W*>(nullptr), ds);
    __syncthreads();
    for (std::int64_t e = thread; e < tile * w; e += threads) {
      const std::int64_t r = e / w, d = e % w;
      W s = sum[r * row + d];
      for (int j = 0; j < tile; ++j) s += ds[r * (tile + 1) + j] * k[j * row + d];
      sum[r * row + d] = s;
    }
    __syncthreads();
  }
  for (std::int64_t e = thread; e < tile * w; e += threads) {
    const std::int64_t r = e / w, d = e % w;
    if (q0 + r < c.queries) dq[(sample * c.queries + q0 + r) * c.row_q + head * w + d] = c.scale * sum[r * row + d];
  }
}

template <int tile, class T>
__global__ void __launch_bounds__(threads)
    attention_dkv(Attention<T> c, const Wide<T>* log_sum_exp, const Wide<T>* inner, const T* cotangent, T* dk, T* dv) {
  using W = Wide<T>;
  COSTATE_DYNAMIC_SHARED(W, shared);
  const std::int64_t w = c.width, row = w + 1;
  W *const q = shared, *const g = q + tile * row, *const k = g + tile * row, *const v = k + tile * row,
           *const sum_k = v + tile * row, *const sum_v = sum_k + tile * row, *const p = sum_v + tile * row,
           *const ds = p + tile * (tile + 1);
  const std::int64_t sample = blockIdx.z, head = blockIdx.y, k0 = static_cast<std::int64_t>(blockIdx.x) * tile;
  const int thread = static_cast<int>(threadIdx.x);
  load_tile<tile>(c.k + sample * c.keys * c.row_k + head * w, c.row_k, k0, c.keys, w, k);
  load_tile<tile>(c.v + sample * c.keys * c.row_v + head * w, c.row_v, k0, c.keys, w, v);
  for (std::int64_t e = thread; e < tile * row; e += threads) sum_k[e] = W(0), sum_v[e] = W(0);
  for (std::int64_t q0 = 0; q0 < c.queries; q0 += tile) {
    load_tile<tile>(c.q + sample * c.queries * c.row_q + head * w, c.row_q, q0, c.queries, w, q);
    load_tile<tile>(cotangent + sample * c.queries * c.row_out() + head * w, c.row_out(), q0, c.queries, w, g);
    __syncthreads();
    probabilities<tile>(c, (sample * c.heads + head) * c.queries, q0, k0, q, g, k, v, log_sum_exp, inner, p, ds);
    __syncthreads();
    for (std::int64_t e = thread; e < tile * w; e += threads) {
      const std::int64_t j = e / w, d = e % w;
      W s = sum_k[j * row + d], u = sum_v[j * row + d];
      for (int r = 0; r < tile; ++r) s += ds[r * (tile + 1) + j] * q[r * row + d], u += p[r * (tile + 1) + j] * g[r * row + d];
      sum_k[j * row + d] = s, sum_v[j * row + d] = u;
    }
    __syncthreads();
  }
  for (std::int64_t e = thread; e < tile * w; e += threads) {
    const std::int64_t j = e / w, d = e % w;
    if (k0 + j >= c.keys) continue;
    if (dk) dk[(sample * c.keys + k0 + j) * c.row_k + head * w + d] = c.scale * sum_k[j * row + d];
    if (dv) dv[(sample * c.keys + k0 + j) * c.row_v + head * w + d] = sum_v[j * row + d];
  }
}

template <int tile>
struct Tile {
  static constexpr int value = tile;
};

// body(Tile<...>): the largest tile whose shared memory, bytes(Tile<...>), a block can have.
template <class Bytes, class Body>
void with_tile(std::int64_t width, const Bytes& bytes, const Body& body) {
  constexpr std::int64_t limit = 160 << 10;  // what sm_80 and all later ones have
  if (bytes(Tile<32>{}) <= limit) return body(Tile<32>{});
  if (bytes(Tile<8>{}) <= limit) return body(Tile<8>{});
  fail(Fault::argument, "attention: heads of width " + std::to_string(width) + " do not fit into the shared memory of a block");
}

// body(Tiles<...>) for f32 heads that the kernels with sums in registers take: large tiles where there are rows for them.
template <class Body>
bool with_tiles(const AttentionCall& call, const Body& body) {
  if (call.dtype != DType::f32 || call.width > 128) return false;
  const bool many = std::max(call.queries, call.keys) > 2 * side;
  if (call.width <= side)
    body(Tiles<2, 1>{});
  else if (call.width <= 2 * side)
    many ? body(Tiles<4, 2>{}) : body(Tiles<2, 2>{});
  else if (call.width <= 4 * side)
    many ? body(Tiles<4, 4>{}) : body(Tiles<2, 4>{});
  else
    body(Tiles<2, 8>{});
  return true;
}

}  // namespace

void attention(const AttentionCall& call, void* out, void* log_sum_exp) {
  if (call.n * call.heads * call.queries * call.width == 0) return;
  by_stored_type(call.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Attention<T> c(call);
    auto* const result = static_cast<T*>(out);
    auto* const sums = static_cast<Wide<T>*>(log_sum_exp);
    if constexpr (std::is_same_v<T, Bf16>)
      if (attention_on_tensor_cores(call, out, sums)) return;
    if constexpr (std::is_same_v<T, float>)
      if (with_tiles(call, [&]<int R, int C>(Tiles<R, C>) {
            launch("attention", attention_forward_tiles<R, C>, attention_grid(call, call.queries, Tiles<R, C>::rows),
                   dim3(block_threads), forward_tiles_bytes<R, C>(), c, result, sums);
          }))
        return;
    with_tile(
        call.width, [&](auto t) { return forward_bytes<decltype(t)::value, T>(call.width); },
        [&](auto t) {
          constexpr int tile = decltype(t)::value;
          launch("attention", attention_forward<tile, T>, attention_grid(call, call.queries, tile), dim3(threads),
                 static_cast<std::size_t>(forward_bytes<tile, T>(call.width)), c, result, sums);
        });
  });
}

void attention_vjp(const AttentionCall& call, const void* out, const void* log_sum_exp, const void* cotangent, void* dq,
                   void* dk, void* dv) {
  const std::int64_t rows = call.n * call.heads * call.queries;
  if (rows * call.width == 0) return;
  const pool::Scratch scratch(rows * size_of(arithmetic_of(call.dtype)));
  by_stored_type(call.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Attention<T> c(call);
    auto* const inner = scratch.as<Wide<T>>();
    const auto* const sums = static_cast<const Wide<T>*>(log_sum_exp);
    const auto* const g = static_cast<const T*>(cotangent);
    launch("attention <out, cotangent>", attention_inner<T>, dim3(static_cast<unsigned>((rows + 7) / 8)), dim3(threads), 0, c,
           rows, static_cast<const T*>(out), g, inner);
    if constexpr (std::is_same_v<T, Bf16>)
      if (attention_vjp_on_tensor_cores(call, sums, inner, cotangent, dq, dk, dv)) return;
    if constexpr (std::is_same_v<T, float>)
      if (with_tiles(call, [&]<int R, int C>(Tiles<R, C>) {
            if (dq)
              launch("attention dq", attention_dq_tiles<R, C>, attention_grid(call, call.queries, Tiles<R, C>::rows),
                     dim3(threads), dq_tiles_bytes<R, C>(), c, sums, inner, g, static_cast<T*>(dq));
            if (dk || dv)
              launch("attention dk, dv", attention_dkv_tiles<R, C>, attention_grid(call, call.keys, Tiles<R, C>::rows),
                     dim3(threads), dkv_tiles_bytes<R, C>(), c, sums, inner, g, static_cast<T*>(dk), static_cast<T*>(dv));
          }))
        return;
    with_tile(
        call.width, [&](auto t) { return backward_bytes<decltype(t)::value, T>(call.width); },
        [&](auto t) {
          constexpr int tile = decltype(t)::value;
          const auto bytes = static_cast<std::size_t>(backward_bytes<tile, T>(call.width));
          if (dq)
            launch("attention dq", attention_dq<tile, T>, attention_grid(call, call.queries, tile), dim3(threads), bytes, c,
                   sums, inner, g, static_cast<T*>(dq));
          if (dk || dv)
            launch("attention dk, dv", attention_dkv<tile, T>, attention_grid(call, call.keys, tile), dim3(threads), bytes, c,
                   sums, inner, g, static_cast<T*>(dk), static_cast<T*>(dv));
        });
  });
}

}  // namespace costate::cuda
