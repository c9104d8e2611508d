// What lanes of a warp hand to each other where they meet.
#pragma once
#include <cstddef>
#include <cstring>

#include "fiber.h"
#include "scheduler.h"

namespace costate::cuda::emulator {
namespace {

constexpr unsigned warp_size = 32;
constexpr std::size_t shuffled_bytes = 16, most_bytes = 48;  // that a lane hands to others; to what all lanes do at once

// Lanes of one warp with one mask that wait for each other.
struct Gathering {
  unsigned mask = 0, arrived = 0, count = 0;
  Order order[2];  // alternating: with one, those who leave late would hide races of those who are early
  Place place;
  std::size_t bytes = 0;
  Together together = nullptr;  // where null, lane i gets what source[i] has handed in
  int source[warp_size];
  void* out[warp_size];
  alignas(16) std::byte value[warp_size][most_bytes];
};

// What a lane brings to a gathering.
struct Part {
  const void* in = nullptr;
  std::size_t bytes = 0;
  void* out = nullptr;
  int source = 0;
  Together together = nullptr;
};

// Not by memcpy, which sanitizers watch: gatherings are the scheduler's, and no race of the kernel is in them.
void copy_bytes(const void* from, void* to, std::size_t bytes) {
  const auto* in = static_cast<const volatile std::byte*>(from);
  auto* out = static_cast<std::byte*>(to);
  for (std::size_t i = 0; i < bytes; ++i) out[i] = in[i];
}

void hand_out(const Gathering& g) {
  if (g.together) {
    const void* in[warp_size];
    for (unsigned i = 0; i < warp_size; ++i) in[i] = g.value[i];
    return g.together(in, g.out);
  }
  for (unsigned i = 0; i < warp_size && g.bytes; ++i) {
    if (!(g.mask >> i & 1)) continue;
    if (g.mask >> g.source[i] & 1)
      copy_bytes(g.value[g.source[i]], g.out[i], g.bytes);
    else
      std::memset(g.out[i], 0xff, g.bytes);  // undefined on a device
  }
}

}  // namespace
}  // namespace costate::cuda::emulator
