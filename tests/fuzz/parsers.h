// The parsers of files and texts from elsewhere, as functions of bytes alone: what the fuzzers call and what the suite replays.
//
// Each reads the input as that format and, where it is accepted, checks what must hold of every accepted input: it can be
// written again and read back the same, or two readers agree on it. An input is refused by costate::Error of Fault::data or
// Fault::argument with one line of UTF-8 without control characters, of at most longest_sentence bytes. Anything else is a
// finding, and throws Finding.
#pragma once
#include <cstddef>
#include <span>
#include <stdexcept>
#include <string_view>

namespace costate::fuzz {

enum class Outcome : unsigned char { accepted, refused };

struct Finding : std::logic_error {
  using std::logic_error::logic_error;
};

inline constexpr std::size_t longest_sentence = 8192;

struct Parser {
  std::string_view name;  // of its corpus and its fuzzer
  Outcome (*feed)(std::span<const std::byte> input);
};

// safetensors, shard_index, json, config, set, npy, idx, csv, png, gzip.
std::span<const Parser> parsers();

}  // namespace costate::fuzz
