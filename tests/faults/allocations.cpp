#include "faults/allocations.h"

#include <malloc.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <limits>
#include <new>

namespace costate::faults {
namespace {

constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
std::atomic<std::int64_t> made{0}, live{0}, refused_from{never};
std::atomic<bool> refused_on{false};

bool refused() {
  const std::int64_t index = made.fetch_add(1, std::memory_order_relaxed), from = refused_from.load(std::memory_order_relaxed);
  return index == from || (index > from && refused_on.load(std::memory_order_relaxed));
}
void* counted(void* p) {
  if (!p) throw std::bad_alloc();
  live.fetch_add(static_cast<std::int64_t>(malloc_usable_size(p)), std::memory_order_relaxed);
  return p;
}
void released(void* p) {
  if (p) live.fetch_sub(static_cast<std::int64_t>(malloc_usable_size(p)), std::memory_order_relaxed);
  std::free(p);
}
void* aligned_or_null(std::size_t alignment, std::size_t size) {
  void* p = nullptr;
  return posix_memalign(&p, alignment < sizeof(void*) ? sizeof(void*) : alignment, size) == 0 ? p : nullptr;
}

}  // namespace

Allocations allocations() { return {made.load(), live.load()}; }
RefusedMemory::RefusedMemory(std::int64_t n, bool on) {
  refused_on = on;
  refused_from = n == never ? never : made.load() + n;
}
RefusedMemory::~RefusedMemory() { refused_from = never; }

}  // namespace costate::faults

using namespace costate::faults;

// The other forms of the standard library come down to these, but for the one that returns null, which sanitizers replace.
void* operator new(std::size_t size) { return counted(refused() ? nullptr : std::malloc(size ? size : 1)); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return counted(refused() ? nullptr : aligned_or_null(static_cast<std::size_t>(alignment), size ? size : 1));
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* p) noexcept { released(p); }
void operator delete(void* p, std::size_t) noexcept { released(p); }
void operator delete(void* p, std::align_val_t) noexcept { released(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { released(p); }

// What tensors are made of.
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  void* p = refused() ? nullptr : aligned_or_null(alignment, size);
  if (!p) errno = ENOMEM;
  return p;
}
