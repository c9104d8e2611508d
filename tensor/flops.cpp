#include <costate/tensor/flops.h>

#include <utility>

namespace costate {
namespace {
constinit thread_local std::int64_t counted = 0;
}

std::int64_t flops() { return counted; }

namespace detail {
void count_flops(std::int64_t operations) { counted += operations; }
std::int64_t exchange_flops(std::int64_t count) { return std::exchange(counted, count); }
}  // namespace detail

}  // namespace costate
