#include <costate/tensor/error.h>
#include <costate/tensor/safetensors_set.h>
#include <costate/tensor/utf8.h>

#include <algorithm>
#include <cstdio>

namespace costate {

using utf8::quoted;

void check_shard_name(std::string_view name, const std::string& where) {
  const bool plain = !name.empty() &&
                     name.find_first_of(std::string_view("/\\\0:", 4)) == std::string_view::npos &&
                     name != "." && name != ".." && name.size() <= 255;
  if (!plain || !name.ends_with(".safetensors") || name.size() == std::string_view(".safetensors").size())
    fail(Fault::data,
         {where, ": ", quoted(std::string(name)),
          " is not the plain name of a .safetensors file; a set may not reach outside its folder"});
}

SafetensorsSet::SafetensorsSet(SafetensorsFile file) : where_(file.where()) {
  files_.push_back(std::move(file));
  index();
}

SafetensorsSet::SafetensorsSet(const std::string& folder, const WeightMap& map, const std::string& where,
                               const SafetensorsOptions& options)
    : where_(where) {
  if (map.empty()) fail(Fault::data, {where, ": it lists no tensors"});
  for (const auto& [tensor, file] : map)
    check_shard_name(file, where);  // all names before any file is opened
  for (const auto& [tensor, file] : map) names_.push_back(file);
  std::sort(names_.begin(), names_.end());
  names_.erase(std::unique(names_.begin(), names_.end()), names_.end());
  for (const std::string& name : names_) {
    try {
      files_.emplace_back(folder.empty() ? name : folder + "/" + name, options);
    } catch (const Error& e) {
      fail(e.fault(), {where, ": shard ", quoted(name), ": ", e.what()});
    }
  }
  index();
  for (const Entry& e : entries_) {
    const auto listed = map.find(e.name());
    if (listed == map.end())
      fail(Fault::data, {where, ": shard ", quoted(names_[e.file]), " holds tensor ", quoted(e.name()),
                         ", which the index does not list"});
    if (listed->second != names_[e.file])
      fail(Fault::data, {where, ": tensor ", quoted(e.name()), " is in shard ", quoted(names_[e.file]),
                         ", but the index has it in ", quoted(listed->second)});
  }
  if (entries_.size() != map.size())
    for (const auto& [tensor, file] : map)
      if (!find(tensor))
        fail(Fault::data, {where, ": tensor ", quoted(tensor), " is not in shard ", quoted(file)});
}

void SafetensorsSet::index() {
  for (std::size_t f = 0; f < files_.size(); ++f)
    for (const SafetensorsEntry& e : files_[f].entries()) entries_.push_back({&e, f});
  std::stable_sort(entries_.begin(), entries_.end(),
                   [](const Entry& a, const Entry& b) { return a.name() < b.name(); });
  for (std::size_t i = 1; i < entries_.size(); ++i)
    if (entries_[i].name() == entries_[i - 1].name())
      fail(Fault::data, {where_, ": tensor ", quoted(entries_[i].name()), " is in two shards, ",
                         quoted(names_[entries_[i - 1].file]), " and ", quoted(names_[entries_[i].file])});
}

const SafetensorsSet::Entry* SafetensorsSet::find(std::string_view name) const {
  const auto it = std::lower_bound(entries_.begin(), entries_.end(), name,
                                   [](const Entry& e, std::string_view n) { return e.name() < n; });
  return it != entries_.end() && it->name() == name ? &*it : nullptr;
}

std::uint64_t SafetensorsSet::bytes() const {
  std::uint64_t sum = 0;
  for (const Entry& e : entries_) sum += e.entry->bytes();
  return sum;
}

std::vector<std::size_t> split_shards(std::span<const std::uint64_t> tensor_bytes, std::uint64_t max_bytes) {
  require(max_bytes > 0, "split_shards: the largest size of a shard is 0 bytes; expected at least 1");
  std::vector<std::size_t> shard;
  std::uint64_t filled = 0;
  for (const std::uint64_t n : tensor_bytes) {
    const bool first = shard.empty();
    const bool next = !first && filled > 0 && (n > max_bytes || filled > max_bytes - n);
    shard.push_back(first ? 0 : shard.back() + (next ? 1 : 0));
    filled = (next || first ? 0 : filled) + n;
  }
  return shard;
}

std::string shard_name(std::string_view stem, std::size_t shard, std::size_t shards) {
  if (shards <= 1) return std::string(stem) + ".safetensors";
  char numbers[64];
  std::snprintf(numbers, sizeof numbers, "-%05zu-of-%05zu.safetensors", shard + 1, shards);
  return std::string(stem) + numbers;
}

}  // namespace costate
