#include <costate/tensor/packed.h>

namespace costate {
namespace {

// The layouts beside a parameter; null when it is none.
PackedLayouts* layouts_of(Storage* s) {
  if (s->tag != memory::Tag::parameters) return nullptr;
  PackedLayouts* layouts = s->packed.load(std::memory_order_acquire);
  if (!layouts) {
    auto* made = new PackedLayouts;
    if (s->packed.compare_exchange_strong(layouts, made, std::memory_order_acq_rel)) layouts = made;
    else delete made;
  }
  return layouts;
}

// The entry brought up to date by pack(bytes to write), or null when it holds something else of the same storage.
template <class Pack>
const PackedLayouts::Entry* refresh(PackedLayouts& layouts, PackedLayouts::Entry& entry, const Tensor& b, std::int64_t rows,
                                    std::int64_t columns, std::int64_t bytes, const Pack& pack) {
  const auto other = [&] { return entry.first != b.raw() || entry.rows != rows || entry.columns != columns; };
  const std::uint32_t current = b.storage()->version.load(std::memory_order_relaxed) + 1;
  if (entry.version.load(std::memory_order_acquire) != current) {
    const std::lock_guard lock(layouts.mutex);
    if (!entry.storage) {
      entry.storage = StorageRef::allocate_shared(bytes, b.device(), memory::Tag::packed);
      entry.first = b.raw(), entry.rows = rows, entry.columns = columns;
    }
    if (other()) return nullptr;
    if (entry.version.load(std::memory_order_relaxed) != current) {
      pack(entry.storage->data);
      entry.version.store(current, std::memory_order_release);
    }
  }
  return other() ? nullptr : &entry;
}

}  // namespace

PackedMatrix packed(const Tensor& b, bool transpose_b, Precision precision) {
  if (b.dtype() != DType::f32) precision = Precision::f32;
  Storage* s = b.storage().operator->();
  if (s->tag != memory::Tag::parameters) return {};
  const std::int64_t n = b.extent(transpose_b ? 0 : 1), k = b.extent(transpose_b ? 1 : 0);
  const Kernels& table = kernels(b);
  const std::int64_t bytes = table.packed_bytes(b.dtype(), precision, n, k);
  if (bytes == 0) return {};
  PackedLayouts& layouts = *layouts_of(s);
  const auto* entry =
      refresh(layouts, layouts.entry[2 * static_cast<int>(precision) + transpose_b], b, b.extent(0), b.extent(1), bytes,
              [&](void* data) { table.pack_b(b.dtype(), precision, transpose_b, n, k, b.raw(), data); });
  return entry ? PackedMatrix{true, entry->storage->data} : PackedMatrix{};
}

PackedConv packed_conv(const Tensor& weight, const ConvShape& shape) {
  Storage* s = weight.storage().operator->();
  if (s->tag != memory::Tag::parameters) return {};
  const Kernels& table = kernels(weight);
  const std::int64_t bytes = table.conv_packed_bytes(shape);
  if (bytes == 0) return {};
  PackedLayouts& layouts = *layouts_of(s);
  const std::int64_t pass = static_cast<std::int64_t>(shape.pass);
  // Images of several sizes may want several layouts of one weight. Each kind has its place, the first that was free when
  // it was first asked for.
  for (auto& entry : layouts.conv)
    if (const auto* fresh = refresh(layouts, entry, weight, pass, bytes, bytes,
                                    [&](void* data) { table.conv_pack(shape, weight.raw(), data); }))
      return {true, fresh->storage->data};
  return {};
}

}  // namespace costate
