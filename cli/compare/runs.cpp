#include "compare/runs.h"

#include <costate/finetune/evaluate/estimate.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "compare/cross.h"
#include "config/read.h"
#include "run/directory.h"

namespace costate::cli {
namespace {

namespace fs = std::filesystem;

// The number at "a.b.c", or none: absent, null, or not a number. Of an estimate its value.
std::optional<double> number_at(const Json& root, const std::string& path) {
  const Json* at = &root;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t dot = std::min(path.find('.', begin), path.size());
    const std::string key = path.substr(begin, dot - begin);
    if (!at->is_object() || !at->contains(key)) return std::nullopt;
    at = &at->at(key);
    begin = dot + 1;
  }
  if (at->is_object() && at->contains("value")) at = &at->at("value");
  if (!at->is_number()) return std::nullopt;
  return at->get<double>();
}

// What a setting is: everything that the numbers of the evaluation depend on but the seed. Samples and evaluations may have
// been made with other settings than those of the directory; run.json says with which.
Json setting_of(const Config& config, const Json& record) {
  Json setting = checkpoint_config(config);
  for (const char* key : {"seed", "sample"}) setting.erase(key);
  const Json& stage = record["stages"]["evaluate"];
  if (stage.contains("settings"))
    for (const char* section : {"reward", "gold", "sampler", "evaluate"})
      if (stage["settings"].contains(section)) setting[section] = stage["settings"][section];
  for (const char* key : {"checkpoints", "methods", "likelihood", "control_error"})  // add numbers, change none
    setting["evaluate"].erase(key);
  return setting;
}

// Whether "a.b.c" was there.
bool erase(Json& root, const std::string& path) {
  Json* at = &root;
  std::size_t begin = 0;
  for (std::size_t dot; (dot = path.find('.', begin)) != std::string::npos; begin = dot + 1) {
    const std::string key = path.substr(begin, dot - begin);
    if (!at->is_object() || !at->contains(key)) return false;
    at = &at->at(key);
  }
  return at->is_object() && at->erase(path.substr(begin)) > 0;
}

std::map<std::string, double> numbers_of(const Json& evaluation, const Json& stage) {
  std::map<std::string, double> out;
  const auto take = [&](const char* key, const Json& from, std::initializer_list<const char*> paths) {
    for (const char* path : paths)
      if (const std::optional<double> v = number_at(from, path)) {
        out[key] = *v;
        return;
      }
  };
  take("reward", evaluation, {"samples.tuned_sde.reward"});
  take("base_reward", evaluation, {"samples.base_sde.reward"});
  take("gold_reward", evaluation, {"samples.tuned_sde.gold_reward"});
  take("base_gold_reward", evaluation, {"samples.base_sde.gold_reward"});
  take("path_kl", evaluation, {"path_kl.control_cost", "control_problem.path_kl"});
  take("objective", evaluation, {"control.objective"});
  take("gap", evaluation, {"control.gap"});
  take("effective_share", evaluation, {"control.effective_share_of_tuned"});
  take("control_error", evaluation, {"closed_form.relative_control_error", "control_problem.relative_control_error"});
  take("cost", evaluation, {"control_problem.cost_with_less_variance"});
  take("vendi", evaluation, {"samples.tuned_sde.vendi"});
  take("diversity", evaluation, {"samples.tuned_sde.diversity"});
  take("frechet", evaluation, {"samples.tuned_sde.frechet_to_reweighted_base"});
  take("w1", evaluation, {"samples.tuned_sde.w1_to_reweighted_base"});
  take("reward_queries", stage, {"evaluations.rewards"});
  take("seconds", stage, {"seconds"});
  if (const std::optional<double> bytes = number_at(stage, "peak.bytes")) out["peak_mib"] = *bytes / (1024 * 1024);
  double evaluations = 0;
  bool counted = true;
  for (const char* kind : {"evaluations.plain", "evaluations.state", "evaluations.parameters"}) {
    const std::optional<double> v = number_at(stage, kind);
    counted = counted && v.has_value();
    evaluations += v.value_or(0);
  }
  if (counted) out["evaluations"] = evaluations;
  return out;
}

// Leaves by their full keys.
void flatten(const Json& j, const std::string& path, std::map<std::string, Json>& out) {
  if (!j.is_object()) {
    out[path] = j;
    return;
  }
  for (const auto& [key, value] : j.items()) flatten(value, path.empty() ? key : path + "." + key, out);
}

// Words that tell settings apart: the keys in which they differ, as far as they are few, else the name of the first run.
void label(std::vector<ComparedGroup>& groups) {
  std::vector<std::map<std::string, Json>> leaves(groups.size());
  std::set<std::string> differing;
  for (std::size_t i = 0; i < groups.size(); ++i) flatten(groups[i].runs[0].setting, "", leaves[i]);
  for (const auto& l : leaves)
    for (const auto& [key, value] : l)
      for (const auto& other : leaves)
        if (const auto at = other.find(key); at == other.end() || at->second != value) differing.insert(key);
  constexpr std::size_t few = 3;
  differing.erase("finetune.objective");
  std::set<std::string> names;
  for (const ComparedGroup& g : groups) names.insert(g.runs[0].name);
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const ComparedRun& run = groups[i].runs[0];
    if (groups.size() == 1 || (differing.size() > few && names.size() == groups.size())) {
      groups[i].label = run.name;
      continue;
    }
    std::string text = run.objective;
    std::size_t shown = 0;
    for (const std::string& key : differing) {
      if (++shown > few) break;
      const auto at = leaves[i].find(key);
      text += ", " + key + "=" +
              (at == leaves[i].end()    ? "none"
               : at->second.is_string() ? at->second.get<std::string>()
                                        : at->second.dump());
    }
    groups[i].label = text;
  }
  // What still has one label has a number.
  for (std::size_t i = 0; i < groups.size(); ++i) {
    std::size_t same = 1;
    for (std::size_t j = i + 1; j < groups.size(); ++j)
      if (groups[j].label == groups[i].label) groups[j].label += " (" + std::to_string(++same) + ")";
  }
}

}  // namespace

