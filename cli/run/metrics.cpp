#include "run/metrics.h"

#include <costate/finetune/data/file.h>
#include <costate/tensor/error.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>

namespace costate::cli {
namespace {

// A line for every line: with one more field.
std::string with_empty_column(const std::string& table) {
  std::string out;
  for (const char c : table) {
    if (c == '\n') out += ',';
    out += c;
  }
  return out;
}

// Without the columns at the end of the table that no row has a value in: the first row that has one brings it back.
std::string without_empty_columns(std::string table) {
  const auto last_column_is_empty = [](std::string_view text) {
    const std::string_view head = text.substr(0, text.find('\n'));
    if (std::count(head.begin(), head.end(), ',') < 2) return false;  // stage and step stay
    for (std::size_t begin = head.size() + 1; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      if (text[end - 1] != ',') return false;
      begin = end + 1;
    }
    return true;
  };
  while (last_column_is_empty(table)) {
    std::string less;
    for (std::size_t begin = 0; begin < table.size();) {
      const std::size_t end = std::min(table.find('\n', begin), table.size());
      less += table.substr(begin, table.rfind(',', end - 1) - begin) + "\n";
      begin = end + 1;
    }
    table = std::move(less);
  }
  return table;
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// What is forgotten of a file whose rows begin with one of the prefixes: all of them, or those of a step beyond this one,
// which follows the prefix.
struct Forgotten {
  std::string prefix;
  std::int64_t kept_until = -1;
  bool holds(std::string_view line) const {
    if (!line.starts_with(prefix)) return false;
    std::int64_t step = 0;
    std::from_chars(line.data() + prefix.size(), line.data() + line.size(), step);
    return step > kept_until;
  }
};

// The lines of a file, "" when it does not exist, but for those.
std::string kept_lines(const std::string& path, const std::vector<Forgotten>& forgotten) {
  if (!std::filesystem::exists(path)) return "";
  const auto bytes = data::read_file(path);
  const std::string_view text = data::as_text(bytes);
  std::string out;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    if (std::none_of(forgotten.begin(), forgotten.end(), [&](const Forgotten& f) { return f.holds(line); }))
      out += std::string(line) + "\n";
    begin = end + 1;
  }
  return out;
}

}  // namespace

std::string number_text(double v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v > 0 ? "inf" : "-inf";
  char text[64];
  return {text, std::to_chars(text, text + sizeof text, v).ptr};
}

std::string short_number(double v) {
  char text[64];
  std::snprintf(text, sizeof text, "%.4g", v);
  return text;
}

Metrics::Metrics(std::string folder, const std::vector<std::string>& dropped_stages, bool tensorboard,
                 const std::map<std::string, std::int64_t>& kept_until)
    : folder_(std::move(folder)), tensorboard_(tensorboard && !folder_.empty()), kept_until_(kept_until) {
  std::vector<Forgotten> json, table;
  const auto forget = [&](const std::string& stage, std::int64_t until) {
    json.push_back({"{\"stage\":\"" + stage + "\",\"step\":", until}), table.push_back({stage + ",", until});
  };
  for (const std::string& s : dropped_stages) {
    if (!folder_.empty()) tensorboard::empty_events(folder_ + "/tensorboard/" + s);
    forget(s, -1);
  }
  for (const auto& [stage, step] : kept_until) forget(stage, step);
  if (!folder_.empty()) {
    jsonl_ = kept_lines(folder_ + "/metrics.jsonl", json);
    csv_ = without_empty_columns(kept_lines(folder_ + "/metrics.csv", table));
    timing_ = kept_lines(folder_ + "/timing.csv", table);
  }
  if (csv_.empty()) csv_ = "stage,step\n";
  const std::string head = csv_.substr(0, csv_.find('\n'));
  for (std::size_t begin = head.find(',', head.find(',') + 1); begin < head.size();) {
    const std::size_t end = std::min(head.find(',', begin + 1), head.size());
    columns_.push_back(head.substr(begin + 1, end - begin - 1));
    begin = end;
  }
  if (timing_.empty()) timing_ = "stage,step,seconds\n";
}

void Metrics::row(std::string_view stage, std::int64_t step, const Values& values, double seconds) {
  if (folder_.empty()) return;
  const std::string head = std::string(stage) + "," + std::to_string(step);
  std::string json = "{\"stage\":\"" + std::string(stage) + "\",\"step\":" + std::to_string(step);
  for (const auto& [name, v] : values)
    json += ",\"" + std::string(name) + "\":" + (std::isfinite(v) ? number_text(v) : "null");
  jsonl_ += json + "}\n";
  for (const auto& [name, v] : values) {
    if (std::find(columns_.begin(), columns_.end(), name) != columns_.end()) continue;
    columns_.emplace_back(name);
    csv_ = with_empty_column(csv_).insert(csv_.find('\n') + 1, name);
  }
  csv_ += head;
  for (const std::string& c : columns_) {
    csv_ += ",";
    for (const auto& [name, v] : values)
      if (name == c) csv_ += number_text(v);
  }
  csv_ += "\n";
  timing_ += head + "," + short_number(seconds) + "\n";
  if (tensorboard_) {
    tensorboard::Values scalars;
    for (const auto& [name, v] : values) scalars.emplace_back(name, v);
    events(stage).write(step, scalars);
  }
  flush(false);
}

void Metrics::picture(std::string_view stage, std::int64_t step, const std::string& name, const Raster& picture) {
  if (tensorboard_) events(stage).write(step, {{name, picture}});
}
void Metrics::distribution(std::string_view stage, std::int64_t step, const std::string& name, std::span<const double> values) {
  if (tensorboard_) events(stage).write(step, {{name, tensorboard::histogram(values)}});
}

tensorboard::Writer& Metrics::events(std::string_view stage) {
  if (const auto found = events_.find(stage); found != events_.end()) return found->second;
  const std::string name(stage);
  const auto kept = kept_until_.find(name);
  const std::int64_t first = kept == kept_until_.end() ? 0 : kept->second + 1;
  return events_.emplace(name, tensorboard::Writer(folder_ + "/tensorboard/" + name, first)).first->second;
}

void Metrics::flush(bool force) {
  if (folder_.empty() || (!force && now() - last_flush_ < 5)) return;
  last_flush_ = now();
  data::write_file_atomically(folder_ + "/metrics.jsonl", jsonl_);
  data::write_file_atomically(folder_ + "/metrics.csv", csv_);
  data::write_file_atomically(folder_ + "/timing.csv", timing_);
}

}  // namespace costate::cli
