#include "run/directory.h"

#include <costate/finetune/data/file.h>
#include <costate/nn/lora.h>
#include <costate/tensor/error.h>
#include <costate/tensor/folder.h>

#include <filesystem>

#include "config/read.h"

namespace costate::cli {
namespace {

namespace fs = std::filesystem;
// What `create` may remove.
constexpr std::string_view own_entries[] = {"config.resolved.json", "run.json",   "metrics.jsonl",
                                            "metrics.csv",          "timing.csv", "evaluation.json", "curve.csv",
                                            "summary.md",           "samples",    "checkpoints",
                                            "study.json",           "study.csv",  "report.html",
                                            "data.json",
                                            "figures",             "tensorboard"};

[[noreturn]] void refused(const std::string& path, const std::error_code& reason) {
  fail(Fault::io, {"'", path, "': ", reason.message()});
}

void make_folder(const std::string& path) { make_folders(path); }

Json metadata_config(const SafetensorsMetadata& metadata, const std::string& path) {
  for (const auto& [key, value] : metadata)
    if (key == config_key) {
      try {
        return parse_json(value, "the configuration in checkpoint '" + path + "'");
      } catch (const Error& e) {
        fail(Fault::data, {e.what()});
      }
    }
  fail(Fault::data, {"'", path, "' has no metadata '", config_key, "': it is not a checkpoint of costate"});
}

Config config_in(const SafetensorsFile& file, const std::string& path) {
  const Json json = metadata_config(file.metadata(), path);
  try {
    return read_config_text(json.dump(), "the configuration in checkpoint '" + path + "'", {}).config;
  } catch (const Error& e) {
    fail(Fault::data, {e.what()});
  }
}

// The first key below `path` whose values differ, or "". Both have the same keys.
std::string first_difference(const Json& a, const Json& b, const std::string& path) {
  if (!a.is_object() || !b.is_object()) return a == b ? "" : path;
  for (const auto& [key, value] : a.items()) {
    const std::string inner = path.empty() ? key : path + "." + key;
    if (std::string found = first_difference(value, b.at(key), inner); !found.empty()) return found;
  }
  return "";
}

// The value of a key that is there.
std::string shown(const Json& root, const std::string& path) {
  const Json* at = &root;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t dot = std::min(path.find('.', begin), path.size());
    at = &at->at(path.substr(begin, dot - begin));
    begin = dot + 1;
  }
  return at->dump();
}

void check_same_keys(const Json& now, const Json& made_with, const std::vector<std::string>& sections,
                     const std::string& path) {
  for (const std::string& s : sections) {
    const std::string key = first_difference(now[s], made_with[s], s);
    if (!key.empty())
      fail(Fault::argument, {key, ": found ", shown(now, key), ", but '", path, "' was made with ", shown(made_with, key),
                             "; use the configuration of that run or another --out"});
  }
}

void check_same_run(const Config& recorded, const Config& config, const std::vector<std::string>& sections,
                    const std::string& path) {
  check_same_keys(checkpoint_config(config), checkpoint_config(recorded), sections, path);
}

SafetensorsMetadata made_with(const Config& config, std::string_view stage, std::int64_t step) {
  return {{std::string(config_key), checkpoint_config(config).dump()},
          {"costate.stage", std::string(stage)},
          {"costate.step", std::to_string(step)},
          {"costate.version", COSTATE_VERSION}};
}

template <class Model>
void save(const RunDirectory& directory, const std::string& name, const Model& model, const SafetensorsMetadata& metadata) {
  if (!directory.writes()) return;
  make_folder(directory.file("checkpoints"));
  nn::save(directory.file(name), model, metadata);
}

// The path of a checkpoint that is there and was made with the same configuration.
std::string checked_path(const RunDirectory& directory, const std::string& name, const Config& config,
                         const std::vector<std::string>& sections) {
  const std::string path = directory.file(name);
  if (!fs::exists(path))
    fail(Fault::io, {"'", path, "' does not exist; an earlier stage makes it (costate run makes all)"});
  const SafetensorsFile file(path);
  // Keys that the configuration did not have when the checkpoint was made stand for what they are without being set.
  check_same_run(config_in(file, path), config, sections, path);
  return path;
}

template <class Model>
void load(const RunDirectory& directory, const std::string& name, Model& model, const Config& config,
          const std::vector<std::string>& sections) {
  const std::string path = checked_path(directory, name, config, sections);
  const memory::TagScope scope(memory::Tag::parameters);
  nn::load(path, model);
}

}  // namespace

void RunDirectory::create(bool overwrite) const {
  if (!writes_) return;
  std::error_code reason;
  if (fs::exists(path_, reason) && !fs::is_directory(path_))
    fail(Fault::argument, {"out: '", path_, "' is a file, expected a directory or a new name"});
  if (fs::exists(path_) && !fs::is_empty(path_)) {
    require(overwrite, "out: '", path_,
            "' exists and is not empty; give another --out, or --overwrite to replace the run in it");
    require(
        fs::exists(file("config.resolved.json")), "out: '", path_,
        "' is not a run directory (it has no config.resolved.json), so that --overwrite does not touch it");
    remove({std::begin(own_entries), std::end(own_entries)});
  }
  cli::make_folder(path_);
}

void RunDirectory::resume(const std::vector<std::string>& outputs, bool overwrite) const {
  if (!writes_) return;
  if (!fs::is_directory(path_))
    fail(Fault::io,
         {"'", path_, "' does not exist; costate pretrain makes it (costate run does everything)"});
  if (!overwrite)
    for (const std::string& name : outputs)
      require(!fs::exists(file(name)), "out: '", file(name),
              "' exists already; give --overwrite to make it again");
}

