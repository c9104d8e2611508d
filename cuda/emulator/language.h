// CUDA C++ as far as our kernels use it, for a host compiler: the words of the language, and what threads of a block do
// together, which the scheduler carries out. Blocks run one after the other; the threads of a block are fibers of one
// thread of the host, which change where they wait for each other.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>

#include "scheduler.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};

using CostatePlace = std::source_location;  // of a call: threads that wait for each other must be at the same one

inline void __syncthreads(const CostatePlace& place = CostatePlace::current()) {
  costate::cuda::emulator::wait_for_block(place);
}
inline void __syncwarp(unsigned mask = ~0u, const CostatePlace& place = CostatePlace::current()) {
  costate::cuda::emulator::wait_for_warp(mask, place);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, const CostatePlace& place = CostatePlace::current()) {
  const int lane = costate::cuda::emulator::lane();
  return costate::cuda::emulator::exchange(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), place);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, const CostatePlace& place = CostatePlace::current()) {
  const int lane = costate::cuda::emulator::lane(), source = lane ^ bits;
  const bool outside = (source & ~(width - 1)) != (lane & ~(width - 1));
  return costate::cuda::emulator::exchange(mask, value, outside ? lane : source, place);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int by, int width = 32, const CostatePlace& place = CostatePlace::current()) {
  const int lane = costate::cuda::emulator::lane();
  return costate::cuda::emulator::exchange(mask, value, (lane & (width - 1)) + by >= width ? lane : lane + by, place);
}
