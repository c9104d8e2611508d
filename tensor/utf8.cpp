#include <costate/tensor/utf8.h>
#include <algorithm>

namespace costate::utf8 {
namespace {

// The length of the UTF-8 sequence at the front of `s` (RFC 3629: shortest forms only, no surrogates, at most
// U+10FFFF), or 0 when there is none.
std::size_t sequence(std::string_view s) {
  const auto byte = [&](std::size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
  const auto tail = [&](std::size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  const unsigned a = byte(0), b = byte(1);
  if (a < 0x80) return 1;
  if (a < 0xC2) return 0;
  if (a < 0xE0) return tail(1) ? 2 : 0;
  if (a < 0xF0) return tail(1) && tail(2) && !(a == 0xE0 && b < 0xA0) && !(a == 0xED && b >= 0xA0) ? 3 : 0;
  if (a < 0xF5)
    return tail(1) && tail(2) && tail(3) && !(a == 0xF0 && b < 0x90) && !(a == 0xF4 && b >= 0x90) ? 4 : 0;
  return 0;
}

// Where the run of printable ASCII that begins at `i` ends: most texts are one.
std::size_t end_of_plain(std::string_view s, std::size_t i) {
  while (i < s.size() && s[i] >= ' ' && s[i] <= '~') ++i;
  return i;
}

}  // namespace

std::size_t find_invalid(std::string_view s) {
  for (std::size_t i = end_of_plain(s, 0); i < s.size(); i = end_of_plain(s, i)) {
    const std::size_t n = sequence(s.substr(i));
    if (n == 0) return i;
    i += n;
  }
  return std::string_view::npos;
}

void append(std::string& s, std::uint32_t c) {
  const auto put = [&](std::uint32_t byte) { s.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  }
}

std::string printable(std::string_view text) {
  static constexpr char digit[] = "0123456789abcdef";
  std::string s;
  s.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t end = end_of_plain(text, i);
    s.append(text, i, end - i);
    if ((i = end) == text.size()) break;
    const auto c = static_cast<unsigned char>(text[i]);
    const std::size_t n = sequence(text.substr(i));
    if (n == 0 || c < 0x20 || c == 0x7F) {
      s += {'\\', 'x', digit[c >> 4], digit[c & 15]};
      ++i;
    } else {
      s += text.substr(i, n);
      i += n;
    }
  }
  return s;
}

std::string quoted(std::string_view name) {
  std::string s = "'";
  for (std::size_t i = 0; i < name.size();) {
    if (s.size() > 120) {
      s += "...";
      break;
    }
    const std::size_t n = std::max<std::size_t>(1, sequence(name.substr(i)));
    s += printable(name.substr(i, n));
    i += n;
  }
  return s + "'";
}

}  // namespace costate::utf8
