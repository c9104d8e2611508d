// Each instruction of kernels/instructions.h by itself, and what it refuses, for the tests. Exported by name beside the
// backend.
#include "../kernels/instructions.h"
#include "../runtime.h"

namespace costate::cuda {
namespace {

enum Way {
  by_elements,     // fragments from global memory, element by element
  by_matrices,     // from shared memory: a as it lies there, b from its transpose
  by_transposes,   // a from its transpose, b as it lies there
  by_half_a_warp,  // and what is refused
  from_global,
  from_odd_address,
};

constexpr int row = 24;  // elements; rows of 48 bytes

// out (16, 8) = c + a (16, 16) b (16, 8)
__global__ void multiplied(int way, const Bf16* a, const Bf16* b, const float* c, float* out) {
  COSTATE_SHARED(float4, aligned, [32 * row / 8]);
  auto* const in_a = reinterpret_cast<Bf16*>(&aligned[0]);
  Bf16* const in_b = in_a + 16 * row;
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, i = lane % 4;
  const bool turned_a = way == by_transposes, turned_b = way != by_transposes;
  for (int e = lane; e < 256; e += 32) in_a[turned_a ? e % 16 * row + e / 16 : e / 16 * row + e % 16] = a[e];
  for (int e = lane; e < 128; e += 32) in_b[turned_b ? e % 8 * row + e / 8 : e / 8 * row + e % 8] = b[e];
  __syncwarp();
  MatrixA left;
  MatrixB right;
  const auto two = [](Bf16 low, Bf16 high) { return low.bits | static_cast<std::uint32_t>(high.bits) << 16; };
  if (way == by_elements || way == by_half_a_warp) {
    for (int p = 0; p < 4; ++p) {
      const Bf16* const at = a + (g + p % 2 * 8) * 16 + 2 * i + p / 2 * 8;
      left.pair[p] = two(at[0], at[1]);
    }
    for (int p = 0; p < 2; ++p) {
      const Bf16* const at = b + (2 * i + 8 * p) * 8 + g;
      right.pair[p] = two(at[0], at[8]);
    }
  } else {
    // Matrix m of a: rows 8 (m % 2), columns 8 (m / 2); of b: rows 8 m, and twice the same.
    const int m = lane / 8, r = lane % 8;
    const Bf16* const at_a = turned_a ? in_a + (m / 2 * 8 + r) * row + m % 2 * 8 : in_a + (m % 2 * 8 + r) * row + m / 2 * 8;
    const Bf16* const at_b = turned_b ? in_b + r * row + m % 2 * 8 : in_b + (m % 2 * 8 + r) * row;
    const Bf16* const from = way == from_global ? a : way == from_odd_address ? at_a + 1 : at_a;
    const Matrices of_a = turned_a ? load_transposed(from) : load_matrices(from);
    const Matrices of_b = turned_b ? load_matrices(at_b) : load_transposed(at_b);
    for (int p = 0; p < 4; ++p) left.pair[p] = of_a.pair[p];
    for (int p = 0; p < 2; ++p) right.pair[p] = of_b.pair[p];
  }
  MatrixC sum;
  for (int e = 0; e < 4; ++e) sum.at[e] = c[(g + e / 2 * 8) * 8 + 2 * i + e % 2];
  if (way != by_half_a_warp || lane < 16) multiply_add(left, right, sum);
  for (int e = 0; e < 4; ++e) out[(g + e / 2 * 8) * 8 + 2 * i + e % 2] = sum.at[e];
}

enum CopyWay { with_a_wait, without_a_wait, to_global, of_odd_address };

// out (32) = x (32) in reverse, but 0 for multiples of 3 below 16; the first half is copied by 4 bytes, the second by 16.
__global__ void copied(int way, const float* x, float* out) {
  COSTATE_SHARED(float4, aligned, [8]);
  auto* const in = reinterpret_cast<float*>(&aligned[0]);
  const int lane = static_cast<int>(threadIdx.x);
  float* const to = way == to_global ? out : in;
  const float* const from = way == of_odd_address ? x + 1 : x;
  if (lane < 16)
    begin_copy<4>(x + lane, to + lane, lane % 3 != 0);
  else if (lane < 20)
    begin_copy<16>(from + 4 * (lane - 12), in + 4 * (lane - 12), true);
  if (way != without_a_wait) wait_for_copies();
  __syncwarp();
  out[31 - lane] = in[lane];
}

}  // namespace
}  // namespace costate::cuda

extern "C" __attribute__((visibility("default"))) void costate_multiplied_matrices(int way, int threads, const void* a,
                                                                                   const void* b, const void* c, void* out) {
  using namespace costate::cuda;
  launch("multiplied", multiplied, dim3(1), dim3(static_cast<unsigned>(threads)), 0, way, static_cast<const Bf16*>(a),
         static_cast<const Bf16*>(b), static_cast<const float*>(c), static_cast<float*>(out));
}
extern "C" __attribute__((visibility("default"))) void costate_copied_numbers(int way, const void* x, void* out) {
  using namespace costate::cuda;
  launch("copied", copied, dim3(1), dim3(32), 0, way, static_cast<const float*>(x), static_cast<float*>(out));
}
