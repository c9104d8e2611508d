#include "pretrained/state.h"

#include <costate/tensor/error.h>
#include <costate/tensor/file.h>
#include <costate/tensor/utf8.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>

namespace costate::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view index_ending = ".safetensors.index.json";

[[noreturn]] void refuse_pickle(const std::string& path) {
  fail(Fault::data,
       {"'", path,
        "' holds pickled weights, which can run any program and are not read here; convert them once in "
        "Python: from safetensors.torch import save_file; import torch; save_file({k: v.contiguous() for k, "
        "v in "
        "torch.load('",
        path, "', map_location='cpu', weights_only=True).items()}, '",
        fs::path(path).replace_extension(".safetensors").string(), "', {'format': 'pt'})"});
}
bool is_pickle(const fs::path& p) {
  const std::string e = p.extension().string();
  return e == ".bin" || e == ".pt" || e == ".pth" || e == ".ckpt" || e == ".pkl";
}

SafetensorsSet open_index(const std::string& path, std::vector<std::string>& notes,
                          const SafetensorsOptions& options) {
  const std::string where = "index '" + path + "'";
  const ShardIndex index = shard_index(read_json_object(path), where);
  SafetensorsSet set(fs::path(path).parent_path().string(), index.map, where, options);
  if (index.total_size && *index.total_size != set.bytes())
    notes.push_back(sentence({where, " says ", *index.total_size, " bytes, but its tensors have ", set.bytes()}));
  return set;
}

double from_f16(std::uint16_t h) {
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  const double sign = h & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  return exponent == 0 ? sign * std::ldexp(fraction, -24) : sign * std::ldexp(1024 + fraction, exponent - 25);
}

std::uint16_t to_f16(double v) {
  const auto sign = static_cast<std::uint16_t>(std::signbit(v) ? 0x8000 : 0);
  if (std::isnan(v)) return static_cast<std::uint16_t>(sign | 0x7E00);
  const double a = std::abs(v);
  if (a >= 65520)
    return static_cast<std::uint16_t>(sign | 0x7C00);  // halfway from the largest number to the next power
  int exponent = 0;
  std::frexp(a, &exponent);                                    // a = f 2^exponent, f in [1/2, 1)
  const int scale = std::max(exponent - 1, -14) - 10;          // of the last place
  const double units = std::nearbyint(std::ldexp(a, -scale));  // 1024..2048, or below for subnormal numbers
  const auto whole = static_cast<std::uint32_t>(units);
  if (whole < 1024) return static_cast<std::uint16_t>(sign | whole);
  return static_cast<std::uint16_t>(sign + ((static_cast<std::uint32_t>(scale + 25) - 1) << 10) + whole);
}

