#include <costate/tensor/error.h>

#include <algorithm>
#include <charconv>
#include <costate/tensor/storage.h>
#include <costate/tensor/utf8.h>
#include <vector>

namespace costate {

Piece::Piece(double v) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, v);
  text.assign(buffer, end.ptr);
}
Piece::Piece(const Shape& shape) : text(to_string(shape)) {}
Piece::Piece(const Device& device) : text(to_string(device)) {}
Piece::Piece(DType dtype) : text(name(dtype)) {}

std::string sentence(std::initializer_list<Piece> pieces) {
  std::string s;
  for (const Piece& p : pieces) s += p.text;
  return s;
}

// Sentences quote names, paths and words from anywhere, and are shown by terminals: one line of UTF-8 whatever was quoted.
void fail(Fault fault, std::initializer_list<Piece> pieces) { throw Error(fault, utf8::printable(sentence(pieces))); }

int edit_distance(std::string_view a, std::string_view b) {
  const std::size_t n = a.size(), m = b.size();
  std::vector<int> distances((n + 1) * (m + 1));  // between the first i and the first j characters
  const auto d = [&](std::size_t i, std::size_t j) -> int& { return distances[i * (m + 1) + j]; };
  for (std::size_t i = 0; i <= n; ++i) d(i, 0) = static_cast<int>(i);
  for (std::size_t j = 0; j <= m; ++j) d(0, j) = static_cast<int>(j);
  for (std::size_t i = 1; i <= n; ++i)
    for (std::size_t j = 1; j <= m; ++j) {
      d(i, j) = std::min({d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d(i, j) = std::min(d(i, j), d(i - 2, j - 2) + 1);
    }
  return d(n, m);
}

std::string nearest(std::string_view word, std::initializer_list<std::string_view> candidates) {
  return nearest_of(word, candidates);
}

}  // namespace costate
