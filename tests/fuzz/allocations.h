// What operator new has given out and not got back, in this executable.
#pragma once
#include <cstddef>

namespace costate::fuzz {

std::size_t live_bytes();
std::size_t peak_bytes();  // the largest live_bytes since reset_peak_bytes
void reset_peak_bytes();

}  // namespace costate::fuzz
