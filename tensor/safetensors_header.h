// The header of a safetensors file: which tensors it holds, of which types and shapes, at which bytes.
//
//   8 bytes    N, the length of the header, little-endian
//   N bytes    {"__metadata__": {"key": "value", ...}, "name": {"dtype": "F32", "shape": [2, 3],
//   "data_offsets": [0, 24]}, ...}
//              in JSON of UTF-8, padded with spaces
//   the rest   the tensors' bytes, row-major and little-endian; offsets count from here
//
// The format: github.com/huggingface/safetensors, README and safetensors/src/tensor.rs. The reader is strict:
// the header is read by a parser of exactly this grammar (no JSON library: those take the last of two equal
// keys, turn -1 into 2^64 - 1 and 1e3 into 1000), every byte of the file belongs to exactly one tensor, and
// every size is checked against the file before memory is taken.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace costate {

// Element types of the format in its own order: by size, which is the order (backwards) that writers lay
// tensors out in.
enum class SafetensorsType : std::uint8_t {
  BOOL,
  F4,
  F6_E2M3,
  F6_E3M2,
  U8,
  I8,
  F8_E5M2,
  F8_E4M3,
  F8_E8M0,
  F8_E4M3FNUZ,
  F8_E5M2FNUZ,
  I16,
  U16,
  F16,
  BF16,
  I32,
  U32,
  F32,
  C64,
  F64,
  I64,
  U64,
};
constexpr int safetensors_type_count = 22;
std::string_view name(SafetensorsType type);  // "F32"
int bits(SafetensorsType type);               // of one element

struct SafetensorsEntry {
  std::string name;
  SafetensorsType type = SafetensorsType::F32;
  std::vector<std::uint64_t> shape;
  std::uint64_t begin = 0, end = 0;  // bytes, from the end of the header
  std::uint64_t bytes() const { return end - begin; }
};

using SafetensorsMetadata = std::map<std::string, std::string>;

struct SafetensorsHeader {
  std::vector<SafetensorsEntry>
      entries;  // in the order of their bytes; those without bytes by name among equals
  SafetensorsMetadata metadata;
};

// Limits of what is read and written.
constexpr std::uint64_t safetensors_max_header = 100'000'000;  // bytes; that of the reference
constexpr std::size_t safetensors_max_tensors = 1'000'000;
constexpr std::size_t safetensors_max_name = 1024;  // bytes
constexpr std::size_t safetensors_max_rank = 16;

// The length N of the header from the first 8 bytes of a file of `file_bytes`. All functions here throw
// Fault::data with a sentence that begins with `where`, such as "safetensors file 'x'".
std::uint64_t safetensors_header_length(std::span<const std::byte> first_bytes, std::uint64_t file_bytes,
                                        const std::string& where);

// The header from its N bytes, checked against the `data_bytes` that follow it: names are unique, tensors
// have the bytes that their shapes and types need, and lie end to end from the first byte to the last.
// lenient_trailing: bytes behind the last tensor are allowed (such files exist).
SafetensorsHeader parse_safetensors_header(std::string_view json, std::uint64_t data_bytes,
                                           bool lenient_trailing, const std::string& where);

// The inverse: length, JSON without spaces (metadata first, unless empty), padding with spaces to a multiple
// of 8 bytes. Throws Fault::argument when a name is too long, not UTF-8, holds a zero byte, occurs twice or
// is "__metadata__", or when a limit above is exceeded. Offsets are written as given.
std::string format_safetensors_header(std::span<const SafetensorsEntry> entries,
                                      const SafetensorsMetadata& metadata);

}  // namespace costate
