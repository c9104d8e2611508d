#include <costate/tensor/error.h>
#include <costate/tensor/shape.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <limits>

namespace costate {
namespace {

TEST(Error, SentencesReadBackTheSameNumbers) {
  EXPECT_EQ(sentence({"x = ", 0.1, ", n = ", 3, ", ok = ", true, ", shape ", Shape{2, 3}, " of ", DType::f64}),
            "x = 0.1, n = 3, ok = true, shape (2, 3) of f64");
  for (const double v : {1.0 / 3, 1e300, -5e-324, 12345678.9}) EXPECT_EQ(std::strtod(Piece(v).text.c_str(), nullptr), v);
  EXPECT_EQ(Piece(std::numeric_limits<long long>::min()).text, "-9223372036854775808");
}

TEST(Error, RequireThrowsAnArgumentFault) {
  EXPECT_NO_THROW(require(true, "never"));
  try {
    require(false, "op: extent ", -1, " is negative");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), Fault::argument);
    EXPECT_STREQ(e.what(), "op: extent -1 is negative");
  }
}

TEST(Error, EditDistance) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("abc", ""), 3);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("stpes", "steps"), 1);  // a swap of neighbours is one edit
}

TEST(Error, NearestSuggestsOnlyWhatIsNear) {
  EXPECT_EQ(nearest("stpes", {"steps", "seed", "batch"}), "steps");
  EXPECT_EQ(nearest("steps", {"seed", "steps"}), "steps");
  EXPECT_EQ(nearest("learning", {"steps", "seed"}), "");
  EXPECT_EQ(nearest("ab", {"xy"}), "");
  EXPECT_EQ(nearest("", {"a"}), "");
}

}  // namespace
}  // namespace costate
