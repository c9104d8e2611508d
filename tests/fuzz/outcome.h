// What parsers share: what is accepted, and what a refusal must be like.
#pragma once
#include <costate/tensor/error.h>
#include <costate/tensor/utf8.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "fuzz/parsers.h"

namespace costate::fuzz {

inline void must(bool holds, const char* what) {
  if (!holds) throw Finding(what);
}

inline void check_sentence(const Error& e) {
  const std::string_view s = e.what();
  must(e.fault() == Fault::data || e.fault() == Fault::argument, "the fault is neither data nor argument");
  must(!s.empty() && s.size() <= longest_sentence, "the sentence is empty or too long");
  must(utf8::find_invalid(s) == std::string_view::npos, "the sentence is not UTF-8");
  must(std::none_of(s.begin(), s.end(), [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127; }),
       "the sentence has a control character");
}

// What `read` returns, or nothing when it refuses.
template <class Read>
auto accepted(const Read& read) -> std::optional<decltype(read())> {
  try {
    return read();
  } catch (const Error& e) {
    check_sentence(e);
    return std::nullopt;
  }
}
// Of inputs that were accepted before: a refusal is a finding.
template <class Read>
auto read_again(const Read& read, const char* what) {
  auto result = accepted(read);
  must(result.has_value(), what);
  return *std::move(result);
}
inline Outcome outcome(bool is_accepted) { return is_accepted ? Outcome::accepted : Outcome::refused; }

}  // namespace costate::fuzz
