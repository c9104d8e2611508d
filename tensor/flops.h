// Counting floating-point operations: two for every multiplication with its addition in matrix products, convolutions and
// attention, by their definitions (Winograd's method does fewer). Element-wise work is not counted.
#pragma once
#include <cstdint>

namespace costate {

// What the calling thread has counted since it began, with what the workers of `parallel` did for it. On the meta device
// operations are counted as if they were done.
std::int64_t flops();

namespace detail {
void count_flops(std::int64_t operations);
std::int64_t exchange_flops(std::int64_t count);
}  // namespace detail

}  // namespace costate
