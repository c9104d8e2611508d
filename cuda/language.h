// The language of the kernels, which are compiled twice: by nvcc for a device, and by a C++ compiler for the emulator, which
// runs the same bodies on the host (emulator/language.h). What they may use is CUDA C++ without:
//   <<< >>> (launch), bare __shared__ (COSTATE_SHARED), cooperative groups, inline assembly but for kernels/instructions.h, warp
//   operations without a mask, waiting for another block.
// These macros are the difference between the two compilers; nothing else in the folder depends on which one it is.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#include <cuda_runtime.h>

#define COSTATE_SHARED(T, name, extents) __shared__ T name extents
#define COSTATE_DYNAMIC_SHARED(T, name)                                 \
  extern __shared__ __align__(16) unsigned char costate_shared_bytes[]; \
  T* const name = reinterpret_cast<T*>(costate_shared_bytes)
#define COSTATE_UNROLL _Pragma("unroll")
#define COSTATE_UNROLL4 _Pragma("unroll 4")
#define COSTATE_ROLLED _Pragma("unroll 1")
#else
#include "emulator/language.h"

#define COSTATE_SHARED(T, name, extents) \
  using name##_array = T extents;        \
  name##_array& name = *::costate::cuda::emulator::shared_array<name##_array, decltype([] {})>()
#define COSTATE_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::costate::cuda::emulator::dynamic_shared())
#define COSTATE_UNROLL
#define COSTATE_UNROLL4
#define COSTATE_ROLLED
#endif
