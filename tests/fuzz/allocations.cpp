#include "fuzz/allocations.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace costate::fuzz {
namespace {

std::atomic<std::size_t> live{0}, peak{0};

void* counted(void* p) {
  if (!p) throw std::bad_alloc();
  const std::size_t now = live.fetch_add(malloc_usable_size(p), std::memory_order_relaxed) + malloc_usable_size(p);
  std::size_t highest = peak.load(std::memory_order_relaxed);
  while (now > highest && !peak.compare_exchange_weak(highest, now, std::memory_order_relaxed)) {
  }
  return p;
}
void released(void* p) {
  if (p) live.fetch_sub(malloc_usable_size(p), std::memory_order_relaxed);
  std::free(p);
}
void* aligned(std::size_t size, std::align_val_t alignment) {
  const auto a = static_cast<std::size_t>(alignment);
  return counted(std::aligned_alloc(a, (size + a - 1) / a * a));
}

}  // namespace

std::size_t live_bytes() { return live.load(); }
std::size_t peak_bytes() { return peak.load(); }
void reset_peak_bytes() { peak = live.load(); }

}  // namespace costate::fuzz

// The other forms of the standard library come down to these, but for the one that returns null, which sanitizers replace.
void* operator new(std::size_t size) { return costate::fuzz::counted(std::malloc(size ? size : 1)); }
void* operator new(std::size_t size, std::align_val_t alignment) { return costate::fuzz::aligned(size ? size : 1, alignment); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* p) noexcept { costate::fuzz::released(p); }
void operator delete(void* p, std::size_t) noexcept { costate::fuzz::released(p); }
void operator delete(void* p, std::align_val_t) noexcept { costate::fuzz::released(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { costate::fuzz::released(p); }
