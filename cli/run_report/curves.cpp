#include <costate/tensor/error.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "run_report/report.h"

namespace costate::cli {
namespace {

template <class T>
void add_once(std::vector<T>& list, const T& value) {
  if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
}

// Means over `each` consecutive points.
report::Series thinned(const report::Series& s, std::size_t each) {
  report::Series out{.name = s.name};
  for (std::size_t begin = 0; begin < s.xs.size(); begin += each) {
    const std::size_t end = std::min(begin + each, s.xs.size());
    double x = 0, y = 0;
    for (std::size_t i = begin; i < end; ++i) x += s.xs[i], y += s.ys[i];
    const auto n = static_cast<double>(end - begin);
    out.xs.push_back(x / n), out.ys.push_back(y / n);
  }
  return out;
}

// Whether a logarithmic axis shows more: all positive, over more than two decades.
bool wants_log(const std::vector<double>& ys) {
  double low = std::numeric_limits<double>::infinity(), high = 0;
  for (const double y : ys)
    if (std::isfinite(y)) low = std::min(low, y), high = std::max(high, y);
  return low > 0 && high > 100 * low;
}

}  // namespace

std::vector<MetricsRow> read_metrics(std::string_view text, std::string_view what) {
  std::vector<MetricsRow> rows;
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1, ++number;
    if (line.empty()) continue;
    const std::string where = sentence({what, ", line ", number});
    Json json;
    try {
      json = parse_json(line, where);
    } catch (const Error& e) {
      fail(Fault::data, {e.what()});
    }
    if (!json.is_object() || !json.contains("stage") || !json.at("stage").is_string() || !json.contains("step") ||
        !json.at("step").is_number())
      fail(Fault::data, {where, ": found ", description(json), ", expected an object with stage, step and numbers"});
    MetricsRow row{json.at("stage").get<std::string>(), json.at("step").get<double>(), {}};
    for (const auto& [name, v] : json.items()) {
      if (name == "stage" || name == "step") continue;
      if (!v.is_number() && !v.is_null())
        fail(Fault::data, {where, ": ", name, " is ", description(v), ", expected a number or null"});
      row.values.emplace_back(name, v.is_null() ? std::numeric_limits<double>::quiet_NaN() : v.get<double>());
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

report::Section curves_section(const std::vector<MetricsRow>& rows) {
  report::Section section{.heading = "Curves"};
  std::vector<std::string> stages;
  for (const MetricsRow& r : rows) add_once(stages, r.stage);
  for (const std::string& stage : stages) {
    std::vector<std::string> columns;
    for (const MetricsRow& r : rows)
      if (r.stage == stage)
        for (const auto& [name, v] : r.values) add_once(columns, name);
    report::Table single{.caption = "Of " + stage + ", known once.", .columns = {{"number"}, {"update"}, {"value"}}};
    for (const std::string& column : columns) {
      report::Series s;
      for (const MetricsRow& r : rows)
        for (const auto& [name, v] : r.values)
          if (r.stage == stage && name == column) s.xs.push_back(r.step), s.ys.push_back(v);
      if (s.xs.size() == 1) {
        single.rows.push_back({column, report::Cell(s.xs[0]), report::Cell(s.ys[0])});
        continue;
      }
      const std::size_t each = (s.xs.size() + most_curve_points - 1) / most_curve_points;
      const std::string rows_text = std::to_string(s.xs.size()) + " rows of metrics.csv" +
                                    (each > 1 ? ", means over " + std::to_string(each) + " each." : ".");
      if (each > 1) s = thinned(s, each);
      report::Figure figure{
          {.title = stage + ": " + column, .x_label = "update", .y_label = column, .log_y = wants_log(s.ys), .height = 280},
          rows_text};
      figure.plot.series.push_back(std::move(s));
      section.blocks.emplace_back(std::move(figure));
    }
    if (!single.rows.empty()) section.blocks.emplace_back(std::move(single));
  }
  return section;
}

}  // namespace costate::cli
