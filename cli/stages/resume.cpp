#include "stages/resume.h"

#include <costate/tensor/error.h>

#include <algorithm>
#include <filesystem>

#include "distributed/ranks.h"
#include "run/saved_training.h"

namespace costate::cli {
namespace {

constexpr const char* resolved_file = "config.resolved.json";

}  // namespace

GoingOn go_on(const std::string& how, const Config& config, const RunDirectory& directory, const StageNames& stages) {
  GoingOn out;
  directory.remove_leftovers();
  if (stages.from_the_beginning && directory.is_empty()) {
    require(how == "auto", "--resume ", how, ": there is no run in '", directory.path(), "' that it could be of");
    return out;
  }
  const Json resolved = directory.read_json(resolved_file), record = directory.read_json("run.json");
  require(!stages.from_the_beginning || !resolved.empty(), "out: '", directory.path(), "' is not a run directory (it has no ",
          resolved_file, "), so that there is nothing to resume");
  const auto done = [&](const std::string& stage) { return record.contains("stages") && record["stages"].contains(stage); };
  while (out.first < stages.names.size() && done(stages.names[out.first])) ++out.first;
  // A directory that a later stage alone changes has the configuration of its models until that stage is done; a training that
  // was begun says itself what it was begun with.
  if (stages.from_the_beginning || out.first > 0) check_same_configuration(resolved, config, directory.file(resolved_file));
  if (how != "auto") {
    out.training = read_saved_training(std::filesystem::path(how).lexically_normal().string(), config);
    const auto stage = std::find(stages.names.begin(), stages.names.end(), out.training->stage);
    require(stage != stages.names.end(), "--resume ", how, ": it is of the stage ", out.training->stage,
            ", which this command does not run");
    const auto index = static_cast<std::size_t>(stage - stages.names.begin());
    require(index <= out.first, "--resume ", how, ": it is of the stage ", out.training->stage, ", but ",
            stages.names[std::min(out.first, stages.names.size() - 1)], " before it is not done");
    out.first = index;
  } else if (out.first < stages.names.size()) {
    out.training = newest_saved_training(directory, stages.names[out.first], config, out.notes);
  }
  out.fresh = false;
  if (out.first == stages.names.size())
    out.notes.push_back("every stage is done");
  else if (out.training)
    out.notes.push_back("goes on after update " + std::to_string(out.training->step) + " of " + out.training->stage);
  else
    out.notes.push_back("goes on with " + stages.names[out.first]);
  // What follows the training, or is damaged, is not of this run's past any more.
  for (const char* stage : {"pretrain", "finetune"})
    if (out.first == stages.names.size() || !out.training || out.training->stage != stage)
      remove_saved_trainings(directory, stage);
    else
      remove_saved_trainings_beyond(directory, *out.training);
  return out;
}

GoingOn go_on_together(const std::string& how, const Config& config, const RunDirectory& directory, const StageNames& stages) {
  GoingOn out;
  by_first_rank([&] { out = go_on(how, config, directory, stages); });
  if (!several_ranks()) return out;
  const Json own{{"first", out.first}, {"fresh", out.fresh}, {"training", out.training ? out.training->path : ""}};
  const Json found = Json::parse(finetune::all_gather(own.dump())[0]);
  together([&] {
    if (first_rank()) return;
    out.first = found["first"].get<std::size_t>(), out.fresh = found["fresh"].get<bool>();
    if (const auto path = found["training"].get<std::string>(); !path.empty()) out.training = read_saved_training(path, config);
  });
  return out;
}

}  // namespace costate::cli
