#include "run_report/report.h"

#include <costate/finetune/data/file.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "bytes.h"
#include "config/read.h"
#include "image/png.h"
#include "progress.h"
#include "run/metrics.h"

namespace costate::cli {
namespace {

namespace fs = std::filesystem;

std::string title_of(std::string key) {
  std::replace(key.begin(), key.end(), '_', ' ');
  return key;
}
bool is_estimate(const Json& v) { return v.is_object() && v.contains("value") && v.contains("standard_error"); }

report::Cell cell(const Json& v) {
  if (v.is_null()) return report::Cell(std::numeric_limits<double>::quiet_NaN());
  if (v.is_number_integer()) return report::Cell(v.get<double>(), std::to_string(v.get<std::int64_t>()));
  if (v.is_number()) return report::Cell(v.get<double>());
  if (is_estimate(v)) {
    report::Cell value = cell(v.at("value"));
    if (!v.at("standard_error").is_null() && value.value) value.text += " ± " + cell(v.at("standard_error")).text;
    return value;
  }
  if (v.is_array()) {
    std::string all;
    for (const Json& e : v) all += (all.empty() ? "" : " ") + cell(e).text;
    return all;
  }
  return v.is_string() ? v.get<std::string>() : v.dump();
}

// The leaves of an object, which outlives them, with their paths in words; numbers, estimates and short lists are leaves.
std::vector<std::pair<std::string, const Json*>> leaves(const Json& object, const std::string& path = "") {
  std::vector<std::pair<std::string, const Json*>> out;
  for (const auto& [key, v] : object.items()) {
    const std::string name = path.empty() ? title_of(key) : path + ", " + title_of(key);
    if (v.is_object() && !is_estimate(v)) {
      for (auto& leaf : leaves(v, name)) out.push_back(std::move(leaf));
    } else {
      out.emplace_back(name, &v);
    }
  }
  return out;
}

bool is_curve(const Json& v) {
  return v.is_array() && v.size() > 12 && std::all_of(v.begin(), v.end(), [](const Json& e) { return e.is_number() || e.is_null(); });
}
report::Figure curve(const std::string& name, const Json& v) {
  report::Series s;
  for (std::size_t i = 0; i < v.size(); ++i) {
    s.xs.push_back(static_cast<double>(i));
    s.ys.push_back(v[i].is_null() ? std::numeric_limits<double>::quiet_NaN() : v[i].get<double>());
  }
  report::Figure figure{{.title = name, .x_label = "position in the list", .y_label = name, .height = 280}, ""};
  figure.plot.series.push_back(std::move(s));
  return figure;
}

void flatten(const Json& v, const std::string& path, std::vector<std::pair<std::string, std::string>>& out) {
  if (!v.is_object()) {
    out.emplace_back(path, v.dump());
    return;
  }
  for (const auto& [key, inner] : v.items()) flatten(inner, path.empty() ? key : path + "." + key, out);
}

}  // namespace

report::Section evaluation_section(const Json& evaluation) {
  report::Section section{.heading = "Evaluation"};
  if (!evaluation.contains("samples") || !evaluation.at("samples").is_object()) return section;
  report::Table table{.caption = "Samples of the base and the tuned model, by the chain with noise (sde) and by the flow (ode).",
                      .columns = {{""}}};
  std::vector<std::string> names;
  std::vector<std::vector<std::pair<std::string, const Json*>>> sets;
  for (const auto& [name, set] : evaluation.at("samples").items()) {
    table.columns.push_back({title_of(name)});
    sets.push_back(leaves(set));
    for (const auto& [key, v] : sets.back())
      if (std::find(names.begin(), names.end(), key) == names.end()) names.push_back(key);
  }
  for (const std::string& name : names) {
    std::vector<report::Cell> row{name};
    for (const auto& set : sets) {
      const auto found = std::find_if(set.begin(), set.end(), [&](const auto& leaf) { return leaf.first == name; });
      row.push_back(found == set.end() ? report::Cell() : cell(*found->second));
    }
    table.rows.push_back(std::move(row));
  }
  section.blocks.emplace_back(std::move(table));
  report::Table others{.caption = "Everything else in evaluation.json.", .columns = {{"number"}, {"value"}}};
  std::vector<report::Figure> figures;
  Json rest = evaluation;
  rest.erase("samples");
  for (const auto& [name, v] : leaves(rest))
    if (is_curve(*v))
      figures.push_back(curve(name, *v));
    else
      others.rows.push_back({name, cell(*v)});
  if (!others.rows.empty()) section.blocks.emplace_back(std::move(others));
  for (report::Figure& f : figures) section.blocks.emplace_back(std::move(f));
  return section;
}

report::Section pictures_section(const RunDirectory& directory) {
  report::Section section{.heading = "Samples"};
  std::vector<std::string> names;
  if (fs::is_directory(directory.file("samples")))
    for (const auto& entry : fs::directory_iterator(directory.file("samples")))
      if (entry.path().extension() == ".png" && entry.path().stem() != "overview") names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());  // base, data, tuned
  for (const std::string& name : names) {
    const std::string path = directory.file("samples/" + name + ".png");
    std::vector<std::byte> png = data::read_file(path, std::uint64_t{16} << 20);
    const FloatImage size = read_png(png, PngColour::as_stored, {}, "'" + path + "'");
    section.blocks.emplace_back(report::Picture{std::move(png), size.width, size.height, title_of(name) + "."});
  }
  return section;
}

