// CRC-32C (Castagnoli; RFC 3720, appendix B.4), the checksum of the files that must be found damaged if they are: all
// errors of up to 32 neighbouring bits are seen, others but for one in 2^32. 0xE3069283 of "123456789".
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace costate {

class Crc32c {
 public:
  void add(std::span<const std::byte> bytes);
  std::uint32_t value() const { return ~state_; }

 private:
  std::uint32_t state_ = ~0u;
};
std::uint32_t crc32c(std::span<const std::byte> bytes);

}  // namespace costate