void RunDirectory::remove(const std::vector<std::string>& names) const {
  if (!writes_) return;
  for (const std::string& name : names) {
    std::error_code reason;
    fs::remove_all(file(name), reason);
    if (reason) refused(file(name), reason);
  }
}

void RunDirectory::make_folder(std::string_view name) const {
  if (writes_) cli::make_folder(file(name));
}

int RunDirectory::remove_leftovers() const {
  if (!writes_ || !fs::is_directory(path_)) return 0;
  int removed = costate::remove_leftovers(path_);
  for (const auto& entry : fs::recursive_directory_iterator(path_))
    if (entry.is_directory()) removed += costate::remove_leftovers(entry.path().string());
  return removed;
}

bool RunDirectory::is_empty() const { return !fs::exists(path_) || (fs::is_directory(path_) && fs::is_empty(path_)); }

void RunDirectory::prepare(std::string_view name) const {
  cli::make_folder(fs::path(file(name)).parent_path().string());
}
void RunDirectory::write(std::string_view name, std::string_view text) const {
  if (!writes_) return;
  prepare(name);
  data::write_file_atomically(file(name), text);
}
void RunDirectory::write(std::string_view name, std::span<const std::byte> bytes) const {
  if (!writes_) return;
  prepare(name);
  data::write_file_atomically(file(name), bytes);
}

Json RunDirectory::read_json(std::string_view name) const {
  if (!fs::exists(file(name))) return Json::object();
  const auto bytes = data::read_file(file(name), std::uint64_t{16} << 20);
  try {
    return parse_json(data::as_text(bytes), "'" + file(name) + "'");
  } catch (const Error& e) {
    fail(Fault::data, {e.what()});
  }
}

Json adapter_config(const std::vector<nn::LoraLayer>& layers) {
  Json names = Json::array(), ranks = Json::object(), alphas = Json::object();
  require(!layers.empty(), "adapters: the model has none");
  const std::int64_t rank = layers[0].rank;
  const double alpha = layers[0].scale * static_cast<double>(rank);
  for (const nn::LoraLayer& l : layers) {
    names.push_back(l.name);
    if (l.rank != rank) ranks[l.name] = l.rank;
    if (const double a = l.scale * static_cast<double>(l.rank); a != alpha) alphas[l.name] = a;
  }
  return {{"peft_type", "LORA"},     {"r", rank},
          {"lora_alpha", alpha},     {"bias", "none"},
          {"use_rslora", false},     {"use_dora", false},
          {"fan_in_fan_out", false}, {"init_lora_weights", true},
          {"lora_dropout", 0.0},     {"target_modules", names},
          {"rank_pattern", ranks},   {"alpha_pattern", alphas}};
}

Json checkpoint_config(const Config& config) {
  Json out = to_json(config);
  for (const char* key : {"name", "threads", "device", "out", "memory_limit", "resume", "log", "distributed"}) out.erase(key);
  // No bit depends on these; and the last two ask for a device, while checkpoints belong to none.
  Json& finetune = out["finetune"];
  finetune.erase("recompute");
  if (finetune.contains("regression")) finetune["regression"].erase("graphs");
  if (finetune.contains("backpropagation")) finetune["backpropagation"].erase("host_memory");
  return out;
}

void check_same_configuration(const Json& kept, const Config& config, const std::string& path) {
  Config made_with;
  try {
    made_with = read_config_text(kept.dump(), "the configuration in '" + path + "'", {}).config;
  } catch (const Error& e) {
    fail(Fault::data, {e.what()});
  }
  const Json now = checkpoint_config(config);
  std::vector<std::string> sections;
  for (const auto& [key, value] : now.items()) sections.push_back(key);
  check_same_keys(now, checkpoint_config(made_with), sections, path);
}

void save_checkpoint(const RunDirectory& d, const std::string& name, const nn::Network& network,
                     const Config& config, const Json& described, std::string_view stage, std::int64_t step) {
  SafetensorsMetadata metadata = made_with(config, stage, step);
  if (!described.is_null()) metadata[std::string(network_key)] = described.dump();
  save(d, name, network, metadata);
}
void load_checkpoint(const RunDirectory& d, const std::string& name, nn::Network& network,
                     const Config& config, const std::vector<std::string>& sections) {
  load(d, name, network, config, sections);
}
void save_adapters(const RunDirectory& d, const std::string& name, const nn::Network& network,
                   const Config& config, std::string_view stage, std::int64_t step) {
  if (!d.writes()) return;
  make_folder(d.file("checkpoints"));
  SafetensorsMetadata metadata = made_with(config, stage, step);
  metadata["lora_adapter_metadata"] = adapter_config(nn::lora_layers(network)).dump();
  nn::save_lora(d.file(name), network, "base_model.model.", metadata);
}
void load_adapters(const RunDirectory& d, const std::string& name, nn::Network& network, const Config& config,
                   const std::vector<std::string>& sections) {
  nn::load_lora(checked_path(d, name, config, sections), network);
}
void save_checkpoint(const RunDirectory& d, const std::string& name, const nn::Classifier& classifier,
                     const Config& config, std::string_view stage, std::int64_t step) {
  save(d, name, classifier, made_with(config, stage, step));
}
void load_checkpoint(const RunDirectory& d, const std::string& name, nn::Classifier& classifier,
                     const Config& config, const std::vector<std::string>& sections) {
  load(d, name, classifier, config, sections);
}

Config config_of_checkpoint(const std::string& path) { return config_in(SafetensorsFile(path), path); }

}  // namespace costate::cli
