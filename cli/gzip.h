// Gzip files (RFC 1952).
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace costate::cli {

// Whether the bytes begin like a gzip file.
bool is_gzip(std::span<const std::byte> bytes);

// The contents of a gzip file of one or several members. Throws Fault::data, naming `what`, when it is
// damaged, truncated, followed by anything else, or longer than max_bytes when unpacked (found while
// unpacking: memory grows with what has been unpacked, not with what the file announces).
std::vector<std::byte> gunzip(std::span<const std::byte> bytes, std::uint64_t max_bytes,
                              std::string_view what);

}  // namespace costate::cli
