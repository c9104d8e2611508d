#include <costate/tensor/packed.h>

namespace costate {

const void* packed(const Tensor& b, bool transpose_b) {
  Storage* s = b.storage().operator->();
  if (s->tag != memory::Tag::parameters) return nullptr;
  const std::int64_t n = b.extent(transpose_b ? 0 : 1), k = b.extent(transpose_b ? 1 : 0);
  const Kernels& table = kernels(b);

  PackedLayouts* layouts = s->packed.load(std::memory_order_acquire);
  if (!layouts) {
    if (table.packed_bytes(b.dtype(), n, k) == 0) return nullptr;
    auto* made = new PackedLayouts;
    if (s->packed.compare_exchange_strong(layouts, made, std::memory_order_acq_rel)) layouts = made;
    else delete made;
  }
  auto& entry = layouts->entry[transpose_b];
  const std::uint32_t current = s->version.load(std::memory_order_relaxed) + 1;
  if (entry.version.load(std::memory_order_acquire) != current) {
    const std::lock_guard lock(layouts->mutex);
    if (entry.version.load(std::memory_order_relaxed) != current) {
      const std::int64_t bytes = table.packed_bytes(b.dtype(), n, k);
      if (bytes == 0) return nullptr;
      if (!entry.storage) {
        entry.storage = StorageRef::allocate_shared(bytes, b.device(), memory::Tag::packed);
        entry.first = b.raw(), entry.rows = b.extent(0), entry.columns = b.extent(1);
      }
      // Another matrix within the same storage: one layout a storage is kept, and this is not it.
      if (entry.first != b.raw() || entry.rows != b.extent(0) || entry.columns != b.extent(1)) return nullptr;
      table.pack_b(b.dtype(), transpose_b, n, k, b.raw(), entry.storage->data);
      entry.version.store(current, std::memory_order_release);
    }
  }
  if (entry.first != b.raw() || entry.rows != b.extent(0) || entry.columns != b.extent(1)) return nullptr;
  return entry.storage->data;
}

}  // namespace costate
