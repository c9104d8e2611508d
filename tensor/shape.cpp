#include <costate/tensor/shape.h>

namespace costate {

Shape::Shape(std::span<const std::int64_t> extents) {
  require(extents.size() <= max_rank, "shape: has ", extents.size(), " axes; at most ", max_rank, " are supported");
  std::int64_t all = 1;  // extents of zero left out: strides must not overflow either
  for (const std::int64_t e : extents) {
    require(e >= 0, "shape: extent ", e, " of axis ", rank_, " is negative");
    require(e == 0 || !__builtin_mul_overflow(all, e, &all), "shape: the number of elements overflows 64 bits");
    numel_ = e == 0 ? 0 : numel_ * e;
    extents_[rank_++] = e;
  }
}

int Shape::axis(int axis, std::string_view op) const {
  require(axis >= -rank_ && axis < rank_, op, ": axis ", axis, " does not exist in shape ", *this);
  return axis < 0 ? axis + rank_ : axis;
}

Shape Shape::with(int axis, std::int64_t extent) const {
  auto e = extents_;
  e[this->axis(axis, "shape")] = extent;
  return Shape(std::span<const std::int64_t>(e.data(), rank_));
}

Shape Shape::without(int axis) const {
  std::array<std::int64_t, max_rank> e{};
  int n = 0;
  axis = this->axis(axis, "shape");
  for (int i = 0; i < rank_; ++i)
    if (i != axis) e[n++] = extents_[i];
  return Shape(std::span<const std::int64_t>(e.data(), n));
}

Shape Shape::with_front(std::int64_t extent) const {
  require(rank_ < max_rank, "shape: ", *this, " already has ", max_rank, " axes");
  std::array<std::int64_t, max_rank> e{};
  e[0] = extent;
  for (int i = 0; i < rank_; ++i) e[i + 1] = extents_[i];
  return Shape(std::span<const std::int64_t>(e.data(), rank_ + 1));
}

std::string to_string(const Shape& shape) {
  std::string s = "(";
  for (int i = 0; i < shape.rank(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + (shape.rank() == 1 ? ",)" : ")");
}

Shape broadcast(const Shape& a, const Shape& b, std::string_view op) {
  if (a == b) return a;
  const int rank = a.rank() > b.rank() ? a.rank() : b.rank();
  std::array<std::int64_t, Shape::max_rank> e{};
  for (int i = 0; i < rank; ++i) {
    const int ia = i - (rank - a.rank()), ib = i - (rank - b.rank());
    const std::int64_t x = ia < 0 ? 1 : a[ia], y = ib < 0 ? 1 : b[ib];
    require(x == y || x == 1 || y == 1, op, ": shapes ", a, " and ", b,
            " do not broadcast: aligned at the last axis, extents must be equal or 1");
    e[i] = x == 1 ? y : x;
  }
  return Shape(std::span<const std::int64_t>(e.data(), rank));
}

}  // namespace costate
