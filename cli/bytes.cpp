#include "bytes.h"

#include <costate/tensor/error.h>

#include <utility>

#include "run/metrics.h"

namespace costate::cli {

std::uint64_t bytes_of(const std::string& text, std::string_view option) {
  std::size_t end = 0;
  while (end < text.size() && text[end] >= '0' && text[end] <= '9') ++end;
  constexpr std::pair<std::string_view, std::uint64_t> units[] = {
      {"", 1},          {"B", 1},         {"KB", 1000},    {"MB", 1000000}, {"GB", 1000000000},
      {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
  if (end > 0 && end <= 9)
    for (const auto& [unit, factor] : units)
      if (text.substr(end) == unit && std::stoull(text.substr(0, end)) > 0)
        return std::stoull(text.substr(0, end)) * factor;
  // A plain number of bytes may be longer than one before a unit.
  if (end > 9 && end <= 18 && end == text.size()) return std::stoull(text);
  fail(Fault::argument, {option, ": found '", text, "', expected a size such as 2GB, 500MiB or 4096"});
}

std::string bytes_text(std::int64_t bytes) {
  const double b = static_cast<double>(bytes);
  return b < 1024                   ? std::to_string(bytes) + " B"
         : b < 1024 * 1024          ? short_number(b / 1024) + " KiB"
         : b < 1024.0 * 1024 * 1024 ? short_number(b / 1024 / 1024) + " MiB"
                                    : short_number(b / 1024 / 1024 / 1024) + " GiB";
}

std::string flops_text(std::int64_t operations) {
  constexpr const char* prefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  auto n = static_cast<double>(operations);
  int i = 0;
  for (; n >= 999.95 && i < 6; ++i) n /= 1000;
  return short_number(n) + " " + prefixes[i] + "FLOP";
}

}  // namespace costate::cli
