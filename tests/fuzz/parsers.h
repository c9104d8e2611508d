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

using Input = std::span<const std::byte>;

Outcome safetensors(Input input);
Outcome manifest(Input input);  // of a folder of files, tensor/folder.h
Outcome shard_index(Input input);
Outcome json(Input input);
Outcome config(Input input);
Outcome set(Input input);  // one --set a line
Outcome npy(Input input);
Outcome idx(Input input);
Outcome csv(Input input);
Outcome png(Input input);
Outcome gzip(Input input);
Outcome npz(Input input);

struct Parser {
  std::string_view name;  // of its corpus and its fuzzer
  Outcome (*feed)(Input input);
};
// All of them.
std::span<const Parser> parsers();

}  // namespace costate::fuzz
