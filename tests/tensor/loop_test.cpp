// Loops: neighbouring axes merge exactly where all operands allow it, and every element is still visited at its address.
#include <costate/tensor/loop.h>
#include <gtest/gtest.h>

namespace costate {
namespace {

// The address in operand k of the i-th element of the loop's result.
std::int64_t address(const Loop& loop, int k, std::int64_t i) {
  std::int64_t at = 0;
  for (int axis = loop.rank - 1; axis >= 0; --axis) {
    at += i % loop.extent[axis] * loop.stride[k][axis];
    i /= loop.extent[axis];
  }
  return at;
}

std::int64_t broadcast_address(const Shape& result, const Shape& operand, std::int64_t i) {
  const auto s = strides(operand);
  std::int64_t at = 0;
  for (int axis = result.rank() - 1; axis >= 0; --axis) {
    const int own = axis - (result.rank() - operand.rank());
    if (own >= 0 && operand[own] != 1) at += i % result[axis] * s[own];
    i /= result[axis];
  }
  return at;
}

TEST(Loop, AddressesOfBroadcastOperands) {
  const Shape shapes[] = {{}, {1}, {5}, {4, 5}, {4, 1}, {3, 1, 5}, {3, 4, 1}, {1, 4, 5}, {3, 4, 5}, {2, 1, 1, 1}, {2, 3, 4, 5}};
  for (const Shape& a : shapes)
    for (const Shape& b : shapes) {
      const Shape result = broadcast(a, b, "test");
      const Shape* operands[] = {&a, &b};
      const Loop loop = pointwise_loop(result, operands);
      EXPECT_EQ(loop.numel, result.numel());
      if (loop.contiguous) {
        EXPECT_EQ(a.numel(), result.numel());
        EXPECT_EQ(b.numel(), result.numel());
        continue;
      }
      for (std::int64_t i = 0; i < result.numel(); ++i) {
        ASSERT_EQ(address(loop, 0, i), broadcast_address(result, a, i)) << to_string(a) << to_string(b);
        ASSERT_EQ(address(loop, 1, i), broadcast_address(result, b, i)) << to_string(a) << to_string(b);
      }
    }
}

TEST(Loop, MergesAxes) {
  const Shape a{2, 3, 4, 5}, b{4, 5}, c{2, 3, 1, 1};
  const Shape* ab[] = {&a, &b};
  EXPECT_EQ(pointwise_loop(a, ab).rank, 2);
  const Shape* abc[] = {&a, &b, &c};
  EXPECT_EQ(pointwise_loop(a, abc).rank, 2);
  const Shape d{2, 1, 4, 1};
  const Shape* ad[] = {&a, &d};
  EXPECT_EQ(pointwise_loop(a, ad).rank, 4);
}

TEST(Loop, CopyVisitsEveryElement) {
  const Shape extents{3, 1, 4, 2};
  const std::array<std::int64_t, 6> from{2, 99, 6, 1}, to{8, 8, 2, 1};
  const Loop loop = copy_loop(extents, from, to);
  for (std::int64_t i = 0; i < extents.numel(); ++i) {
    const std::int64_t a = i / 8, c = i / 2 % 4, d = i % 2;
    EXPECT_EQ(address(loop, 0, i), 2 * a + 6 * c + d);
    EXPECT_EQ(address(loop, 1, i), i);
  }
  EXPECT_EQ(copy_loop({1, 1}, from, to).rank, 0);
}

}  // namespace
}  // namespace costate
