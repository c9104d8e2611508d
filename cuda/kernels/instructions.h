// Instructions of a device that CUDA C++ has no word for: products of small matrices by a warp, on tensor cores, and how their
// operands come to shared memory and from there. The one file of the kernels with inline assembly; what each does is defined by
// the PTX ISA (mma.sync.aligned.m16n8k16, ldmatrix, cp.async, cvt, ex2), from sm_80 on. The emulator carries them out as they
// are defined there (emulator/instructions.cpp).
//
// Products, and loads of matrices, are called by all 32 lanes of a warp together, at the same place. With g = lane / 4 and
// i = lane % 4 a lane holds
//   of A (16 x 16, bf16): pair 0 the columns 2 i, 2 i + 1 of row g, pair 1 of row g + 8, pairs 2 and 3 the same 8 columns on;
//   of B (16 x 8, bf16):  pair 0 the rows 2 i, 2 i + 1 of column g, pair 1 the same 8 rows on;
//   of C (16 x 8, f32):   numbers 0 and 1 the columns 2 i, 2 i + 1 of row g, numbers 2 and 3 of row g + 8,
// so that two neighbouring C, rounded to bf16, are an A. The first of a pair is its lower half.
#pragma once
#include "../language.h"
#include "element.h"

#ifndef __CUDACC__
#include "../emulator/instructions.h"
#endif

namespace costate::cuda {
namespace {

struct MatrixA {
  std::uint32_t pair[4];
};
struct MatrixB {
  std::uint32_t pair[2];
};
struct MatrixC {
  float at[4];
};
// Four 8 x 8 matrices of bf16.
struct Matrices {
  std::uint32_t pair[4];
};

#ifdef __CUDACC__
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "The kernels need sm_80 or a later architecture; see COSTATE_CUDA_ARCHITECTURES."
#endif

// c += a b: the products are exact, the sum has f32's precision at least. The order of the sum is the device's.
__device__ __forceinline__ void multiply_add(const MatrixA& a, const MatrixB& b, MatrixC& c) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c.at[0]), "+f"(c.at[1]), "+f"(c.at[2]), "+f"(c.at[3])
      : "r"(a.pair[0]), "r"(a.pair[1]), "r"(a.pair[2]), "r"(a.pair[3]), "r"(b.pair[0]), "r"(b.pair[1]));
}

// Four 8 x 8 matrices from shared memory. Lane 8 m + r names row r of matrix m: 8 numbers, aligned to 16 bytes. A lane gets, as
// pair m, numbers 2 i and 2 i + 1 of row g of matrix m.
__device__ __forceinline__ Matrices load_matrices(const Bf16* row) {
  Matrices r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r.pair[0]), "=r"(r.pair[1]), "=r"(r.pair[2]), "=r"(r.pair[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
  return r;
}
// Their transposes: numbers g of the rows 2 i and 2 i + 1.
__device__ __forceinline__ Matrices load_transposed(const Bf16* row) {
  Matrices r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r.pair[0]), "=r"(r.pair[1]), "=r"(r.pair[2]), "=r"(r.pair[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
  return r;
}

// Begins to copy 4 or 16 bytes from global to shared memory, both aligned to as many; where `there` is false zeros are written,
// and nothing is read. What is copied is there for the thread that waits, and for others behind a barrier after that.
template <int bytes>
__device__ __forceinline__ void begin_copy(const void* from, void* to, bool there) {
  static_assert(bytes == 4 || bytes == 16);
  const unsigned shared = static_cast<unsigned>(__cvta_generic_to_shared(to)), read = there ? bytes : 0;
  if constexpr (bytes == 16)  // past the first-level cache
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(read) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared), "l"(from), "r"(read) : "memory");
}
// For all copies that the thread has begun.
__device__ __forceinline__ void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Rounded to the nearest bf16, ties to even.
__device__ __forceinline__ std::uint32_t bf16_pair(float first, float second) {
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

// 2^x with relative error 2^-22; 0 for -inf and where the result would be subnormal.
__device__ __forceinline__ float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#else

inline void multiply_add(const MatrixA& a, const MatrixB& b, MatrixC& c, const char* file = __builtin_FILE(),
                         unsigned line = __builtin_LINE()) {
  emulator::multiply_add(a.pair, b.pair, c.at, {file, line});
}
inline Matrices load_matrices(const Bf16* row, const char* file = __builtin_FILE(), unsigned line = __builtin_LINE()) {
  Matrices r;
  emulator::load_matrices(row, false, r.pair, {file, line});
  return r;
}
inline Matrices load_transposed(const Bf16* row, const char* file = __builtin_FILE(), unsigned line = __builtin_LINE()) {
  Matrices r;
  emulator::load_matrices(row, true, r.pair, {file, line});
  return r;
}
template <int bytes>
inline void begin_copy(const void* from, void* to, bool there, const char* file = __builtin_FILE(),
                       unsigned line = __builtin_LINE()) {
  static_assert(bytes == 4 || bytes == 16);
  emulator::begin_copy(from, to, bytes, there, {file, line});
}
inline void wait_for_copies() { emulator::wait_for_copies(); }
inline std::uint32_t bf16_pair(float first, float second) {
  return rounding::bf16_bits(first) | static_cast<std::uint32_t>(rounding::bf16_bits(second)) << 16;
}
inline float exp2_approximate(float x) { return emulator::exp2_approximate(x); }

#endif

}  // namespace
}  // namespace costate::cuda
