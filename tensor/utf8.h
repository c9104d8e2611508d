// UTF-8 (RFC 3629) as far as readers of files need it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace costate::utf8 {

// The first byte that is not part of UTF-8 (shortest forms only, no surrogates, at most U+10FFFF), or npos.
std::size_t find_invalid(std::string_view s);

// Appends a code point up to U+10FFFF.
void append(std::string& s, std::uint32_t code);

// The text as one line: control characters, and bytes that are not part of UTF-8, in hexadecimal (\x1b).
std::string printable(std::string_view text);

// A name from a file for a sentence: between single quotes, control characters in hexadecimal, cut after
// about 120 bytes.
std::string quoted(std::string_view name);

}  // namespace costate::utf8
