// Grids of blocks, and what threads add up together: always in an order that depends on the extents alone.
#pragma once
#include <costate/tensor/kernels.h>
#include <costate/tensor/scalar.h>

#include "../pool.h"
#include "../runtime.h"
#include "element.h"

namespace costate::cuda {
namespace {

constexpr int warp = 32;
constexpr unsigned whole_warp = 0xffffffffu;
constexpr int block_threads = 256;

// Blocks of block_threads threads for n tasks of one thread. Kernels walk on by the size of the grid, so that a grid never
// needs to be larger than what a device runs at once.
inline dim3 grid_for(std::int64_t n) {
  const std::int64_t blocks = (n + block_threads - 1) / block_threads, most = 16 * runtime::multiprocessors();
  return dim3(static_cast<unsigned>(blocks < 1 ? 1 : blocks < most ? blocks : most));
}
__device__ __forceinline__ std::int64_t first_task() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ std::int64_t task_stride() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

// For kernels of numbers that are f32 or f64.
template <class Body>
void by_type(DType dtype, const Body& body) {
  if (dtype == DType::f32)
    body(float{});
  else
    body(double{});
}
// For those that take what is stored as bf16, too.
template <class Body>
void by_stored_type(DType dtype, const Body& body) {
  if (dtype == DType::bf16)
    body(Bf16{});
  else
    by_type(dtype, body);
}

struct Add {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Larger {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return b > a ? b : a;
  }
};

// Threads that share a row: a warp, or a block of several. Every thread gets the result.
template <int width>
struct Team {
  static_assert(width == warp || width % warp == 0);
  int thread = static_cast<int>(threadIdx.x) % width;

  // A butterfly: a + b has the bits of b + a, so that all lanes have the same.
  template <class T, class Combine>
  static __device__ __forceinline__ T of_warp(T v, Combine combine) {
    COSTATE_UNROLL
    for (int bits = warp / 2; bits > 0; bits /= 2) v = combine(v, __shfl_xor_sync(whole_warp, v, bits));
    return v;
  }
  template <class T, class Combine>
  __device__ __forceinline__ T reduce(T v, Combine combine) const {
    v = of_warp(v, combine);
    if constexpr (width > warp) {
      COSTATE_SHARED(T, part, [width / warp]);
      __syncthreads();  // a sum before this one has been read by all
      if (thread % warp == 0) part[thread / warp] = v;
      __syncthreads();
      v = part[0];
      for (int w = 1; w < width / warp; ++w) v = combine(v, part[w]);
    }
    return v;
  }
  template <class T>
  __device__ __forceinline__ T sum(T v) const {
    return reduce(v, Add{});
  }
};

// One row a team: a warp when rows are short. body(a null pointer to the team's type, rows a block).
template <class Body>
void with_team(std::int64_t n, const Body& body) {
  if (n <= 512)
    body(static_cast<Team<warp>*>(nullptr), block_threads / warp);
  else
    body(static_cast<Team<block_threads>*>(nullptr), 1);
}

}  // namespace
}  // namespace costate::cuda
