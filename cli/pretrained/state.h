// The weights of a checkpoint: a safetensors file, a sharded set with its index, or a folder with one of
// them.
#pragma once
#include <costate/tensor/safetensors_set.h>
#include <costate/tensor/tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "config/json.h"

namespace costate::cli {

// `where` begins the sentence of Fault::data when the text is malformed or no object.
Json parse_json_object(std::string_view text, const std::string& where);
// JSON from a file that is not ours: Fault::data with the path in the sentence when it is malformed, longer
// than 64 MiB or not an object.
Json read_json_object(const std::string& path);

// What an index of shards says.
struct ShardIndex {
  WeightMap map;
  std::optional<std::uint64_t> total_size;  // metadata.total_size: bytes of all tensors
};
// `index` is an object. Throws Fault::data, beginning with `where`, for keys but weight_map and metadata, for values of other
// types than these have, and for file names that check_shard_name refuses.
ShardIndex shard_index(const Json& index, const std::string& where);

// Opens what `path` is: "x.safetensors", "x.safetensors.index.json", or a folder that holds one of
// diffusion_pytorch_model.safetensors(.index.json), model.safetensors(.index.json) or a single .safetensors
// file. Throws Fault::data; pickled weights (.bin, .pt, .pth, .ckpt) are refused with words that say how to
// convert them. `notes` receives what is odd without being wrong.
SafetensorsSet open_weights(const std::string& path, std::vector<std::string>& notes,
                            bool lenient_trailing = false);

// One tensor as it is in a file.
struct RawTensor {
  SafetensorsType type = SafetensorsType::F32;
  std::vector<std::uint64_t> shape;
  std::vector<std::byte> bytes;
};
using State = std::map<std::string, RawTensor>;

// "F32 (2, 3)"
std::string in_words(SafetensorsType type, const std::vector<std::uint64_t>& shape);

// Converts between F32, F64, F16 and BF16: exactly where the target holds every value, else to the nearest,
// ties to even; the finite may become infinite in F16. Other types stay as they are and must be asked for as
// such.
RawTensor to_type(RawTensor tensor, SafetensorsType type);
bool is_floating(SafetensorsType type);
// The values as doubles: BOOL, U8, I8, I16, I32, I64, F16, BF16, F32 and F64. Throws Fault::data for the
// others.
std::vector<double> to_doubles(const RawTensor& tensor);

// Writes `folder/stem.safetensors`, or shards of at most `max_shard` bytes (0: no limit) with
// `folder/stem.safetensors.index.json`; tensors and metadata as they are, laid out as the reference writer
// does. Throws Fault::argument when a file that it would write is there already, unless `overwrite`.
void write_state(const std::string& folder, const std::string& stem, const State& state,
                 const SafetensorsMetadata& metadata, std::uint64_t max_shard, bool overwrite);

}  // namespace costate::cli
