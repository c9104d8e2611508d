// What is in a checkpoint or a run directory.
#include <costate/nn/save.h>
#include <costate/tensor/error.h>

#include <filesystem>

#include "commands.h"
#include "stages/evaluation.h"

namespace costate::cli {
namespace {

namespace fs = std::filesystem;

Json described(const std::string& path) {
  const SafetensorsFile file(path);
  Json out = Json::object();
  out["file"] = path;
  Json& tensors = out["tensors"] = Json::array();
  std::uint64_t bytes = 0, numbers = 0;
  for (const SafetensorsEntry& e : file.entries()) {
    std::uint64_t n = 1;
    for (const auto extent : e.shape) n *= static_cast<std::uint64_t>(extent);
    tensors.push_back(
        {{"name", e.name}, {"dtype", std::string(name(e.type))}, {"shape", e.shape}, {"bytes", e.bytes()}});
    bytes += e.bytes(), numbers += n;
  }
  out["total"] = {{"tensors", file.entries().size()}, {"numbers", numbers}, {"bytes", bytes}};
  Json& metadata = out["metadata"] = Json::object();
  for (const auto& [key, value] : file.metadata()) metadata[key] = value;
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
}

}  // namespace

void inspect_command(const std::string& path, bool json, std::ostream& out) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) fail(Fault::io, {"'", path, "' does not exist"});
  if (!fs::is_directory(path)) {
    const Json file = described(path);
    if (json)
      out << file.dump(2) << "\n";
    else
      print(file, out);
    return;
  }
  const RunDirectory directory(path);
  if (!fs::exists(directory.file("config.resolved.json")))
    fail(Fault::data, {"'", path, "' is not a run directory: it has no config.resolved.json"});
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