const std::vector<Measure>& measures() {
  using Better = Measure::Better;
  static const std::vector<Measure> list{
      {"reward", "reward", Better::higher},
      {"gold_reward", "gold reward", Better::higher},
      {"path_kl", "path KL", Better::neither},
      {"objective", "J", Better::higher},
      {"gap", "log Z - J", Better::lower},
      {"effective_share", "ESS share", Better::higher},
      {"control_error", "control error", Better::lower},
      {"cost", "cost", Better::lower},
      {"vendi", "Vendi", Better::neither},
      {"diversity", "diversity", Better::neither},
      {"frechet", "Frechet", Better::lower},
      {"w1", "W1", Better::lower},
      {"reward_queries", "reward queries", Better::lower},
      {"evaluations", "network rows", Better::lower},
      {"seconds", "seconds", Better::lower},
      {"peak_mib", "peak MiB", Better::lower},
  };
  return list;
}

ComparedRun read_run(const std::string& path) {
  if (!fs::is_directory(path)) fail(Fault::io, {"compare: '", path, "' is not a directory"});
  const RunDirectory directory(path);
  require(fs::exists(directory.file("config.resolved.json")), "compare: '", path,
          "' is not a run directory (it has no config.resolved.json)");
  require(!fs::exists(directory.file("study.json")), "compare: '", path,
          "' is the directory of a study of adjoint methods, expected that of a run");
  ComparedRun run;
  run.path = path;
  const Config config = [&] {
    try {
      return read_config_text(directory.read_json("config.resolved.json").dump(),
                              "'" + directory.file("config.resolved.json") + "'", {})
          .config;
    } catch (const Error& e) {
      fail(Fault::data, {"compare: ", e.what()});
    }
  }();
  run.name = config.name, run.seed = config.seed, run.objective = config.finetune.objective;
  const Json record = directory.read_json("run.json"), evaluation = directory.read_json("evaluation.json");
  const auto has_stage = [&](const char* stage) {
    return record.is_object() && record.contains("stages") && record["stages"].is_object() && record["stages"].contains(stage);
  };
  if (!has_stage("finetune")) {
    run.unfinished = "'" + path + "' is left out: it was not fine-tuned to the end (run.json has no such stage)";
  } else if (!has_stage("evaluate") || evaluation.empty()) {
    run.unfinished = "'" + path + "' is left out: it was not evaluated (costate evaluate does that)";
  }
  if (!run.unfinished.empty()) return run;
  run.setting = setting_of(config, record);
  run.numbers = numbers_of(evaluation, record["stages"]["finetune"]);
  if (evaluation.contains("best_of_n_of_base")) {
    const Json& b = evaluation["best_of_n_of_base"];
    for (std::size_t i = 0; i < b.value("n", Json::array()).size(); ++i)
      if (b["kl"][i].is_number() && b["reward"][i].is_number())
        run.best_of_n.emplace_back(b["kl"][i].get<double>(), b["reward"][i].get<double>());
  }
  if (fs::exists(directory.file("metrics.csv"))) run.metrics = read_csv_columns(directory.file("metrics.csv"));
  if (fs::exists(directory.file("curve.csv"))) run.curve = read_csv_columns(directory.file("curve.csv"));
  return run;
}

