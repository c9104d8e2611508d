#include "pool.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>

#include "graph.h"
#include "runtime.h"

namespace costate::cuda::pool {
namespace {

constexpr std::int64_t granule = 256;

struct Block {
  std::int64_t bytes = 0;
  bool free = false, first = false;  // first of its segment
  int memory = 0;
};

thread_local int used = 0;  // the memory that the calling thread takes blocks from

struct Pool {
  std::mutex mutex;
  std::map<std::byte*, Block> blocks;                  // of all segments, by address
  using Free = std::set<std::pair<std::int64_t, std::byte*>>;  // smallest first
  std::map<int, Free> free_of;                                 // by memory
  std::unordered_map<std::byte*, std::int64_t> segments;
  std::int64_t held = 0, taken = 0;
  std::unordered_map<void*, std::int64_t> pinned;
  std::multimap<std::int64_t, void*> spare;  // pinned and not used

  void add_free(std::map<std::byte*, Block>::iterator b) {
    b->second.free = true;
    free_of[b->second.memory].emplace(b->second.bytes, b->first);
  }
  // Joined with `b` when that is the free block behind it in the same segment.
  void join(std::map<std::byte*, Block>::iterator a, std::map<std::byte*, Block>::iterator b) {
    if (b == blocks.end() || !a->second.free || !b->second.free || b->second.first || a->first + a->second.bytes != b->first)
      return;
    Free& free = free_of[a->second.memory];
    free.erase({a->second.bytes, a->first});
    free.erase({b->second.bytes, b->first});
    a->second.bytes += b->second.bytes;
    blocks.erase(b);
    free.emplace(a->second.bytes, a->first);
  }
  std::byte* cut(std::int64_t bytes) {
    Free& free = free_of[used];
    const auto found = free.lower_bound({bytes, nullptr});
    if (found == free.end()) return nullptr;
    const auto b = blocks.find(found->second);
    free.erase(found);
    b->second.free = false;
    if (const std::int64_t rest = b->second.bytes - bytes; rest > 0) {
      b->second.bytes = bytes;
      add_free(blocks.emplace(b->first + bytes, Block{rest, true, false, used}).first);
    }
    taken += bytes;
    return b->first;
  }
  bool grow(std::int64_t bytes) {
    graph::refuse("more memory than its rehearsal took");
    // Large blocks get a segment of their own; a device that has no whole segment left may still have the block.
    const std::int64_t page = 1 << 16, own = (bytes + page - 1) / page * page;
    for (const std::int64_t size : {std::max(own, runtime::segment_bytes), own}) {
      auto* data = static_cast<std::byte*>(runtime::take_memory(size));
      if (!data) continue;
      segments[data] = size, held += size;
      add_free(blocks.emplace(data, Block{size, true, true, used}).first);
      return true;
    }
    return false;
  }
  void trim() {
    for (const auto& [bytes, data] : spare) pinned.erase(data), runtime::unpin(data);
    spare.clear();
    for (auto s = segments.begin(); s != segments.end();) {
      const auto b = blocks.find(s->first);
      if (!b->second.free || b->second.bytes != s->second || b->second.memory != 0) {
        ++s;
        continue;
      }
      free_of[0].erase({b->second.bytes, b->first});
      blocks.erase(b);
      runtime::give_memory(s->first);
      held -= s->second;
      s = segments.erase(s);
    }
  }
};

// Never destroyed: tensors may outlive everything.
Pool& pool() {
  static Pool& p = *new Pool;
  return p;
}

}  // namespace

void* take(std::int64_t bytes) {
  if (bytes <= 0) return nullptr;
  Pool& p = pool();
  const std::lock_guard lock(p.mutex);
  const std::int64_t size = (bytes + granule - 1) / granule * granule;
  if (std::byte* data = p.cut(size)) return data;
  if (!p.grow(size)) {
    p.trim();
    if (!p.grow(size)) return nullptr;
  }
  return p.cut(size);
}

void give(void* data) noexcept {
  if (!data) return;
  Pool& p = pool();
  const std::lock_guard lock(p.mutex);
  const auto b = p.blocks.find(static_cast<std::byte*>(data));
  p.taken -= b->second.bytes;
  p.add_free(b);
  p.join(b, std::next(b));
  if (b != p.blocks.begin()) p.join(std::prev(b), b);
}

void trim() {
  graph::refuse("the return of memory to the driver");
  Pool& p = pool();
  const std::lock_guard lock(p.mutex);
  p.trim();
}

void* pin(std::int64_t bytes) {
  if (bytes <= 0) return nullptr;
  Pool& p = pool();
  const std::lock_guard lock(p.mutex);
  if (const auto found = p.spare.find(bytes); found != p.spare.end()) {
    void* const data = found->second;
    p.spare.erase(found);
    return data;
  }
  void* const data = runtime::pin(bytes);
  if (data) p.pinned[data] = bytes;
  return data;
}

void unpin(void* data) noexcept {
  Pool& p = pool();
  const std::lock_guard lock(p.mutex);
  if (const auto found = p.pinned.find(data); found != p.pinned.end()) p.spare.emplace(found->second, data);
}

void use(int memory) { used = memory; }

void merge(int memory) {
  Pool& p = pool();
  const std::lock_guard lock(p.mutex);
  for (auto& [data, block] : p.blocks)
    if (block.memory == memory) block.memory = 0;
  p.free_of[0].merge(p.free_of[memory]);
  p.free_of.erase(memory);
  if (used == memory) used = 0;
}

Scratch::Scratch(std::int64_t bytes) : data_(take(bytes)) {
  if (!data_ && bytes > 0)
    fail(Fault::memory, "cuda: the device refused " + std::to_string(bytes) +
                            " bytes that a kernel works in; its tensors hold " + std::to_string(taken()) + " bytes");
}

std::int64_t held() {
  const std::lock_guard lock(pool().mutex);
  return pool().held;
}
std::int64_t taken() {
  const std::lock_guard lock(pool().mutex);
  return pool().taken;
}

}  // namespace costate::cuda::pool
