// Memory that is refused, in this executable: operator new, and the blocks of tensors.
#pragma once
#include <cstddef>
#include <cstdint>

namespace costate::faults {

struct Allocations {
  std::int64_t count = 0;       // made since the process began
  std::int64_t live_bytes = 0;  // of operator new, given out and not got back
};
Allocations allocations();

// As long as it stands, allocation `n` from here on, from 0, is refused, and with `on` all that follow.
class RefusedMemory {
 public:
  explicit RefusedMemory(std::int64_t n, bool on = false);
  ~RefusedMemory();
  RefusedMemory(const RefusedMemory&) = delete;
  RefusedMemory& operator=(const RefusedMemory&) = delete;
};

}  // namespace costate::faults