std::uint16_t to_bf16(float f) {
  const auto bits = std::bit_cast<std::uint32_t>(f);
  if (std::isnan(f)) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
// The nearest bf16 to a double, without rounding twice: a float that was rounded to odd keeps the tie apart.
std::uint16_t to_bf16(double v) {
  auto f = static_cast<float>(v);
  if (std::isfinite(f) && static_cast<double>(f) != v) {
    auto bits = std::bit_cast<std::uint32_t>(f);
    if (std::abs(static_cast<double>(f)) > std::abs(v)) --bits;  // towards zero
    f = std::bit_cast<float>(bits | 1);
  }
  return to_bf16(f);
}

template <class T>
T load(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
void store(std::byte* p, T v) {
  std::memcpy(p, &v, sizeof v);
}

double element(SafetensorsType type, const std::byte* p, const std::string& what) {
  switch (type) {
    case SafetensorsType::BOOL:
    case SafetensorsType::U8:
      return load<std::uint8_t>(p);
    case SafetensorsType::I8:
      return load<std::int8_t>(p);
    case SafetensorsType::I16:
      return load<std::int16_t>(p);
    case SafetensorsType::U16:
      return load<std::uint16_t>(p);
    case SafetensorsType::I32:
      return load<std::int32_t>(p);
    case SafetensorsType::U32:
      return load<std::uint32_t>(p);
    case SafetensorsType::I64:
      return static_cast<double>(load<std::int64_t>(p));
    case SafetensorsType::U64:
      return static_cast<double>(load<std::uint64_t>(p));
    case SafetensorsType::F16:
      return from_f16(load<std::uint16_t>(p));
    case SafetensorsType::BF16:
      return std::bit_cast<float>(static_cast<std::uint32_t>(load<std::uint16_t>(p)) << 16);
    case SafetensorsType::F32:
      return load<float>(p);
    case SafetensorsType::F64:
      return load<double>(p);
    default:
      fail(Fault::data, {what, " is ", name(type), ", whose values are not read here"});
  }
}

}  // namespace

Json parse_json_object(std::string_view text, const std::string& where) {
  Json json;
  try {
    json = parse_json(text, where);
  } catch (const Error& e) {
    fail(Fault::data, {e.what()});
  }
  if (!json.is_object()) fail(Fault::data, {where, " holds ", description(json), ", expected an object"});
  return json;
}
Json read_json_object(const std::string& path) {
  const std::vector<std::byte> bytes = read_file(path, std::uint64_t{64} << 20);
  return parse_json_object(as_text(bytes), "'" + path + "'");
}

ShardIndex shard_index(const Json& index, const std::string& where) {
  ShardIndex out;
  for (const auto& [key, value] : index.items())
    if (key != "weight_map" && key != "metadata")
      fail(Fault::data,
           {where, ": the key ", utf8::quoted(key), " is not known; expected weight_map and metadata"});
  if (!index.contains("weight_map") || !index["weight_map"].is_object())
    fail(Fault::data, {where, ": weight_map is ",
                       index.contains("weight_map") ? description(index["weight_map"]) : "absent",
                       ", expected an object of tensor names and file names"});
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    if (!file.is_string())
      fail(Fault::data, {where, ": weight_map has ", description(file), " for tensor ", utf8::quoted(tensor),
                         ", expected a file name"});
    check_shard_name(out.map[tensor] = file.get<std::string>(), where);
    if (out.map.size() > safetensors_max_tensors)
      fail(Fault::data, {where, ": it lists more than ", safetensors_max_tensors, " tensors"});
  }
  if (!index.contains("metadata")) return out;
  const Json& m = index["metadata"];
  if (!m.is_object()) fail(Fault::data, {where, ": metadata is ", description(m), ", expected an object"});
  if (!m.contains("total_size")) return out;
  const Json& n = m["total_size"];
  if (!n.is_number_unsigned() && !(n.is_number_integer() && n.get<std::int64_t>() >= 0))
    fail(Fault::data, {where, ": metadata.total_size is ", description(n), ", expected a number of bytes"});
  out.total_size = n.get<std::uint64_t>();
  return out;
}

SafetensorsSet open_weights(const std::string& path, std::vector<std::string>& notes, bool lenient) {
  const SafetensorsOptions options{.lenient_trailing = lenient, .widen_half = true};
  std::error_code ignored;
  if (!fs::exists(path, ignored)) fail(Fault::io, {"'", path, "' does not exist"});
  if (!fs::is_directory(path)) {
    if (is_pickle(path)) refuse_pickle(path);
    if (path.ends_with(index_ending)) return open_index(path, notes, options);
    if (path.ends_with(".json"))
      fail(Fault::data, {"'", path, "' is no index of shards; the name of one ends in ", index_ending});
    return SafetensorsSet(SafetensorsFile(path, options));
  }
  std::vector<fs::path> files, indices, pickles;
  for (const auto& entry : fs::directory_iterator(path)) {
    const fs::path& p = entry.path();
    if (p.string().ends_with(index_ending))
      indices.push_back(p);
    else if (p.extension() == ".safetensors")
      files.push_back(p);
    else if (is_pickle(p))
      pickles.push_back(p);
  }
  for (const char* stem : {"diffusion_pytorch_model", "model"}) {
    const fs::path file = fs::path(path) / (std::string(stem) + ".safetensors"),
                   index = fs::path(path) / (stem + std::string(index_ending));
    if (fs::exists(file)) return SafetensorsSet(SafetensorsFile(file.string(), options));
    if (fs::exists(index)) return open_index(index.string(), notes, options);
  }
  if (indices.size() == 1) return open_index(indices[0].string(), notes, options);
  if (indices.empty() && files.size() == 1)
    return SafetensorsSet(SafetensorsFile(files[0].string(), options));
  if (files.empty() && indices.empty() && !pickles.empty()) {
    std::sort(pickles.begin(), pickles.end());
    refuse_pickle(pickles[0].string());
  }
  fail(Fault::data, {"'", path, "' holds ", files.size(), " safetensors files and ", indices.size(),
                     " indices; expected diffusion_pytorch_model.safetensors, its index, or a single file"});
}

