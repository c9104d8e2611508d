// NPY, NumPy's array file (NumPy Enhancement Proposal 1): the bytes 93 'NUMPY', major and minor version, the
// header's length (u16 for version 1, u32 for 2 and 3, little-endian), a Python dict literal with the keys
// descr, fortran_order and shape, padded with spaces and ended by a line feed, then the elements.
#pragma once
#include <costate/finetune/data/elements.h>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace costate::data {

struct NpyArray {
  Element element = Element::f32;
  std::vector<std::int64_t> shape;  // empty for a scalar
  bool fortran_order = false;
  std::span<const std::byte>
      elements;  // within the bytes given to parse_npy; little-endian, in the file's order
};

// Reads versions 1, 2 and 3 with elements <f2 <f4 <f8 <i4 <i8 |u1 |b1.
// Throws Fault::data, naming `what`, for anything else, for a header of more than
// 64 KiB, for more than 32 axes, and unless the file has exactly the announced size.
NpyArray parse_npy(std::span<const std::byte> bytes, std::string_view what);

// The elements in row-major order, whatever the file's order, converted as `convert` does. T is float,
// double, std::int32_t or std::int64_t.
template <class T>
std::vector<T> npy_values(const NpyArray& array, std::string_view what);

// A version 1 file with the very bytes that NumPy (1.23 and later) writes. values.size() must be the product
// of the shape.
std::vector<std::byte> npy_bytes(std::span<const float> values, std::span<const std::int64_t> shape);
std::vector<std::byte> npy_bytes(std::span<const double> values, std::span<const std::int64_t> shape);
std::vector<std::byte> npy_bytes(std::span<const std::int32_t> values, std::span<const std::int64_t> shape);

}  // namespace costate::data
