// Whole files in and out. Parsers take bytes and text; this is the only part of the data room that touches
// the disk.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace costate::data {

constexpr std::uint64_t default_max_file = std::uint64_t{4} << 30;

// All bytes of a file or pipe. Throws Fault::io, naming the path and the system's reason, when it cannot be
// opened or read or is a folder, and Fault::data when it is longer than max_bytes (found from its size,
// before memory is taken).
std::vector<std::byte> read_file(const std::string& path, std::uint64_t max_bytes = default_max_file);

// Afterwards the path holds these bytes or, after an exception, what it held before, whatever happens in
// between: the bytes go to a temporary sibling that is flushed to the disk and renamed, and the folder is
// flushed. The sibling never stays behind. Throws Fault::io naming the path and the system's reason; refuses
// a path that is not a regular file.
void write_file_atomically(const std::string& path, std::span<const std::byte> bytes);
void write_file_atomically(const std::string& path, std::string_view text);

std::span<const std::byte> as_bytes(std::string_view text);
std::string_view as_text(std::span<const std::byte> bytes);

}  // namespace costate::data
