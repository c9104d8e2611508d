#include <costate/tensor/checksum.h>

#include <array>
#include <bit>
#include <cstring>

namespace costate {
namespace {

// tables[k][b]: the state after the byte b and k bytes of zero (Kounavis and Berry, "slicing by eight", 2005).
constexpr auto tables = [] {
  std::array<std::array<std::uint32_t, 256>, 8> t{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    t[0][i] = i;
    for (int bit = 0; bit < 8; ++bit) t[0][i] = t[0][i] >> 1 ^ (t[0][i] & 1 ? 0x82F63B78u : 0u);  // 0x1EDC6F41 reflected
  }
  for (std::size_t k = 1; k < t.size(); ++k)
    for (std::size_t i = 0; i < 256; ++i) t[k][i] = t[k - 1][i] >> 8 ^ t[0][t[k - 1][i] & 255];
  return t;
}();

static_assert(std::endian::native == std::endian::little, "eight bytes are taken as they lie in memory");

}  // namespace

void Crc32c::add(std::span<const std::byte> bytes) {
  std::uint32_t crc = state_;
  const std::byte* p = bytes.data();
  std::size_t n = bytes.size();
  for (; n >= 8; p += 8, n -= 8) {
    std::uint64_t word;
    std::memcpy(&word, p, 8);
    word ^= crc;
    crc = 0;
    for (std::size_t i = 0; i < 8; ++i) crc ^= tables[7 - i][word >> 8 * i & 255];
  }
  for (; n > 0; ++p, --n) crc = crc >> 8 ^ tables[0][(crc ^ std::to_integer<std::uint32_t>(*p)) & 255];
  state_ = crc;
}

std::uint32_t crc32c(std::span<const std::byte> bytes) {
  Crc32c sum;
  sum.add(bytes);
  return sum.value();
}

}  // namespace costate
