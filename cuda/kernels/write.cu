// Bytes of the host as arguments of kernels.
#include <algorithm>
#include <cstring>

#include "../table.h"
#include "grid.h"

namespace costate::cuda {
namespace {

struct Bytes {
  static constexpr int capacity = 2048;
  unsigned char value[capacity];
};

__global__ void __launch_bounds__(block_threads) write(const __grid_constant__ Bytes bytes, int count, unsigned char* out) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += block_threads) out[i] = bytes.value[i];
}

}  // namespace

void write_bytes(const void* host, void* data, std::int64_t bytes) {
  for (std::int64_t at = 0; at < bytes; at += Bytes::capacity) {
    Bytes part{};
    const auto count = static_cast<int>(std::min<std::int64_t>(bytes - at, Bytes::capacity));
    std::memcpy(part.value, static_cast<const unsigned char*>(host) + at, static_cast<std::size_t>(count));
    launch("write", write, dim3(1), dim3(block_threads), 0, part, count, static_cast<unsigned char*>(data) + at);
  }
}

}  // namespace costate::cuda
