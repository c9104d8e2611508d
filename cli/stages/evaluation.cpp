#include "stages/evaluation.h"

#include <algorithm>
#include <cmath>

#include "run/metrics.h"

namespace costate::cli {

Json json_number(double v) { return std::isfinite(v) ? Json(v) : Json(nullptr); }
Json json_estimate(const finetune::Estimate& e) {
  return {{"value", json_number(e.value)}, {"standard_error", json_number(e.standard_error)}};
}

std::string estimate_text(const finetune::Estimate& e) {
  return short_number(e.value) + " +- " + short_number(e.standard_error);
}

std::string Table::text(bool markdown) const {
  std::vector<std::size_t> width;
  for (const auto& row : rows_)
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (width.size() <= i) width.resize(i + 1);
      width[i] = std::max(width[i], row[i].size());
    }
  std::string out;
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    std::string line = markdown ? "|" : "";
    for (std::size_t i = 0; i < width.size(); ++i) {
      const std::string cell = i < rows_[r].size() ? rows_[r][i] : "";
      const std::string pad(width[i] - cell.size(), ' ');
      line += markdown ? " " : i ? "  " : "";
      line += i == 0 ? cell + pad : pad + cell;
      line += markdown ? " |" : "";
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    out += line + "\n";
    if (r == 0 && markdown) {
      out += "|";
      for (std::size_t i = 0; i < width.size(); ++i) out += i == 0 ? " --- |" : " ---: |";
      out += "\n";
    }
  }
  return out;
}

namespace {

std::string title(std::string key) {
  std::replace(key.begin(), key.end(), '_', ' ');
  return key;
}

std::string cell(const Json& v) {
  if (v.is_null()) return "-";
  if (v.is_object() && v.contains("value"))
    return cell(v["value"]) + (v["standard_error"].is_null() ? "" : " +- " + cell(v["standard_error"]));
  if (v.is_number_integer()) return std::to_string(v.get<std::int64_t>());
  if (v.is_number()) return short_number(v.get<double>());
  if (v.is_array()) {
    std::string out;
    for (const Json& e : v) out += (out.empty() ? "" : " ") + cell(e);
    return out;
  }
  if (v.is_object()) {
    std::string out;
    for (const auto& [key, e] : v.items()) out += (out.empty() ? "" : ", ") + title(key) + " " + cell(e);
    return out;
  }
  return v.is_string() ? v.get<std::string>() : v.dump();
}

}  // namespace

std::string evaluation_text(const Json& evaluation, bool markdown) {
  std::vector<std::string> names, keys;
  for (const auto& [name, set] : evaluation["samples"].items()) {
    names.push_back(name);
    for (const auto& [key, value] : set.items())
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
  }
  std::string out;
  constexpr std::size_t widest = 5;  // sets in one table: the models' four, and then those of sampling-time methods
  for (std::size_t first = 0, count = std::min<std::size_t>(4, names.size()); first < names.size();
       first += count, count = std::min(widest, names.size() - first)) {
    std::vector<std::string> head{""};
    for (std::size_t i = first; i < first + count; ++i) head.push_back(title(names[i]));
    Table table(head);
    for (const std::string& key : keys) {
      if (key == "class_frequency") continue;  // long: in evaluation.json
      std::vector<std::string> row{title(key)};
      for (std::size_t i = first; i < first + count; ++i) {
        const Json& set = evaluation["samples"][names[i]];
        row.push_back(set.contains(key) ? cell(set[key]) : "");
      }
      table.row(row);
    }
    out += (first ? "\n" : "") + table.text(markdown);
  }
  for (const auto& [section, values] : evaluation.items()) {
    if (section == "samples" || !values.is_object()) continue;
    Table part({title(section), ""});
    for (const auto& [key, value] : values.items())
      if (!value.is_array() || value.size() <= 12) part.row({title(key), cell(value)});
    out += "\n" + part.text(markdown);
  }
  return out;
}

}  // namespace costate::cli
