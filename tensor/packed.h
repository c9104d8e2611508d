// Parameters in the layout that the matrix product reads fastest, kept beside the parameter they were made from.
#pragma once
#include <costate/tensor/tensor.h>
#include <mutex>

namespace costate {

// Both orientations of one matrix; stale when `version` differs from the storage's.
struct PackedLayouts {
  std::mutex mutex;
  struct Entry {
    StorageRef storage;
    std::atomic<std::uint32_t> version{0};  // of the parameter, plus one; 0: not made yet
    const void* first = nullptr;  // of the parameter's elements
    std::int64_t rows = 0, columns = 0;
  } entry[2];
};

// The bytes of `b` (n x k if transpose_b, else k x n) in packed layout, or null when `b` is not a parameter (its storage
// is not charged to Tag::parameters) or when the device offers no such layout for this shape. Made on first use, kept
// until the parameter is written, shared by all threads; charged to Tag::packed.
const void* packed(const Tensor& b, bool transpose_b);

}  // namespace costate
