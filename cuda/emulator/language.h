// CUDA C++ as far as our kernels use it, for a host compiler: the words of the language, and what threads of a block do
// together, which the scheduler carries out. Blocks run one after the other; the threads of a block are fibers of one
// thread of the host, which change where they wait for each other.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "scheduler.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__

// As on a device, memory is read as vectors whatever numbers it holds.
struct [[gnu::may_alias]] alignas(8) float2 {
  float x, y;
};
struct [[gnu::may_alias]] alignas(16) float4 {
  float x, y, z, w;
};
struct [[gnu::may_alias]] alignas(16) double2 {
  double x, y;
};

// Where a call stands, by its last two parameters: threads that wait for each other must be at the same place.
inline void __syncthreads(const char* file = __builtin_FILE(), unsigned line = __builtin_LINE()) {
  costate::cuda::emulator::wait_for_block({file, line});
}
inline void __syncwarp(unsigned mask = ~0u, const char* file = __builtin_FILE(), unsigned line = __builtin_LINE()) {
  costate::cuda::emulator::wait_for_warp(mask, {file, line});
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, const char* file = __builtin_FILE(),
              unsigned line = __builtin_LINE()) {
  const int lane = costate::cuda::emulator::lane();
  return costate::cuda::emulator::exchange(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, const char* file = __builtin_FILE(),
                  unsigned line = __builtin_LINE()) {
  const int lane = costate::cuda::emulator::lane(), source = lane ^ bits;
  const bool outside = (source & ~(width - 1)) != (lane & ~(width - 1));
  return costate::cuda::emulator::exchange(mask, value, outside ? lane : source, {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int by, int width = 32, const char* file = __builtin_FILE(),
                   unsigned line = __builtin_LINE()) {
  const int lane = costate::cuda::emulator::lane();
  return costate::cuda::emulator::exchange(mask, value, (lane & (width - 1)) + by >= width ? lane : lane + by, {file, line});
}
