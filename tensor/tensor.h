// Tensor: shared storage, a shape, an element type, a device. It has no arithmetic: that is autograd/ops.h.
//
// Contiguous row-major is the only layout. Copies share storage; views are reshapes and leading-dimension slices. A
// tensor that others share is never written behind their back: `unshare` before writing.
#pragma once
#include <costate/tensor/kernels.h>
#include <costate/tensor/storage.h>
#include <span>
#include <vector>

namespace costate {

class Tensor {
 public:
  Tensor() = default;  // undefined: no storage

  // Uninitialised. Throws Error(Fault::memory) beyond the ledger's limit.
  static Tensor empty(const Shape& shape, DType dtype = DType::f32, Device device = Device::cpu);
  static Tensor full(const Shape& shape, double value, DType dtype = DType::f32, Device device = Device::cpu);
  static Tensor zeros(const Shape& shape, DType dtype = DType::f32, Device device = Device::cpu) {
    return full(shape, 0.0, dtype, device);
  }
  // Like `other` in shape, element type and device.
  static Tensor empty_like(const Tensor& other) { return empty(other.shape_, other.dtype_, other.device()); }
  // A copy of host values of type float, double or int32. On the meta device the values are forgotten.
  template <class T>
  static Tensor from(std::span<const T> values, const Shape& shape, Device device = Device::cpu) {
    return from_bytes(values.data(), static_cast<std::int64_t>(values.size()), shape, dtype_of<T>, device);
  }
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape, Device device = Device::cpu) {
    return from(std::span<const T>(values), shape, device);
  }
  static Tensor scalar(double value, DType dtype = DType::f32, Device device = Device::cpu) {
    return full({}, value, dtype, device);
  }

  bool defined() const { return static_cast<bool>(storage_); }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  std::int64_t extent(int axis) const { return shape_[axis]; }
  std::int64_t numel() const { return shape_.numel(); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_ ? storage_->device : Device::cpu; }
  bool is_meta() const { return storage_ && storage_->device.kind == DeviceKind::meta; }
  std::int64_t bytes() const { return shape_.numel() * size_of(dtype_); }

  // Pointers for kernels; null on the meta device, and not to be followed by the host on a cuda device.
  const void* raw() const { return data_; }
  void* raw_mutable() const { return data_; }  // the caller owns the values: see unshare
  // Typed host access. Throws when the type is another or the values are not on the cpu: `to(Device::cpu)` brings them.
  template <class T>
  std::span<const T> values() const {
    check_access(dtype_of<T>);
    return {reinterpret_cast<const T*>(data_), static_cast<std::size_t>(numel())};
  }
  // For writing; the tensor becomes the only owner of its bytes first (copy on write), and layouts derived from the old
  // values are dropped.
  template <class T>
  std::span<T> mutate() {
    check_access(dtype_of<T>);
    unshare();
    return {reinterpret_cast<T*>(data_), static_cast<std::size_t>(numel())};
  }
  // The only element, as a double. Throws when there is not exactly one; NaN on the meta device, which has no values.
  // From a cuda device this and `to_doubles` wait for the kernels that compute the values.
  double item() const;
  std::vector<double> to_doubles() const;

  // Views: same storage, no copy. reshape: one extent may be -1 and is worked out.
  Tensor reshape(std::initializer_list<std::int64_t> extents) const;
  Tensor reshape(const Shape& shape) const;
  Tensor slice(std::int64_t first, std::int64_t count) const;  // along axis 0
  Tensor operator[](std::int64_t index) const;                 // slice of one, without its axis

  Tensor clone() const;
  Tensor to(DType dtype) const;    // itself when it is of that type already; the host reads and writes bf16 this way alone
  Tensor to(Device device) const;  // itself when it is there already; from meta there is nothing to copy: throws
  // Overwrites the values with those of `source` (same shape, type and device), in place and seen by all sharers.
  void copy_from(const Tensor& source) const;
  void fill(double value) const;

  // Makes this tensor the only owner of its bytes, copying them if they are shared, and marks them as about to change.
  void unshare();
  bool shares_storage_with(const Tensor& other) const { return storage_ && storage_.operator->() == other.storage_.operator->(); }
  bool unique() const { return storage_.unique(); }

  const StorageRef& storage() const { return storage_; }

 private:
  Tensor(StorageRef&& storage, const Shape& shape, DType dtype)
      : storage_(std::move(storage)), data_(static_cast<std::byte*>(storage_->data)), shape_(shape), dtype_(dtype) {}
  static Tensor from_bytes(const void* values, std::int64_t count, const Shape& shape, DType dtype, Device device);
  void check_access(DType dtype) const;
  void check_defined(const char* what) const;

  StorageRef storage_;
  std::byte* data_ = nullptr;  // the first element; null on the meta device
  Shape shape_;
  DType dtype_ = DType::f32;
};

// The kernels that compute on a device.
namespace detail {
extern std::atomic<const Kernels*> cpu_table;  // null until first asked for
extern const Kernels meta_table;
const Kernels& choose_cpu_table();
const Kernels& table_beyond_cpu(Device device);  // loads a backend on first use, see backend.h
}  // namespace detail
inline const Kernels& kernels(Device device) {
  if (device.kind != DeviceKind::cpu) [[unlikely]]
    return detail::table_beyond_cpu(device);
  const Kernels* table = detail::cpu_table.load(std::memory_order_acquire);
  return table ? *table : detail::choose_cpu_table();
}
inline const Kernels& kernels(const Tensor& t) { return kernels(t.device()); }

// The cpu's tables, best first, as far as this processor runs them: for tests and benchmarks.
std::span<const Kernels* const> cpu_tables();

}  // namespace costate
