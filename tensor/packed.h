// Parameters in the layout that products and convolutions read fastest, kept beside the parameter they were made from.
#pragma once
#include <costate/tensor/tensor.h>
#include <mutex>

namespace costate {

// Both orientations of one matrix in each precision, and up to four layouts of one bank of filters; stale when `version`
// differs from the storage's.
struct PackedLayouts {
  std::mutex mutex;
  struct Entry {
    StorageRef storage;
    std::atomic<std::uint32_t> version{0};  // of the parameter, plus one; 0: not made yet
    const void* first = nullptr;  // of the parameter's elements
    std::int64_t rows = 0, columns = 0;  // of filters: the pass and the bytes
  } entry[2 * precision_count], conv[4];
};

// `b` (n x k if transpose_b, else k x n) in the layout that products of this precision read. Not offered when `b` is no
// parameter (its storage is not charged to Tag::parameters) or when the device has no such layout for this shape. Made on
// first use, kept until the parameter is written, shared by all threads; charged to Tag::packed. On the meta device a
// layout is offered, and charged, without bytes.
struct PackedMatrix {
  bool offered = false;
  const void* data = nullptr;
};
PackedMatrix packed(const Tensor& b, bool transpose_b, Precision precision = Precision::f32);

// The same for the filters of a convolution: the layout that `shape` with its pass reads. On the meta device a layout is
// offered, and charged, without bytes.
struct PackedConv {
  bool offered = false;
  const void* data = nullptr;
};
PackedConv packed_conv(const Tensor& weight, const ConvShape& shape);

}  // namespace costate
