// One page about one run: what came out, how it got there, what it cost and what it was told.
#pragma once
#include <string>
#include <vector>

#include "config/json.h"
#include "report/html.h"
#include "run/directory.h"

namespace costate::cli {

// A row of metrics.jsonl; numbers that were not finite are NaN.
struct MetricsRow {
  std::string stage;
  double step = 0;
  std::vector<std::pair<std::string, double>> values;
};
// Of the text of the file, called `what`. Throws Fault::data naming the line that is none of a run's.
std::vector<MetricsRow> read_metrics(std::string_view text, std::string_view what);

// A curve a stage and column. Beyond most_curve_points rows it shows means over as many consecutive rows as are needed.
inline constexpr std::size_t most_curve_points = 1000;
report::Section curves_section(const std::vector<MetricsRow>& rows);
// evaluation.json: a table of the sets of samples, a table or plots of everything else in it.
report::Section evaluation_section(const Json& evaluation);
// The pictures of samples/, as they are.
report::Section pictures_section(const RunDirectory& directory);
// run.json: time, operations, planned and measured peaks, and what the peaks hold.
report::Section cost_section(const Json& record);
// config.resolved.json: the keys that differ from their defaults, and all of them.
report::Section config_section(const Json& config);

// Of what is there: a run that has not been evaluated has no evaluation. Throws Fault::argument unless this is a run directory,
// Fault::data naming the file that is damaged.
report::Report run_report(const RunDirectory& directory);

}  // namespace costate::cli
