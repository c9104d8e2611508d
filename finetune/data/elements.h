// Element types of array files, and their checked conversion into the types that programs compute with.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace costate::data {

enum class Element : std::uint8_t { boolean, u8, i8, i16, i32, i64, f16, f32, f64 };

std::int64_t size_of(Element element);   // bytes
std::string_view name(Element element);  // "f32"

// The product of the extents, or nothing when one is negative or the product does not fit in 63 bits.
std::optional<std::int64_t> element_count(std::span<const std::int64_t> shape);

// Reads `raw` as elements stored in the given byte order. T is float, double, std::int32_t or std::int64_t.
// Throws Fault::data, naming `what`, when a number does not fit: a fraction or NaN into an integer, an
// integer out of range, a finite double beyond the largest float, a boolean other than 0 and 1. raw.size()
// must be a multiple of the element's size.
template <class T>
std::vector<T> convert(std::span<const std::byte> raw, Element element, std::endian order,
                       std::string_view what);

}  // namespace costate::data
