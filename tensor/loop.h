// Loops of the kernel table from shapes.
#pragma once
#include <costate/tensor/kernels.h>
#include <span>

namespace costate {

// A pointwise loop over `result`, to which every operand broadcasts. Neighbouring axes that all operands walk alike are
// merged.
Loop pointwise_loop(const Shape& result, std::span<const Shape* const> operands);

// A copy loop over `extents` with given strides of source and destination, in elements.
Loop copy_loop(const Shape& extents, std::span<const std::int64_t> source, std::span<const std::int64_t> destination);

// Row-major strides of a shape.
std::array<std::int64_t, Shape::max_rank> strides(const Shape& shape);

}  // namespace costate