std::string in_words(SafetensorsType type, const std::vector<std::uint64_t>& shape) {
  std::string s = std::string(name(type)) + " (";
  for (std::size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + (shape.size() == 1 ? ",)" : ")");
}

bool is_floating(SafetensorsType t) {
  return t == SafetensorsType::F32 || t == SafetensorsType::F64 || t == SafetensorsType::F16 ||
         t == SafetensorsType::BF16;
}

RawTensor to_type(RawTensor t, SafetensorsType type) {
  if (t.type == type) return t;
  require(is_floating(t.type) && is_floating(type), "to_type: from ", name(t.type), " to ", name(type),
          " is not offered; expected F32, F64, F16 or BF16");
  const auto from = static_cast<std::size_t>(bits(t.type) / 8), to = static_cast<std::size_t>(bits(type) / 8);
  const std::size_t n = t.bytes.size() / from;
  RawTensor out{type, t.shape, std::vector<std::byte>(n * to)};
  for (std::size_t i = 0; i < n; ++i) {
    const std::byte* p = t.bytes.data() + i * from;
    std::byte* q = out.bytes.data() + i * to;
    const double v = element(t.type, p, "a tensor");
    switch (type) {
      case SafetensorsType::F64:
        store(q, v);
        break;
      case SafetensorsType::F32:
        store(q, static_cast<float>(v));
        break;
      case SafetensorsType::F16:
        store(q, to_f16(v));
        break;
      default:
        store(q, to_bf16(v));
    }
  }
  return out;
}

std::vector<double> to_doubles(const RawTensor& t) {
  const auto size = static_cast<std::size_t>(bits(t.type) / 8);
  std::vector<double> out(size ? t.bytes.size() / size : 0);
  if (!size) element(t.type, nullptr, "a tensor");
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = element(t.type, t.bytes.data() + i * size, "a tensor");
  return out;
}

void write_state(const std::string& folder, const std::string& stem, const State& state,
                 const SafetensorsMetadata& metadata, std::uint64_t max_shard, bool overwrite) {
  std::vector<std::uint64_t> sizes;
  for (const auto& [name, t] : state) sizes.push_back(t.bytes.size());
  const std::vector<std::size_t> shard_of =
      max_shard ? split_shards(sizes, max_shard) : std::vector<std::size_t>(sizes.size(), 0);
  const std::size_t shards = shard_of.empty() ? 1 : shard_of.back() + 1;
  const auto in_folder = [&](const std::string& name) { return folder.empty() ? name : folder + "/" + name; };
  std::vector<std::string> names;
  for (std::size_t s = 0; s < shards; ++s) names.push_back(shard_name(stem, s, shards));
  const std::string index_name = stem + std::string(index_ending);
  for (const std::string& n : names)
    require(overwrite || !fs::exists(in_folder(n)), "'", in_folder(n),
            "' exists already; give --overwrite to replace it");
  // A file and an index of the same stem would contradict each other.
  for (const std::string& n : {index_name, stem + ".safetensors"})
    if (fs::exists(in_folder(n)) && (shards > 1 || n == index_name)) {
      require(overwrite, "'", in_folder(n), "' exists already; give --overwrite to replace it");
      fs::remove(in_folder(n));
    }
  if (!folder.empty()) {
    std::error_code reason;
    fs::create_directories(folder, reason);
    if (reason) fail(Fault::io, {"'", folder, "': ", reason.message()});
  }
  Json map = Json::object();
  for (std::size_t s = 0; s < shards; ++s) {
    std::vector<std::pair<const std::string*, const RawTensor*>> order;
    std::size_t i = 0;
    for (const auto& [name, t] : state)
      if (shard_of[i++] == s) order.emplace_back(&name, &t), map[name] = names[s];
    std::stable_sort(order.begin(), order.end(),
                     [](const auto& a, const auto& b) { return a.second->type > b.second->type; });
    std::vector<SafetensorsEntry> entries;
    std::uint64_t at = 0;
    for (const auto& [name, t] : order) {
      entries.push_back({*name, t->type, t->shape, at, at + t->bytes.size()});
      at += t->bytes.size();
    }
    const std::string header = format_safetensors_header(entries, metadata);
    std::vector<std::span<const std::byte>> parts{as_bytes(header)};
    for (const auto& [name, t] : order) parts.emplace_back(t->bytes);
    write_file_atomically(in_folder(names[s]), parts);
  }
  if (shards == 1) return;
  std::uint64_t total = 0;
  for (const std::uint64_t n : sizes) total += n;
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", map}};
  write_file_atomically(in_folder(index_name), std::string_view(index.dump(2) + "\n"));
}

}  // namespace costate::cli
