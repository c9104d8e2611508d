// Errors. Costate never aborts, prints or exits: it throws costate::Error with one full sentence that names the
// operation or key, what was found and what was expected.
#pragma once
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>

namespace costate {

// What went wrong, as a caller or a shell script would tell cases apart (the command line maps them to exit codes).
enum class Fault {
  runtime,    // a failure that is none of the others
  argument,   // a call or a configuration is wrong
  data,       // a file or a data set is malformed
  numerical,  // NaN, infinity or divergence
  memory,     // a memory limit was reached
  io,         // the operating system refused to read or write
};

class Error : public std::runtime_error {
 public:
  Error(Fault fault, const std::string& sentence) : std::runtime_error(sentence), fault_(fault) {}
  Fault fault() const noexcept { return fault_; }

 private:
  Fault fault_;
};

class Shape;
struct Device;
enum class DType : std::uint8_t;

// One piece of a sentence. Numbers are printed so that reading them back gives the same value.
struct Piece {
  std::string text;
  Piece(const char* s) : text(s) {}
  Piece(std::string_view s) : text(s) {}
  Piece(const std::string& s) : text(s) {}
  Piece(char c) : text(1, c) {}
  Piece(bool b) : text(b ? "true" : "false") {}
  Piece(int v) : text(std::to_string(v)) {}
  Piece(long v) : text(std::to_string(v)) {}
  Piece(long long v) : text(std::to_string(v)) {}
  Piece(unsigned v) : text(std::to_string(v)) {}
  Piece(unsigned long v) : text(std::to_string(v)) {}
  Piece(unsigned long long v) : text(std::to_string(v)) {}
  Piece(double v);
  Piece(float v) : Piece(static_cast<double>(v)) {}
  Piece(const Shape& shape);
  Piece(const Device& device);
  Piece(DType dtype);
};

std::string sentence(std::initializer_list<Piece> pieces);

[[noreturn]] void fail(Fault fault, std::initializer_list<Piece> pieces);

// require(n > 0, "reshape: ...", n, "...") throws Error(Fault::argument) unless the condition holds. The pieces are
// turned into text only then.
template <class... Pieces>
inline void require(bool condition, const Pieces&... pieces) {
  if (!condition) [[unlikely]]
    fail(Fault::argument, {Piece(pieces)...});
}

// The candidate closest to a mistyped word, or "" when none is near: for "did you mean" (Damerau-Levenshtein distance
// at most 2, and less than half the word).
std::string nearest(std::string_view word, std::initializer_list<std::string_view> candidates);
template <class Range>
std::string nearest_of(std::string_view word, const Range& candidates);

// The number of insertions, deletions, substitutions and swaps of neighbours that turn a into b.
int edit_distance(std::string_view a, std::string_view b);

template <class Range>
std::string nearest_of(std::string_view word, const Range& candidates) {
  std::string best;
  int best_distance = 3;
  for (const auto& candidate : candidates) {
    const std::string_view c(candidate);
    const auto longer = static_cast<std::ptrdiff_t>(c.size()) - static_cast<std::ptrdiff_t>(word.size());
    if (longer >= best_distance || -longer >= best_distance) continue;  // it takes so many insertions or deletions
    const int d = edit_distance(word, c);
    if (d < best_distance && 2 * d < static_cast<int>(word.size()) + 1) best = std::string(c), best_distance = d;
  }
  return best;
}

}  // namespace costate
