// UTF-8 against its definition: what is valid is what code points are written as, and nothing else (RFC 3629).
#include <costate/tensor/utf8.h>
#include <gtest/gtest.h>

#include <set>

namespace costate::utf8 {
namespace {

std::string bytes(std::initializer_list<unsigned> values) {
  std::string s;
  for (const unsigned v : values) s.push_back(static_cast<char>(v));
  return s;
}

// The shortest form of each code point but the surrogates, by the bits of RFC 3629's table.
std::set<std::string> code_points() {
  std::set<std::string> all;
  for (std::uint32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string s = c < 0x80      ? bytes({c})
                          : c < 0x800   ? bytes({0xC0 | c >> 6, 0x80 | (c & 63)})
                          : c < 0x10000 ? bytes({0xE0 | c >> 12, 0x80 | (c >> 6 & 63), 0x80 | (c & 63)})
                                        : bytes({0xF0 | c >> 18, 0x80 | (c >> 12 & 63), 0x80 | (c >> 6 & 63), 0x80 | (c & 63)});
    std::string appended;
    append(appended, c);
    EXPECT_EQ(appended, s) << c;
    all.insert(s);
  }
  return all;
}

TEST(Utf8, ValidIsWhatCodePointsAreWrittenAs) {
  const std::set<std::string> valid = code_points();
  for (const std::string& s : valid) ASSERT_EQ(find_invalid(s), std::string::npos) << s;
  // Every first byte with second ones at the edges of all ranges and between them, and third and fourth ones likewise.
  const unsigned seconds[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF}, edges[] = {0x7F, 0x80, 0xBF, 0xC0};
  for (unsigned a = 0x80; a < 0x100; ++a) {
    EXPECT_EQ(find_invalid(bytes({a})), 0u) << a;
    for (const unsigned b : seconds) {
      const std::string two = bytes({a, b});
      EXPECT_EQ(find_invalid(two) == std::string::npos, valid.contains(two)) << a << " " << b;
      for (const unsigned c : edges) {
        const std::string three = bytes({a, b, c});
        if (!valid.contains(two)) {
          EXPECT_EQ(find_invalid(three) == std::string::npos, valid.contains(three)) << a << " " << b << " " << c;
        }
        for (const unsigned d : edges) {
          const std::string four = bytes({a, b, c, d});
          if (!valid.contains(two) && !valid.contains(three)) {
            EXPECT_EQ(find_invalid(four) == std::string::npos, valid.contains(four)) << a << " " << b << " " << c << " " << d;
          }
        }
      }
    }
  }
  EXPECT_EQ(find_invalid("plain \xC3\xA9 and \xC3"), 13u);
}

}  // namespace
}  // namespace costate::utf8
