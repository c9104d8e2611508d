// What is in a checkpoint, pretrained or of a run, or in a run directory.
#include <costate/nn/lora.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <filesystem>

#include "commands.h"
#include "pretrained/checkpoint.h"
#include "stages/evaluation.h"

namespace costate::cli {
namespace {

namespace fs = std::filesystem;

Json described(const SafetensorsSet& set, const std::string& path) {
  Json out = Json::object();
  out["file"] = path;
  Json& tensors = out["tensors"] = Json::array();
  std::uint64_t bytes = 0, numbers = 0;
  for (const SafetensorsSet::Entry& entry : set.entries()) {
    const SafetensorsEntry& e = *entry.entry;
    std::uint64_t n = 1;
    for (const auto extent : e.shape) n *= static_cast<std::uint64_t>(extent);
    tensors.push_back(
        {{"name", e.name}, {"dtype", std::string(name(e.type))}, {"shape", e.shape}, {"bytes", e.bytes()}});
    if (!set.file_names().empty()) tensors.back()["shard"] = set.file_names()[entry.file];
    bytes += e.bytes(), numbers += n;
  }
  out["total"] = {{"tensors", set.entries().size()}, {"numbers", numbers}, {"bytes", bytes}};
  Json& metadata = out["metadata"] = Json::object();
  for (const SafetensorsFile& file : set.files())
    for (const auto& [key, value] : file.metadata()) metadata[key] = value;
  return out;
}
Json described(const std::string& path) { return described(SafetensorsSet(SafetensorsFile(path)), path); }

// The network, scheduler and notes of a pretrained checkpoint, beside its tensors.
Json described_checkpoint(const std::string& path) {
  const CheckpointFiles files = find_checkpoint(path);
  std::vector<std::string> notes = files.notes;
  const SafetensorsSet set = open_weights(files.weights, notes);
  Json out = described(set, path);
  if (!files.pipeline.empty()) out["pipeline"] = files.pipeline;
  try {
    const NetworkSpec spec = network_spec(files, set);
    notes.insert(notes.end(), spec.notes.begin(), spec.notes.end());
    check_weights(spec, set);
    Json& n = out["network"] = {{"dialect", std::string(name(spec.dialect))},
                                {"channels", spec.channels},
                                {"height", spec.height},
                                {"width", spec.width},
                                {"classes", spec.classes}};
    std::uint64_t parameters = 0;
    std::visit(
        [&](auto model) {
          nn::visit(model,
                    [&](const std::string&, Var& p) { parameters += static_cast<std::uint64_t>(p.numel()); });
        },
        blank_network(spec, {}));
    n["parameters"] = parameters;
    n["config"] = config_json(spec, spec.dialect);
  } catch (const Error& e) {  // tensors can be shown all the same
    notes.push_back(e.what());
  }
  if (!files.scheduler.empty()) {
    try {
      const ImportedScheduler s =
          import_scheduler(read_json_object(files.scheduler), "'" + files.scheduler + "'");
      out["scheduler"] = {{"class", s.class_name},
                          {"path", s.schedule.description()},
                          {"prediction", std::string(name(s.prediction))},
                          {"sign", s.negated ? -1 : 1},
                          {"timestep_scale", s.timestep.scale},
                          {"timestep_offset", s.timestep.offset}};
      notes.insert(notes.end(), s.notes.begin(), s.notes.end());
    } catch (const Error& e) {
      notes.push_back(e.what());
    }
  }
  out["notes"] = notes;
  return out;
}

void print(const Json& file, std::ostream& out) {
  Table table({"tensor", "dtype", "shape", "bytes"});
  for (const Json& t : file["tensors"])
    table.row(
        {t["name"].get<std::string>(), t["dtype"].get<std::string>(), t["shape"].dump(), t["bytes"].dump()});
  const Json& total = file["total"];
  table.row({"total", total["tensors"].dump() + " tensors", total["numbers"].dump() + " numbers",
             total["bytes"].dump()});
  out << file["file"].get<std::string>() << "\n" << table.text(false);
  for (const auto& [key, value] : file["metadata"].items())
    out << key << ": " << value.get<std::string>() << "\n";
  for (const char* part : {"pipeline", "network", "scheduler"}) {
    if (!file.contains(part)) continue;
    if (!file[part].is_object()) {
      out << part << ": " << file[part].get<std::string>() << "\n";
      continue;
    }
    out << part << ":\n";
    for (const auto& [key, value] : file[part].items())
      if (!value.is_object())
        out << "  " << key << ": " << (value.is_string() ? value.get<std::string>() : value.dump()) << "\n";
  }
  if (file.contains("notes"))
    for (const Json& n : file["notes"]) out << "note: " << n.get<std::string>() << "\n";
}

}  // namespace

void inspect_command(const std::string& path, bool json, std::ostream& out) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) fail(Fault::io, {"'", path, "' does not exist"});
  const bool is_run = fs::exists(fs::path(path) / "config.resolved.json", ignored);
  if (fs::is_directory(path) && !is_run && !fs::exists(fs::path(path) / "model_index.json", ignored)) {
    const auto is_weights = [](const fs::directory_entry& e) {
      const std::string name = e.path().string();
      return name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") || name.ends_with(".bin") ||
             name.ends_with(".pt") || name.ends_with(".pth") || name.ends_with(".ckpt");
    };
    if (std::none_of(fs::directory_iterator(path), fs::directory_iterator(), is_weights))
      fail(Fault::data, {"'", path, "' is not a run directory (it has no config.resolved.json) and holds no checkpoint"});
  }
  // A single file without a configuration beside it is shown as it is.
  const bool alone = !fs::is_directory(path) && path.ends_with(".safetensors") &&
                     !fs::exists(fs::path(path).parent_path() / "config.json");
  if (!is_run) {
    const Json file = alone ? described(path) : described_checkpoint(path);
    if (json)
      out << file.dump(2) << "\n";
    else
      print(file, out);
    return;
  }
  const RunDirectory directory(path);
  Json all = {{"run", directory.read_json("run.json")}, {"checkpoints", Json::array()}};
  std::vector<std::string> files;
  if (fs::is_directory(directory.file("checkpoints")))
    for (const auto& entry : fs::directory_iterator(directory.file("checkpoints")))
      if (entry.path().extension() == ".safetensors") files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  for (const std::string& f : files) all["checkpoints"].push_back(described(f));
  const Json evaluation = directory.read_json("evaluation.json");
  if (!evaluation.empty()) all["evaluation"] = evaluation;
  if (json) {
    out << all.dump(2) << "\n";
    return;
  }
  const Json& run = all["run"];
  for (const char* key : {"name", "version", "seed", "threads", "peak_bytes"})
    if (run.contains(key)) out << key << ": " << run[key].dump() << "\n";
  Table table({"checkpoint", "tensors", "numbers", "bytes"});
  for (const Json& f : all["checkpoints"])
    table.row({fs::path(f["file"].get<std::string>()).filename().string(), f["total"]["tensors"].dump(),
               f["total"]["numbers"].dump(), f["total"]["bytes"].dump()});
  out << "\n" << table.text(false);
  if (!evaluation.empty()) out << "\n" << evaluation_text(evaluation, false);
}

}  // namespace costate::cli
