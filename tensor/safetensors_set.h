// Tensors spread over several safetensors files, read as one: the sharded checkpoints of the field. Their
// index maps every tensor to the file that holds it; the program reads that JSON file, the library takes the
// map.
#pragma once
#include <costate/tensor/safetensors.h>

namespace costate {

using WeightMap = std::map<std::string, std::string>;  // tensor -> file

// Throws Fault::data unless `name` is the plain name of a file: not empty, no '/', '\', zero byte or drive
// letter, not "." or "..", and ending in ".safetensors". `where` begins the sentence.
void check_shard_name(std::string_view name, const std::string& where);

class SafetensorsSet {
 public:
  // A set of one.
  explicit SafetensorsSet(SafetensorsFile file);
  // The files of a map, in `folder`. Every header is read and checked; then every tensor of the map must be
  // in its file, every tensor of a file in the map, and none in two files. Throws Fault::data with sentences
  // that begin with `where` or name the file.
  SafetensorsSet(const std::string& folder, const WeightMap& map, const std::string& where,
                 const SafetensorsOptions& options = {});

  struct Entry {
    const SafetensorsEntry* entry;
    std::size_t file;
    const std::string& name() const { return entry->name; }
  };
  const std::vector<Entry>& entries() const { return entries_; }  // by name
  const Entry* find(std::string_view name) const;
  const std::vector<SafetensorsFile>& files() const { return files_; }
  const std::vector<std::string>& file_names() const {
    return names_;
  }  // as in the map; empty for a set of one
  const std::string& where() const { return where_; }
  std::uint64_t bytes() const;  // of all tensors

  // As those of SafetensorsFile: each tensor is read straight into its own memory, so that loading a set
  // takes no more than the tensors themselves.
  Tensor tensor(const Entry& e) const { return files_[e.file].tensor(*e.entry); }
  std::vector<std::byte> raw(const Entry& e) const { return files_[e.file].bytes(*e.entry); }

 private:
  void index();
  std::string where_;
  std::vector<SafetensorsFile> files_;
  std::vector<std::string> names_;
  std::vector<Entry> entries_;
};

// Which shard each tensor goes to when none may exceed `max_bytes`: in the order given, a new shard where the
// next tensor does not fit; a tensor that is larger than that has a shard of its own. Shards are numbered
// from 0. Throws Fault::argument for max_bytes 0.
std::vector<std::size_t> split_shards(std::span<const std::uint64_t> tensor_bytes, std::uint64_t max_bytes);
// "stem-00001-of-00003.safetensors"; "stem.safetensors" for a single one.
std::string shard_name(std::string_view stem, std::size_t shard, std::size_t shards);

}  // namespace costate