report::Section cost_section(const Json& record) {
  report::Section section{.heading = "Time and memory"};
  if (!record.contains("stages") || record.at("stages").empty()) return section;
  report::Table table{.caption = "Stages; the planned peak is the one that costate plan predicts before anything is run.",
                      .columns = {{"stage"}, {"seconds"}, {"planned peak, bytes"}, {"measured peak, bytes"}, {"difference, bytes"},
                                  {"FLOPs"}, {"network rows"}}};
  report::Table tags{.caption = "What the measured peaks hold, in bytes.", .columns = {{"stage"}}};
  for (const auto& [name, stage] : record.at("stages").items())
    for (const auto& tag : stage.at("peak").at("by_tag").items())
      if (std::none_of(tags.columns.begin(), tags.columns.end(), [&](const report::Column& c) { return c.name == tag.key(); }))
        tags.columns.push_back({tag.key()});
  const auto whole = [](std::int64_t v) { return report::Cell(static_cast<double>(v), std::to_string(v)); };
  for (const auto& [name, stage] : record.at("stages").items()) {
    const auto measured = stage.at("peak").at("bytes").get<std::int64_t>();
    std::int64_t rows = 0;
    for (const auto& [kind, n] : stage.at("evaluations").items()) rows += n.get<std::int64_t>();
    const bool planned = stage.contains("planned_peak");
    const std::int64_t expected = planned ? stage.at("planned_peak").at("bytes").get<std::int64_t>() : 0;
    table.rows.push_back({name, report::Cell(stage.at("seconds").get<double>()), planned ? whole(expected) : report::Cell(),
                          whole(measured), planned ? whole(measured - expected) : report::Cell(),
                          stage.contains("flops") ? flops_text(stage.at("flops").get<std::int64_t>()) : "", whole(rows)});
    std::vector<report::Cell> row{name};
    for (std::size_t i = 1; i < tags.columns.size(); ++i) {
      const Json& by_tag = stage.at("peak").at("by_tag");
      row.push_back(by_tag.contains(tags.columns[i].name) ? whole(by_tag.at(tags.columns[i].name).get<std::int64_t>()) : report::Cell());
    }
    tags.rows.push_back(std::move(row));
  }
  section.blocks.emplace_back(std::move(table));
  section.blocks.emplace_back(std::move(tags));
  return section;
}

report::Section config_section(const Json& config) {
  report::Section section{.heading = "Configuration"};
  std::vector<std::pair<std::string, std::string>> keys, standard;
  flatten(config, "", keys);
  flatten(to_json(read_config_text("{}", "the defaults", {}).config), "", standard);
  report::Table table{.caption = "Keys that differ from their defaults.", .columns = {{"key"}, {"value"}, {"default"}}};
  for (const auto& set : keys) {
    const auto found = std::find_if(standard.begin(), standard.end(), [&](const auto& s) { return s.first == set.first; });
    if (found == standard.end() || found->second != set.second)
      table.rows.push_back({set.first, set.second, found == standard.end() ? report::Cell() : report::Cell(found->second)});
  }
  if (!table.rows.empty()) section.blocks.emplace_back(std::move(table));
  section.blocks.emplace_back(report::Listing{config.dump(2), "config.resolved.json: every key."});
  return section;
}

report::Report run_report(const RunDirectory& directory) {
  require(fs::is_directory(directory.path()), "report: '", directory.path(), "' is not a directory; expected that of a run");
  require(!fs::exists(directory.file("study.json")), "report: '", directory.path(),
          "' holds a study, whose page costate study has written already: report.html");
  require(fs::exists(directory.file("config.resolved.json")), "report: '", directory.path(),
          "' is not a run directory (it has no config.resolved.json)");
  const Json config = directory.read_json("config.resolved.json"), record = directory.read_json("run.json"),
             evaluation = directory.read_json("evaluation.json");
  for (const auto& [name, json] : {std::pair("config.resolved.json", &config), {"run.json", &record}, {"evaluation.json", &evaluation}})
    if (!json->is_object()) fail(Fault::data, {"'", directory.file(name), "' holds ", description(*json), ", expected an object"});
  report::Report page{.title = config.contains("name") && config.at("name").is_string() ? config.at("name").get<std::string>() : "Run"};
  try {
    page.sections = {evaluation_section(evaluation), pictures_section(directory)};
    if (const std::string path = directory.file("metrics.jsonl"); fs::exists(path)) {
      const auto bytes = data::read_file(path);
      page.sections.push_back(curves_section(read_metrics(data::as_text(bytes), "'" + path + "'")));
    }
    page.sections.push_back(cost_section(record));
    page.sections.push_back(config_section(config));
    for (const char* fact : {"seed", "threads", "cpu", "device", "compiler", "version"})
      if (record.contains(fact)) page.facts.emplace_back(fact, cell(record.at(fact)).text);
    double seconds = 0;
    if (record.contains("stages"))
      for (const auto& [name, stage] : record.at("stages").items()) seconds += stage.at("seconds").get<double>();
    page.facts.emplace_back("time", duration_text(seconds));
    if (record.contains("peak_bytes")) page.facts.emplace_back("peak memory", bytes_text(record.at("peak_bytes").get<std::int64_t>()));
  } catch (const Json::exception& e) {
    fail(Fault::data, {"report: run.json or evaluation.json of '", directory.path(), "' is not what a run writes: ", e.what()});
  }
  std::erase_if(page.sections, [](const report::Section& s) { return s.blocks.empty(); });
  return page;
}

}  // namespace costate::cli
