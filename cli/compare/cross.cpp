#include "compare/cross.h"

#include <costate/finetune/data/file.h>
#include <costate/finetune/data/npy.h>
#include <costate/finetune/evaluate/control_report.h>

#include <algorithm>
#include <cmath>

#include "config/read.h"
#include "stages/stages.h"

namespace costate::cli {
namespace {

// A reward with the data whose units it sees.
struct Column {
  std::string kind, owner;  // of the reward, the label of the setting that it is from
  bool gold = false;
  Json section;  // what tells it from others
  Config config;
  RunData data = {};
  finetune::Reward reward = {};
};

Config config_of(const ComparedRun& run) {
  const RunDirectory directory(run.path);
  Json resolved = directory.read_json("config.resolved.json");
  if (run.setting.contains("gold")) resolved["gold"] = run.setting["gold"];  // the evaluation's
  Config config = read_config_text(resolved.dump(), "'" + directory.file("config.resolved.json") + "'", {}).config;
  config.reward.f_divergence.kind = "none";  // the reward itself is what samples are measured with
  return config;
}

// What the reward depends on.
Json section_of(const ComparedRun& run, bool gold) {
  Json out = run.setting[gold ? "gold" : "reward"];
  for (const char* key : {"multiplier", "f_divergence"}) out.erase(key);
  if (out["kind"] == "classifier")
    out["learned"] = {run.setting["data"], run.setting["classifiers"][gold ? "judge" : "reward"]};
  return out;
}

std::vector<Column> columns_of(const std::vector<ComparedGroup>& groups) {
  std::vector<Column> out;
  for (const bool gold : {false, true})
    for (const ComparedGroup& g : groups) {
      const ComparedRun& run = g.runs[0];
      if (!run.setting.contains(gold ? "gold" : "reward")) continue;
      const Json section = section_of(run, gold);
      if (section["kind"] == "none" ||
          std::any_of(out.begin(), out.end(), [&](const Column& o) { return o.gold == gold && o.section == section; }))
        continue;
      out.push_back({section["kind"].get<std::string>(), g.label, gold, section, config_of(run)});
    }
  return out;
}

void load(Column& column, const std::string& path) {
  require(column.kind != "command", "it is a program, which is not started for a comparison");
  column.data = load_run_data(column.config, false);
  const RunDirectory directory(path);
  Session session(column.config);
  session.directory = &directory, session.device = Device::cpu;
  if (!column.gold) {
    column.reward = load_reward_with_tilt(session, column.data.model).plain;
    return;
  }
  nn::Classifier judge;
  if (column.kind == "classifier")
    judge = load_classifier(session, column.data.model, column.config.judge, judge_checkpoint, classifier_sections);
  column.reward = load_gold(session, column.data.model, judge);
}

// The samples in the units of a column's data.
Tensor samples_for(const data::NpyArray& array, const std::vector<float>& values, const data::Dataset& data) {
  const Shape item = item_shape(data);
  const Shape shape = item.with_front(array.shape.empty() ? 0 : array.shape[0]);
  const auto extents = shape.extents();
  require(std::equal(extents.begin(), extents.end(), array.shape.begin(), array.shape.end()), "its samples are no items of ",
          data.description);
  std::vector<float> inside;
  for (const float v : values) inside.push_back(static_cast<float>((static_cast<double>(v) - data.offset) / data.scale));
  return Tensor::from(std::move(inside), shape);
}

}  // namespace

CrossRewards cross_rewards_of(const std::vector<ComparedGroup>& groups) {
  std::vector<Column> columns = columns_of(groups);
  CrossRewards out;
  if (columns.size() < 2) return out;
  for (const Column& column : columns) {
    const auto same = std::count_if(columns.begin(), columns.end(),
                                    [&](const Column& o) { return o.gold == column.gold && o.kind == column.kind; });
    out.rewards.push_back((column.gold ? "gold: " : "") + column.kind + (same > 1 ? " of " + column.owner : ""));
  }
  for (std::size_t j = 0; j < columns.size(); ++j) try {
      const auto owner = std::find_if(groups.begin(), groups.end(),
                                      [&](const ComparedGroup& g) { return g.label == columns[j].owner; });
      load(columns[j], owner->runs[0].path);
    } catch (const Error& e) {
      out.notes.push_back("The reward '" + out.rewards[j] + "' is left out of the table of all rewards: " + e.what());
    }
  for (const ComparedGroup& g : groups) {
    std::vector<std::vector<double>> values(columns.size());
    for (const ComparedRun& run : g.runs) try {
        const std::string file = RunDirectory(run.path).file("samples/tuned_sde.npy");
        const std::vector<std::byte> bytes = data::read_file(file);
        const data::NpyArray array = data::parse_npy(bytes, file);
        const std::vector<float> samples = data::npy_values<float>(array, file);
        for (std::size_t j = 0; j < columns.size(); ++j) {
          if (!columns[j].reward.defined()) continue;
          const Tensor x = samples_for(array, samples, columns[j].data.model);
          const finetune::Estimate mean = finetune::cross_rewards({&x, 1}, {&columns[j].reward, 1})[0][0];
          if (std::isfinite(mean.value)) values[j].push_back(mean.value);
        }
      } catch (const Error& e) {
        out.notes.push_back("'" + run.path + "' is left out of the table of all rewards: " + e.what());
      }
    std::vector<std::optional<Spread>>& row = out.cells.emplace_back();
    for (const std::vector<double>& v : values) row.push_back(spread_of(v));
  }
  return out;
}

}  // namespace costate::cli
