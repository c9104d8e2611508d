#include <costate/tensor/memory.h>

#include <algorithm>
#include <bit>
#include <costate/tensor/backend.h>
#include <costate/tensor/heap.h>
#include <costate/tensor/hooks.h>
#include <costate/tensor/packed.h>
#include <costate/tensor/storage.h>
#include <cstdlib>
#include <mutex>
#include <new>

namespace costate {
namespace {

using memory::Tag;
using memory::detail::Account;
using memory::detail::Heap;

constexpr std::int64_t granule = 64;

// Large blocks come from two heaps: what stays from step to step does not lie between what comes and goes. Never destroyed:
// tensors may outlive everything.
constexpr std::int64_t large_from = std::int64_t{256} << 10, addresses = std::int64_t{1} << 40;
constinit std::atomic<bool> heaps_made{false};
Heap& heap_of(Tag tag) {
  alignas(Heap) static std::byte room[2][sizeof(Heap)];
  static Heap& lasting = *new (room[0]) Heap(addresses);
  static Heap& passing = *new (room[1]) Heap((heaps_made = true, addresses));
  const bool stays = tag == Tag::parameters || tag == Tag::packed || tag == Tag::optimiser || tag == Tag::data;
  return stays ? lasting : passing;
}

// Small free blocks are kept in lists by size class: sixteen classes up to 1 KiB, then eight a doubling, so that a block
// wastes an eighth at most.
constexpr int class_count = 16 + 8 * 40;

int size_class(std::int64_t bytes) {
  const std::int64_t granules = (bytes + granule - 1) / granule;
  if (granules <= 16) return static_cast<int>(granules < 1 ? 0 : granules - 1);
  const int log2 = 63 - std::countl_zero(static_cast<std::uint64_t>(granules - 1));  // >= 4
  const std::int64_t eighth = std::int64_t{1} << (log2 - 3);
  const int part = static_cast<int>((granules - 1 - (std::int64_t{1} << log2)) / eighth);  // 0..7
  return 16 + 8 * (log2 - 4) + part;
}
std::int64_t class_bytes(int c) {
  if (c < 16) return (c + 1) * granule;
  const int log2 = 4 + (c - 16) / 8;
  const std::int64_t eighth = std::int64_t{1} << (log2 - 3);
  return ((std::int64_t{1} << log2) + ((c - 16) % 8 + 1) * eighth) * granule;
}

struct FreeBlock {
  FreeBlock* next;
};

// A thread's free lists and account. Trivially destructible, so that it stays valid until the thread is gone and costs no
// guard to reach; Sweeper gives the lists back at the thread's end.
struct ThreadMemory {
  FreeBlock* free[class_count];
  Account own;
  Account* account;  // null: own
  Tag tag;
  bool cached;    // blocks freed on this thread may go to its lists: a sweeper will come
  bool finished;  // the sweeper has been
};
constinit thread_local ThreadMemory local{};

Account& account() { return local.account ? *local.account : local.own; }

// Blocks freed by another thread than the one that made them. Without these lists a thread that makes what another one
// frees would ask the system for ever.
struct SharedLists {
  std::mutex mutex;
  std::atomic<std::int64_t> blocks{0};
  FreeBlock* free[class_count] = {};
};
constinit SharedLists shared_lists;

void give_back(FreeBlock*& list) {
  while (list) std::free(std::exchange(list, list->next));
}
void trim_local() {
  for (FreeBlock*& list : local.free) give_back(list);
}
void trim_shared() {
  const std::lock_guard lock(shared_lists.mutex);
  for (FreeBlock*& list : shared_lists.free) give_back(list);
  shared_lists.blocks.store(0, std::memory_order_relaxed);
}

struct Sweeper {
  ~Sweeper() {
    trim_local();
    local.cached = false;
    local.finished = true;
  }
  void touch() { local.cached = true; }
};
thread_local Sweeper sweeper;

// When the library is unloaded, or the process ends: what no tensor lives in goes back to the system.
struct Unloading {
  ~Unloading() {
    trim_shared();
    if (heaps_made)
      for (const Tag tag : {Tag::activations, Tag::parameters}) heap_of(tag).unmap_unused();
  }
};
const Unloading unloading;

// All blocks of a class that other threads have freed, moved to this thread's list.
bool adopt(int c) {
  if (shared_lists.blocks.load(std::memory_order_relaxed) == 0) return false;
  const std::lock_guard lock(shared_lists.mutex);
  FreeBlock* list = std::exchange(shared_lists.free[c], nullptr);
  if (!list) return false;
  std::int64_t count = 0;
  for (FreeBlock* b = list; b; b = b->next) ++count;
  shared_lists.blocks.fetch_sub(count, std::memory_order_relaxed);
  local.free[c] = list;
  return true;
}

void charge(Account& a, Tag tag, std::int64_t bytes) {
  a.live.total += bytes;
  a.live.by_tag[static_cast<int>(tag)] += bytes;
  if (a.live.total > a.peak.total) a.peak = a.live;
}

[[noreturn]] void over_limit(const Account& a, std::int64_t bytes) {
  fail(Fault::memory, {"memory limit: ", bytes, " more bytes were asked for with a limit of ", a.limit, "; live now: ",
                       memory::to_string(a.live)});
}

// The size class of what an allocator of the host's has lent; it is the owner then.
constexpr std::int32_t lent_class = -1;
std::size_t lent_bytes(std::int64_t bytes, Device device) {
  return sizeof(Storage) + (device.kind == DeviceKind::cpu ? static_cast<std::size_t>((bytes + granule - 1) / granule * granule) : 0);
}

Storage* take(std::int64_t bytes, Device device, Tag tag) {
  // Beyond the cpu there is a header and nothing else on the host.
  const std::int64_t want = static_cast<std::int64_t>(sizeof(Storage)) + (device.kind == DeviceKind::cpu ? bytes : 0);
  const auto made = [&](void* block) {
    auto* s = new (block) Storage;
    s->bytes = (bytes + granule - 1) / granule * granule;
    s->tag = tag;
    s->device = device;
    if (device.kind == DeviceKind::cpu) s->data = static_cast<std::byte*>(block) + sizeof(Storage);
    return s;
  };
  if (Allocator* const lent = costate::detail::current_allocator()) [[unlikely]] {
    void* const block = lent->allocate(lent_bytes(bytes, device), granule);
    if (!block)
      fail(Fault::memory, {"allocation: the host's allocator refused ", bytes, " bytes; live now: ",
                           memory::to_string(account().live)});
    Storage* s = made(block);
    s->size_class = lent_class;
    s->owner = lent;
    return s;
  }
  if (want >= large_from) {
    Heap& heap = heap_of(tag);
    if (void* block = heap.take(want)) {
      Storage* s = made(block);
      s->heap = &heap;
      return s;
    }
  }
  const int c = size_class(want);
  require(c < class_count, "allocation: ", bytes, " bytes are more than any machine has");
  void* block = local.free[c];
  if (!block) [[unlikely]] {
    if (!local.finished) sweeper.touch();
    if (adopt(c)) block = local.free[c];
  }
  if (block) {
    local.free[c] = static_cast<FreeBlock*>(block)->next;
  } else {
    block = std::aligned_alloc(granule, static_cast<std::size_t>(class_bytes(c)));
    if (!block) {
      memory::trim();
      block = std::aligned_alloc(granule, static_cast<std::size_t>(class_bytes(c)));
    }
    if (!block)
      fail(Fault::memory, {"allocation: the system refused ", bytes, " bytes; live now: ",
                           memory::to_string(account().live)});
  }
  Storage* s = made(block);
  s->size_class = c;
  s->owner = &local;
  return s;
}

// The bytes of a tensor on another device. Its storage has been charged already and is given up when this throws.
void* take_on_device(std::int64_t bytes, Device device, const Account& a) {
  const Backend& backend = backend_of(device);
  void* data = backend.allocate(bytes);
  if (!data && bytes > 0)
    fail(Fault::memory, {"allocation: ", device, " refused ", bytes, " bytes; live with them: ", memory::to_string(a.live)});
  return data;
}

}  // namespace

std::string to_string(Device device) {
  if (device.kind == DeviceKind::cuda) return "cuda:" + std::to_string(device.index);
  return device.kind == DeviceKind::cpu ? "cpu" : "meta";
}

StorageRef StorageRef::allocate(std::int64_t bytes, Device device) {
  Account& a = account();
  const std::int64_t rounded = (bytes + granule - 1) / granule * granule;
  if (a.limit && a.live.total + rounded > a.limit) [[unlikely]]
    over_limit(a, rounded);
  StorageRef ref;
  ref.storage_ = take(bytes, device, local.tag);
  charge(a, local.tag, rounded);
  if (device.kind == DeviceKind::cuda) [[unlikely]]
    ref.storage_->data = take_on_device(bytes, device, a);
  return ref;
}

StorageRef StorageRef::allocate_shared(std::int64_t bytes, Device device, memory::Tag tag) {
  memory::detail::Region* region = account().region;
  if (!region) {
    memory::TagScope scope(tag);
    return allocate(bytes, device);
  }
  StorageRef ref;
  ref.storage_ = take(bytes, device, tag);
  region->shared[static_cast<int>(tag)].fetch_add(ref.storage_->bytes, std::memory_order_relaxed);
  if (device.kind == DeviceKind::cuda) ref.storage_->data = take_on_device(bytes, device, account());
  return ref;
}

void StorageRef::charge_to(memory::Tag tag) const noexcept {
  if (!storage_ || storage_->tag == tag) return;
  Account& a = account();
  a.live.by_tag[static_cast<int>(storage_->tag)] -= storage_->bytes;
  a.live.by_tag[static_cast<int>(tag)] += storage_->bytes;
  storage_->tag = tag;
}

void StorageRef::release(Storage* s) noexcept {
  if (PackedLayouts* layouts = s->packed.load(std::memory_order_acquire)) [[unlikely]]
    delete layouts;
  Account& a = account();
  a.live.total -= s->bytes;
  a.live.by_tag[static_cast<int>(s->tag)] -= s->bytes;
  if (s->device.kind == DeviceKind::cuda && s->data) [[unlikely]]
    backend_of(s->device).release(s->data);
  if (s->heap) return s->heap->give(s);
  const int c = s->size_class;
  if (c == lent_class) [[unlikely]]
    return static_cast<Allocator*>(const_cast<void*>(s->owner))->release(s, lent_bytes(s->bytes, s->device));
  if (s->owner == &local && local.cached) [[likely]] {
    local.free[c] = new (static_cast<void*>(s)) FreeBlock{local.free[c]};
    return;
  }
  const std::lock_guard lock(shared_lists.mutex);
  shared_lists.free[c] = new (static_cast<void*>(s)) FreeBlock{shared_lists.free[c]};
  shared_lists.blocks.fetch_add(1, std::memory_order_relaxed);
}

namespace memory {

std::string_view name(Tag tag) {
  static constexpr std::string_view names[tag_count] = {"activations", "parameters", "packed",  "gradients",
                                                        "optimiser",   "trajectory", "adjoint", "data"};
  return names[static_cast<int>(tag)];
}

std::string to_string(const Usage& usage) {
  const auto mib = [](std::int64_t b) {
    const double tenths = static_cast<double>((b * 100 + (1 << 19)) / (1 << 20)) / 100.0;
    return Piece(tenths).text + " MiB";
  };
  std::array<int, tag_count> order{};
  for (int i = 0; i < tag_count; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](int x, int y) { return usage.by_tag[x] > usage.by_tag[y]; });
  std::string s = mib(usage.total), parts;
  for (int i : order)
    if (usage.by_tag[i] > 0) parts += (parts.empty() ? "" : ", ") + std::string(name(Tag(i))) + " " + mib(usage.by_tag[i]);
  return parts.empty() ? s : s + " (" + parts + ")";
}

Usage live() { return account().live; }
Usage peak() { return account().peak; }
void reset_peak() { account().peak = account().live; }
void set_limit(std::int64_t bytes) {
  require(bytes >= 0, "memory limit: ", bytes, " is negative; 0 means none");
  account().limit = bytes;
}
void trim() {
  trim_local();
  costate::detail::trim_backend();
  heap_of(Tag::activations).trim();
  heap_of(Tag::parameters).trim();
  trim_shared();
}
Tag current_tag() { return local.tag; }

PeakScope::PeakScope() : outer_(account().peak) { reset_peak(); }
PeakScope::~PeakScope() {
  Account& a = account();
  if (outer_.total >= a.peak.total) a.peak = outer_;
}
Usage PeakScope::peak() const { return account().peak; }

TagScope::TagScope(Tag tag) : outer_(local.tag) { local.tag = tag; }
TagScope::~TagScope() { local.tag = outer_; }

namespace detail {

Account* exchange_account(Account* account) { return std::exchange(local.account, account); }

void open_accounts(Region& region, Account* workers, int count) {
  const Account& a = account();
  for (int w = 0; w < count; ++w) {
    workers[w].region = &region;
    // Equal shares of what is left: together the workers stay within the limit, whatever their timing.
    if (a.limit) workers[w].limit = std::max<std::int64_t>(1, (a.limit - a.live.total) / count);
  }
}

void merge(const Region& region, const Account* workers, int count) {
  Account& a = account();
  Usage top = a.live;
  for (int i = 0; i < tag_count; ++i) {
    const std::int64_t shared = region.shared[i].load(std::memory_order_relaxed);
    // A region inside a region hands what its workers share on to the outer one.
    if (a.region) {
      a.region->shared[i].fetch_add(shared, std::memory_order_relaxed);
    } else {
      top.total += shared, top.by_tag[i] += shared;
      a.live.total += shared, a.live.by_tag[i] += shared;
    }
  }
  for (int w = 0; w < count; ++w) {
    top.total += workers[w].peak.total;
    a.live.total += workers[w].live.total;
    for (int i = 0; i < tag_count; ++i) {
      top.by_tag[i] += workers[w].peak.by_tag[i];
      a.live.by_tag[i] += workers[w].live.by_tag[i];
    }
  }
  if (top.total > a.peak.total) a.peak = top;
}

}  // namespace detail
}  // namespace memory
}  // namespace costate
