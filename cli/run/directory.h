// The run directory: what belongs in it, when it may be written to, and the checkpoints.
#pragma once
#include <costate/nn/lora.h>
#include <costate/nn/mlp.h>
#include <costate/nn/network.h>
#include <string>
#include <vector>

#include "config/config.h"
#include "config/json.h"

namespace costate::cli {

class RunDirectory {
 public:
  // `writes`: whether what is written and removed here is; of several ranks, the first one's is.
  explicit RunDirectory(std::string path, bool writes = true) : path_(std::move(path)), writes_(writes) {}
  bool writes() const { return writes_; }
  const std::string& path() const { return path_; }
  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }

  // For a run from its beginning: makes the directory. One that is there already is refused unless it is
  // empty, or `overwrite` is given and it is a run directory, whose files are then removed.
  void create(bool overwrite) const;
  // For a later stage of the same run: the directory is there, and `outputs` (files) are not, unless
  // `overwrite`.
  void resume(const std::vector<std::string>& outputs, bool overwrite) const;

  void write(std::string_view name, std::string_view text) const;  // atomically, making the folder
  void write(std::string_view name, std::span<const std::byte> bytes) const;
  void make_folder(std::string_view name) const;
  // Removes what atomic writing left in it and in its folders when a process was killed. Returns how many.
  int remove_leftovers() const;
  // Whether there is nothing of a run in it, or no such directory.
  bool is_empty() const;
  void remove(const std::vector<std::string>& names) const;  // files and folders, as far as they are there
  Json read_json(std::string_view name) const;               // {} when there is none

 private:
  void prepare(std::string_view name) const;
  std::string path_;
  bool writes_;
};

// The adapter_config.json that PEFT reads beside adapters of these layers.
Json adapter_config(const std::vector<nn::LoraLayer>& layers);

// What the metadata of a checkpoint says under these keys: checkpoint_config, and network_json.
inline constexpr std::string_view config_key = "costate.config", network_key = "costate.network";

// The part of the configuration that is kept with a checkpoint: everything but name, threads, device, out,
// memory_limit, resume, log and distributed.
Json checkpoint_config(const Config& config);
// Throws Fault::argument naming the first key where `config` says otherwise than a kept configuration, which was read from
// `path`.
void check_same_configuration(const Json& kept, const Config& config, const std::string& path);

// Checkpoints carry what they were made with, so that the network can be built again from the file alone;
// loading throws Fault::argument naming the first key of `sections` where `config` says otherwise,
// Fault::data for damaged files, Fault::io when there is no file. `described` is network_json, which `convert` reads.
void save_checkpoint(const RunDirectory& directory, const std::string& name, const nn::Network& network,
                     const Config& config, const Json& described, std::string_view stage, std::int64_t step);
void load_checkpoint(const RunDirectory& directory, const std::string& name, nn::Network& network,
                     const Config& config, const std::vector<std::string>& sections);
// The adapters of a network alone, and into a network without any.
void save_adapters(const RunDirectory& directory, const std::string& name, const nn::Network& network,
                   const Config& config, std::string_view stage, std::int64_t step);
void load_adapters(const RunDirectory& directory, const std::string& name, nn::Network& network,
                   const Config& config, const std::vector<std::string>& sections);
void save_checkpoint(const RunDirectory& directory, const std::string& name, const nn::Classifier& classifier,
                     const Config& config, std::string_view stage, std::int64_t step);
void load_checkpoint(const RunDirectory& directory, const std::string& name, nn::Classifier& classifier,
                     const Config& config, const std::vector<std::string>& sections);
// The configuration that a checkpoint was made with.
Config config_of_checkpoint(const std::string& path);

}  // namespace costate::cli
