#include <costate/tensor/loop.h>

namespace costate {
namespace {

// Merges axis i into its right neighbour where every operand steps through both as through one.
void merge_axes(Loop& loop, int operands) {
  int kept = loop.rank - 1;
  for (int axis = loop.rank - 2; axis >= 0; --axis) {
    bool merge = true;
    for (int k = 0; k < operands; ++k)
      merge = merge && loop.stride[k][axis] == loop.stride[k][kept] * loop.extent[kept];
    if (merge) {
      loop.extent[kept] *= loop.extent[axis];
    } else {
      --kept;
      loop.extent[kept] = loop.extent[axis];
      for (int k = 0; k < operands; ++k) loop.stride[k][kept] = loop.stride[k][axis];
    }
  }
  const int rank = loop.rank - kept;
  for (int axis = 0; axis < rank; ++axis) {
    loop.extent[axis] = loop.extent[kept + axis];
    for (int k = 0; k < operands; ++k) loop.stride[k][axis] = loop.stride[k][kept + axis];
  }
  loop.rank = rank;
}

}  // namespace

std::array<std::int64_t, Shape::max_rank> strides(const Shape& shape) {
  std::array<std::int64_t, Shape::max_rank> s{};
  std::int64_t step = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    s[axis] = step;
    step *= shape[axis];
  }
  return s;
}

Loop pointwise_loop(const Shape& result, std::span<const Shape* const> operands) {
  Loop loop;
  loop.numel = result.numel();
  for (const Shape* o : operands) loop.contiguous = loop.contiguous && o->numel() == result.numel();
  if (loop.contiguous) return loop;
  // Extents of one contribute nothing and would keep their neighbours from merging.
  for (int axis = 0; axis < result.rank(); ++axis) {
    if (result[axis] == 1) continue;
    loop.extent[loop.rank] = result[axis];
    for (std::size_t k = 0; k < operands.size(); ++k) {
      const Shape& o = *operands[k];
      const int own = axis - (result.rank() - o.rank());
      loop.stride[k][loop.rank] = own < 0 || o[own] == 1 ? 0 : strides(o)[own];
    }
    ++loop.rank;
  }
  merge_axes(loop, static_cast<int>(operands.size()));
  return loop;
}

Loop copy_loop(const Shape& extents, std::span<const std::int64_t> source, std::span<const std::int64_t> destination) {
  Loop loop;
  loop.numel = extents.numel();
  loop.contiguous = false;
  for (int axis = 0; axis < extents.rank(); ++axis) {
    if (extents[axis] == 1) continue;
    loop.extent[loop.rank] = extents[axis];
    loop.stride[0][loop.rank] = source[static_cast<std::size_t>(axis)];
    loop.stride[1][loop.rank] = destination[static_cast<std::size_t>(axis)];
    ++loop.rank;
  }
  if (loop.rank > 1) merge_axes(loop, 2);
  return loop;
}

}  // namespace costate
