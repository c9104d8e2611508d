// Reference-counted memory of tensors, and the seam between the allocator and the thread pool.
#pragma once
#include <atomic>
#include <costate/tensor/memory.h>
#include <costate/tensor/shape.h>
#include <utility>

namespace costate {
namespace memory::detail {
class Heap;
}

enum class DeviceKind : std::uint8_t { cpu, meta, cuda };

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  std::uint8_t index = 0;  // among several devices of a kind
  static const Device cpu, meta;
  static constexpr Device cuda(int index) { return {DeviceKind::cuda, static_cast<std::uint8_t>(index)}; }
  friend bool operator==(const Device&, const Device&) = default;
};
std::string to_string(Device device);  // "cpu", "meta", "cuda:0"
inline constexpr Device Device::cpu{DeviceKind::cpu}, Device::meta{DeviceKind::meta};

// A block: this header and, on the cpu, the bytes behind it; elsewhere the header alone, on the host.
struct alignas(64) Storage {
  std::atomic<std::uint32_t> references{1};
  // Counts writes in place: what is derived from the bytes is stale when it differs. Threads may write to parts of one
  // storage at the same time.
  std::atomic<std::uint32_t> version{0};
  void written() { version.fetch_add(1, std::memory_order_relaxed); }
  std::int64_t bytes = 0;
  void* data = nullptr;  // null on the meta device; of a cuda device an address that only its kernels can read
  memory::detail::Heap* heap = nullptr;  // that a large block returns to
  std::int32_t size_class = 0;           // of the free list that a small one returns to; -1: to an allocator of the host's
  memory::Tag tag = memory::Tag::activations;
  Device device;
  const void* owner = nullptr;  // the thread whose list, or the allocator
  // Packed layouts of this parameter (see tensor.h, packed), made on first use.
  std::atomic<struct PackedLayouts*> packed{nullptr};
};

// An owning handle.
class StorageRef {
 public:
  StorageRef() = default;
  StorageRef(const StorageRef& o) noexcept : storage_(o.storage_) {
    if (storage_) storage_->references.fetch_add(1, std::memory_order_relaxed);
  }
  StorageRef(StorageRef&& o) noexcept : storage_(std::exchange(o.storage_, nullptr)) {}
  StorageRef& operator=(const StorageRef& o) noexcept { return *this = StorageRef(o); }
  StorageRef& operator=(StorageRef&& o) noexcept {
    Storage* before = std::exchange(storage_, std::exchange(o.storage_, nullptr));
    if (before) drop(before);
    return *this;
  }
  ~StorageRef() {
    if (storage_) drop(storage_);
  }

  static StorageRef allocate(std::int64_t bytes, Device device);
  // Charged to all workers of a parallel region together: for what they share.
  static StorageRef allocate_shared(std::int64_t bytes, Device device, memory::Tag tag);

  Storage* operator->() const { return storage_; }
  explicit operator bool() const { return storage_ != nullptr; }
  bool unique() const { return storage_ && storage_->references.load(std::memory_order_acquire) == 1; }
  // Charged to another tag from now on: what was a result becomes, say, a state that is kept.
  void charge_to(memory::Tag tag) const noexcept;

 private:
  static void drop(Storage* storage) noexcept {
    // The last owner needs no atomic subtraction: no one is left to race with.
    if (storage->references.load(std::memory_order_acquire) == 1 ||
        storage->references.fetch_sub(1, std::memory_order_acq_rel) == 1)
      release(storage);
  }
  static void release(Storage* storage) noexcept;
  Storage* storage_ = nullptr;
};

namespace memory::detail {

// The account of one worker in a parallel region. The pool opens one a worker and merges them when all have finished.
struct Account {
  Usage live, peak;
  std::int64_t limit = 0;           // 0: none
  struct Region* region = nullptr;  // the region this account belongs to, if any
};
struct Region {
  std::array<std::atomic<std::int64_t>, tag_count> shared{};
};
Account* exchange_account(Account* account);  // makes it the calling thread's (null: its own); returns the one before
void open_accounts(Region& region, Account* workers, int count);
void merge(const Region& region, const Account* workers, int count);

}  // namespace memory::detail
}  // namespace costate
