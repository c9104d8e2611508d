#include <costate/tensor/tensor.h>

#include <costate/tensor/backend.h>

#include <cstring>
#include <limits>

namespace costate {

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  std::int64_t bytes = 0;
  require(!__builtin_mul_overflow(shape.numel(), size_of(dtype), &bytes) && bytes < (std::int64_t{1} << 46),
          "tensor: shape ", shape, " of ", dtype, " has more bytes than any machine");
  return Tensor(StorageRef::allocate(bytes, device), shape, dtype);
}

void Tensor::check_defined(const char* what) const { require(defined(), what, ": the tensor is undefined"); }

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  kernels(t).fill(dtype, t.numel(), value, t.data_);
  return t;
}

Tensor Tensor::from_bytes(const void* values, std::int64_t count, const Shape& shape, DType dtype, Device device) {
  require(count == shape.numel(), "tensor: ", count, " values were given for shape ", shape, ", which has ",
          shape.numel());
  Tensor t = empty(shape, dtype, device);
  if (t.is_meta() || count == 0) return t;
  if (device.kind == DeviceKind::cuda) backend_of(device).upload(values, t.data_, t.bytes());
  else std::memcpy(t.data_, values, static_cast<std::size_t>(t.bytes()));
  return t;
}

void Tensor::check_access(DType dtype) const {
  require(defined(), "tensor: values of an undefined tensor were asked for");
  require(dtype == dtype_, "tensor: values were asked for as ", dtype, " but are ", dtype_);
  require(!is_meta(), "tensor: a tensor on the meta device has no values (shape ", shape_, ")");
  require(device() == Device::cpu, "tensor: the host asked for values on ", device(), " (shape ", shape_,
          "); to(Device::cpu) brings a copy");
}

double Tensor::item() const {
  require(defined() && numel() == 1, "item: the tensor has shape ", shape_, "; exactly one element is expected");
  if (is_meta()) return std::numeric_limits<double>::quiet_NaN();
  if (device() != Device::cpu) return to(Device::cpu).item();
  switch (dtype_) {
    case DType::bf16: return to(DType::f32).item();
    case DType::f32: return *reinterpret_cast<const float*>(data_);
    case DType::f64: return *reinterpret_cast<const double*>(data_);
    default: return *reinterpret_cast<const std::int32_t*>(data_);
  }
}

std::vector<double> Tensor::to_doubles() const {
  std::vector<double> out(static_cast<std::size_t>(numel()), std::numeric_limits<double>::quiet_NaN());
  if (is_meta()) return out;
  if (device() != Device::cpu) return to(Device::cpu).to_doubles();
  const auto copy = [&](auto values) { out.assign(values.begin(), values.end()); };
  switch (dtype_) {
    case DType::f32: copy(values<float>()); break;
    case DType::f64: copy(values<double>()); break;
    case DType::i32: copy(values<std::int32_t>()); break;
    case DType::bf16: return to(DType::f32).to_doubles();
  }
  return out;
}

Tensor Tensor::reshape(std::initializer_list<std::int64_t> extents) const {
  std::array<std::int64_t, Shape::max_rank> e{};
  require(extents.size() <= Shape::max_rank, "reshape: ", extents.size(), " axes; at most ", Shape::max_rank,
          " are supported");
  std::int64_t known = 1;
  int n = 0, unknown = -1;
  for (const std::int64_t x : extents) {
    if (x == -1) {
      require(unknown < 0, "reshape: more than one extent is -1");
      unknown = n;
    } else {
      require(x >= 0 && !__builtin_mul_overflow(known, x, &known), "reshape: bad extent ", x);
    }
    e[n++] = x;
  }
  if (unknown >= 0) {
    require(known > 0 && numel() % known == 0, "reshape: shape ", shape_, " has ", numel(),
            " elements, not a multiple of ", known);
    e[unknown] = numel() / known;
  }
  return reshape(Shape(std::span<const std::int64_t>(e.data(), n)));
}

Tensor Tensor::reshape(const Shape& shape) const {
  check_defined("reshape");
  require(shape.numel() == numel(), "reshape: from ", shape_, " (", numel(), " elements) to ", shape, " (",
          shape.numel(), ")");
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::slice(std::int64_t first, std::int64_t count) const {
  require(rank() > 0, "slice: a scalar has no axis to slice");
  require(first >= 0 && count >= 0 && count <= shape_[0] && first <= shape_[0] - count, "slice: ", count, " items from ",
          first, " on were asked for of ", shape_[0]);
  Tensor t = *this;
  if (data_ && shape_[0]) t.data_ += first * (numel() / shape_[0]) * size_of(dtype_);
  t.shape_ = shape_.with(0, count);
  return t;
}

Tensor Tensor::operator[](std::int64_t index) const {
  Tensor t = slice(index, 1);
  t.shape_ = shape_.without(0);
  return t;
}

Tensor Tensor::clone() const {
  check_defined("clone");
  Tensor t = empty_like(*this);
  t.copy_from(*this);
  return t;
}

Tensor Tensor::to(DType dtype) const {
  check_defined("to");
  if (dtype == dtype_) return *this;
  if ((dtype == DType::bf16 || dtype_ == DType::bf16) && dtype != DType::f32 && dtype_ != DType::f32)
    return to(DType::f32).to(dtype);
  Tensor t = empty(shape_, dtype, device());
  kernels(*this).cast(dtype_, dtype, numel(), raw(), t.raw_mutable());
  return t;
}

Tensor Tensor::to(Device device) const {
  check_defined("to");
  if (device == this->device()) return *this;
  if (device == Device::meta) return empty(shape_, dtype_, device);
  require(!is_meta(), "to: a tensor on the meta device has no values to copy to the ", device);
  require(device == Device::cpu || this->device() == Device::cpu, "to: from ", this->device(), " to ", device,
          "; one of the two must be the cpu");
  Tensor t = empty(shape_, dtype_, device);
  if (numel() == 0) return t;
  if (device == Device::cpu) backend_of(this->device()).download(data_, t.data_, bytes());
  else backend_of(device).upload(data_, t.data_, bytes());
  return t;
}

void Tensor::copy_from(const Tensor& source) const {
  check_defined("copy_from");
  source.check_defined("copy_from");
  require(source.shape_ == shape_ && source.dtype_ == dtype_ && source.device() == device(), "copy_from: a tensor ",
          source.shape_, " of ", source.dtype_, " on ", source.device(), " does not fit one of shape ",
          shape_, " of ", dtype_, " on ", device());
  if (!is_meta() && numel()) {
    if (device().kind == DeviceKind::cuda) backend_of(device()).copy(source.data_, data_, bytes());
    else std::memmove(data_, source.data_, static_cast<std::size_t>(bytes()));
  }
  storage_->written();
}

void Tensor::fill(double value) const {
  check_defined("fill");
  kernels(*this).fill(dtype_, numel(), value, data_);
  storage_->written();
}

void Tensor::unshare() {
  check_defined("unshare");
  if (!storage_.unique()) {
    const memory::TagScope scope(storage_->tag);
    *this = clone();
  }
  storage_->written();
}

}  // namespace costate