Comparison compare_runs(const std::vector<std::string>& paths, const std::vector<std::string>& ignored) {
  require(!paths.empty(), "compare: no run directory was given");
  Comparison out;
  out.ignored = ignored;
  std::set<std::string> known;  // of the ignored keys
  for (const std::string& path : paths) {
    ComparedRun run = read_run(path);
    if (!run.unfinished.empty()) {
      out.left_out.push_back(run.unfinished);
      continue;
    }
    for (const std::string& key : ignored)
      if (erase(run.setting, key)) known.insert(key);
    const auto group = std::find_if(out.groups.begin(), out.groups.end(),
                                    [&](const ComparedGroup& g) { return g.runs[0].setting == run.setting; });
    if (group == out.groups.end()) {
      out.groups.push_back({"", {std::move(run)}});
      continue;
    }
    const auto twin =
        std::find_if(group->runs.begin(), group->runs.end(), [&](const ComparedRun& r) { return r.seed == run.seed; });
    if (twin != group->runs.end())
      out.left_out.push_back("'" + path + "' is left out: it has the setting and the seed, " + std::to_string(run.seed) +
                             ", of '" + twin->path + "'");
    else
      group->runs.push_back(std::move(run));
  }
  if (out.groups.empty()) fail(Fault::argument, {"compare: there is nothing to compare; ", out.left_out[0]});
  for (const std::string& key : ignored)
    require(known.contains(key), "compare: --ignore: no setting of these runs has the key '", key,
            "'; expected one of their configuration, such as evaluate.count, or a section of it");
  label(out.groups);
  out.cross = cross_rewards_of(out.groups);
  return out;
}

std::optional<Spread> spread(const ComparedGroup& group, const std::string& key) {
  std::vector<double> values;
  for (const ComparedRun& r : group.runs)
    if (const auto at = r.numbers.find(key); at != r.numbers.end()) values.push_back(at->second);
  return spread_of(values);
}

std::optional<Spread> spread_of(const std::vector<double>& values) {
  if (values.empty()) return std::nullopt;
  const finetune::Estimate mean = finetune::mean_estimate(values);
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return Spread{static_cast<std::int64_t>(values.size()), mean.value, mean.standard_error, *low, *high};
}

}  // namespace costate::cli
