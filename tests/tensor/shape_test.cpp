#include <costate/tensor/loop.h>
#include <gtest/gtest.h>

#include <limits>

namespace costate {
namespace {

constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max();

TEST(Shape, Extents) {
  const Shape s{2, 3, 4};
  EXPECT_EQ(s.numel(), 24);
  EXPECT_EQ(s[-1], 4);
  EXPECT_EQ(s.axis(-3, "op"), 0);
  EXPECT_EQ(to_string(s), "(2, 3, 4)");
  EXPECT_EQ(to_string(Shape{5}), "(5,)");
  EXPECT_EQ(to_string(Shape{}), "()");
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ(s.with(-1, 7), (Shape{2, 3, 7}));
  EXPECT_EQ(s.without(1), (Shape{2, 4}));
  EXPECT_EQ(s.with_front(9), (Shape{9, 2, 3, 4}));
  EXPECT_EQ((Shape{3, 0, 2}).numel(), 0);
  EXPECT_FALSE((Shape{2, 1}) == (Shape{2}));
}

TEST(Shape, RefusesWhatCannotBe) {
  EXPECT_THROW((Shape{1, 1, 1, 1, 1, 1, 1}), Error);
  EXPECT_THROW((Shape{2, -1}), Error);
  EXPECT_THROW((Shape{huge, 2}), Error);
  EXPECT_THROW((Shape{0, huge, 2}), Error);  // its strides would overflow
  EXPECT_THROW((Shape{2}).axis(1, "op"), Error);
  EXPECT_THROW((Shape{2}).axis(-2, "op"), Error);
  EXPECT_THROW((Shape{}).axis(0, "op"), Error);
  EXPECT_THROW((Shape{2}).with(1, 3), Error);
  EXPECT_THROW((Shape{2}).without(-2), Error);
  EXPECT_THROW((Shape{1, 1, 1, 1, 1, 1}).with_front(1), Error);
}

TEST(Shape, Broadcast) {
  EXPECT_EQ(broadcast({3, 1}, {4}, "op"), (Shape{3, 4}));
  EXPECT_EQ(broadcast({}, {2, 2}, "op"), (Shape{2, 2}));
  EXPECT_EQ(broadcast({1}, {0}, "op"), (Shape{0}));
  try {
    broadcast({3, 2}, {4}, "mul");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("mul: shapes (3, 2) and (4,)"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace costate
