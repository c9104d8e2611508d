// What kernels/instructions.h asks of a device, by the definitions of the PTX ISA. All lanes of a warp call together.
#pragma once
#include <cstdint>

#include "scheduler.h"

namespace costate::cuda::emulator {

// c += a b; this lane's parts.
void multiply_add(const std::uint32_t* a, const std::uint32_t* b, float* c, const Place& place);
// `row`: 8 numbers of 16 bits in shared memory; pair: the lane's parts of the four matrices.
void load_matrices(const void* row, bool transposed, std::uint32_t* pair, const Place& place);
// A copy happens when it begins, or when the thread waits for it: by the order of the threads, see scheduler.h.
void begin_copy(const void* from, void* to, std::size_t bytes, bool there, const Place& place);
void wait_for_copies();
float exp2_approximate(float x);

}  // namespace costate::cuda::emulator
