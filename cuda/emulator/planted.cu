// Kernels with planted mistakes, with which the tests check that the emulator finds such. Exported by name beside the backend.
#include "../runtime.h"

namespace costate::cuda {
namespace {

constexpr int threads = 64;

enum Mistake {
  none,
  missing_barrier,       // a tree of sums without __syncthreads between its levels
  missing_warp_barrier,  // neighbours in a warp read what was not synchronised
  divergent_barrier,     // two halves of a block at two different __syncthreads
  early_return,          // some threads return before a barrier
  wrong_mask,            // half a warp shuffles with the whole warp's mask
  overrun,               // one element past the end of a shared array
};

// out[0] = the sum of x (64 elements).
__global__ void __launch_bounds__(threads) planted(int mistake, const float* x, float* out) {
  COSTATE_SHARED(float, part, [threads]);
  const int t = static_cast<int>(threadIdx.x);
  if (mistake == early_return && t >= 48) return;
  part[mistake == overrun ? t + 1 : t] = x[t];
  if (mistake == overrun && t == 0) part[0] = 0;
  if (mistake == missing_warp_barrier) {
    if (t == 0) out[0] = part[1];
    return;
  }
  if (mistake == divergent_barrier && t < 32)
    __syncthreads();
  else
    __syncthreads();
  if (mistake == wrong_mask && t < 16) part[t] = __shfl_xor_sync(0xffffffffu, part[t], 1);
  for (int half = threads / 2; half > 0; half /= 2) {
    if (t < half) part[t] += part[t + half];
    if (mistake != missing_barrier) __syncthreads();
  }
  if (t == 0) out[0] = part[0];
}

}  // namespace
}  // namespace costate::cuda

extern "C" __attribute__((visibility("default"))) void costate_planted_kernel(int mistake, const void* x, void* out) {
  using namespace costate::cuda;
  launch("planted", planted, dim3(1), dim3(threads), 0, mistake, static_cast<const float*>(x), static_cast<float*>(out));
}
