#include "report/markup.h"

#include <cstdint>

namespace costate::cli::report {
namespace {

// The length of the character that begins at `i`, 0 when the bytes are none that XML allows.
std::size_t character(std::string_view s, std::size_t i) {
  const auto byte = [&](std::size_t k) { return static_cast<unsigned char>(s[k]); };
  const unsigned char lead = byte(i);
  if (lead < 0x80) return lead >= 0x20 || lead == '\t' || lead == '\n' || lead == '\r' ? 1 : 0;
  const std::size_t n = lead >= 0xC2 && lead < 0xE0 ? 2 : lead >= 0xE0 && lead < 0xF0 ? 3 : lead >= 0xF0 && lead < 0xF5 ? 4 : 0;
  if (n == 0 || i + n > s.size()) return 0;
  std::uint32_t code = lead & (0xFFu >> (n + 1));
  for (std::size_t k = 1; k < n; ++k) {
    if ((byte(i + k) & 0xC0) != 0x80) return 0;
    code = code << 6 | (byte(i + k) & 0x3Fu);
  }
  constexpr std::uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool allowed = code >= least[n] && code <= 0x10FFFF && !(code >= 0xD800 && code < 0xE000) && code != 0xFFFE && code != 0xFFFF;
  return allowed ? n : 0;
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t n = character(text, i);
    if (n == 0) {
      out += "\uFFFD";
      ++i;
      continue;
    }
    switch (text[i]) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += text.substr(i, n);
    }
    i += n;
  }
  return out;
}

double text_width(std::string_view text) {
  double width = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte & 0xC0) == 0x80) continue;  // within a character
    const std::string_view narrow = "fijlrt.,:;'|!()[] ", wide = "mwMW%@";
    width += byte >= 0x80 ? 0.6 : narrow.find(c) != narrow.npos ? 0.36 : wide.find(c) != wide.npos ? 0.9 : c >= 'A' && c <= 'Z' ? 0.7 : 0.6;
  }
  return width;
}

}  // namespace costate::cli::report
