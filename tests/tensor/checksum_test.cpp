#include <costate/tensor/checksum.h>
#include <costate/tensor/file.h>
#include <gtest/gtest.h>

#include <string>

namespace costate {
namespace {

std::uint32_t sum_of(const std::string& text) { return crc32c(as_bytes(text)); }

TEST(Checksum, IsCrc32c) {
  EXPECT_EQ(sum_of("123456789"), 0xE3069283u);
  EXPECT_EQ(sum_of(""), 0u);
  EXPECT_EQ(sum_of(std::string(32, '\0')), 0x8A9136AAu);  // RFC 3720, appendix B.4
  EXPECT_EQ(sum_of(std::string(32, '\xff')), 0x62A8AB43u);
}

// Eight bytes at a time or one by one: the same for every cut.
TEST(Checksum, DoesNotDependOnPieces) {
  std::string text;
  for (int i = 0; i < 61; ++i) text.push_back(static_cast<char>(i * 37 + 11));
  const auto bytes = as_bytes(text);
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    Crc32c sum;
    sum.add(bytes.first(cut));
    for (const std::byte& b : bytes.subspan(cut)) sum.add({&b, 1});
    EXPECT_EQ(sum.value(), crc32c(bytes)) << cut;
  }
}

}  // namespace
}  // namespace costate
