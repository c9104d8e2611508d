// Sizes in bytes and counts of operations, as people write and read them.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace costate::cli {

// "2GB", "500MiB", "4096": bytes, at least 1. Throws Error(argument) that begins with the name of the option.
std::uint64_t bytes_of(const std::string& text, std::string_view option);
std::string bytes_text(std::int64_t bytes);        // "80.2 MiB"
std::string flops_text(std::int64_t operations);   // "1.23 TFLOP"

}  // namespace costate::cli
