// Shapes and element types.
#pragma once
#include <array>
#include <costate/tensor/error.h>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <type_traits>

namespace costate {

// i32 holds indices and labels. bf16 is the upper half of f32: networks may compute with it (nn/computed.h), each op in f32
// with its result rounded, and tapes may keep activations in it (precision.h).
enum class DType : std::uint8_t { f32, f64, i32, bf16 };

constexpr std::int64_t size_of(DType t) { return t == DType::f64 ? 8 : t == DType::bf16 ? 2 : 4; }
constexpr std::string_view name(DType t) {
  return t == DType::f32 ? "f32" : t == DType::f64 ? "f64" : t == DType::i32 ? "i32" : "bf16";
}
constexpr bool computes(DType t) { return t == DType::f32 || t == DType::f64; }  // everything: noise, optimisers, ...
constexpr bool is_floating(DType t) { return t != DType::i32; }                   // what has derivatives
constexpr DType arithmetic_of(DType t) { return t == DType::bf16 ? DType::f32 : t; }  // of sums and statistics

// Of the three element types in C++; other types do not compile.
template <class T>
  requires(std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, std::int32_t>)
constexpr DType dtype_of =
    std::is_same_v<T, float> ? DType::f32 : std::is_same_v<T, double> ? DType::f64 : DType::i32;

// Up to six extents, row-major. A scalar has rank 0 and one element.
class Shape {
 public:
  static constexpr int max_rank = 6;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents) : Shape(std::span(extents.begin(), extents.size())) {}
  // Throws when there are more than max_rank extents, when one is negative, or when the product overflows.
  explicit Shape(std::span<const std::int64_t> extents);

  int rank() const { return static_cast<int>(rank_); }
  std::int64_t numel() const { return numel_; }
  // Extent of an axis; axis -1 is the last one. Unchecked: use `axis` for values that come from a caller.
  std::int64_t operator[](int axis) const { return extents_[axis < 0 ? axis + rank_ : axis]; }
  // The axis as an index 0..rank-1; throws, naming `op`, when it is out of range.
  int axis(int axis, std::string_view op) const;
  std::span<const std::int64_t> extents() const { return {extents_.data(), static_cast<std::size_t>(rank_)}; }

  // One extent replaced; one axis removed. Throw when there is no such axis.
  Shape with(int axis, std::int64_t extent) const;
  Shape without(int axis) const;
  Shape with_front(std::int64_t extent) const;      // one axis added in front

  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i)
      if (a.extents_[i] != b.extents_[i]) return false;
    return true;
  }

 private:
  std::array<std::int64_t, max_rank> extents_{};
  std::int64_t numel_ = 1;
  std::int64_t rank_ = 0;  // as wide as an extent: a shape is then copied in whole words
};

std::string to_string(const Shape& shape);  // "(2, 3)"

// NumPy's rule: align at the last axis, extents equal or one of them 1. Throws, naming `op`, when they do not fit.
Shape broadcast(const Shape& a, const Shape& b, std::string_view op);

}  // namespace costate
