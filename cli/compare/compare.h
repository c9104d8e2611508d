// `costate compare`: what runs are compared in, as text, tables and a page.
#pragma once
#include "compare/runs.h"
#include "report/html.h"

namespace costate::cli {

// One row a setting: mean +- standard error over its seeds.
std::string comparison_table(const Comparison& comparison);
// {"settings": [{"label", "seeds", "numbers": {key: {mean, standard_error, low, high, runs}}, "runs": [...]}], "left_out":
// [...]}, and with several rewards "cross_rewards": {"rewards": [names], "means": a row a setting, "notes": [...]}
Json to_json(const Comparison& comparison);
// One row a run.
std::string comparison_csv(const Comparison& comparison);
// The table, curves over fine-tuning, and frontiers, of what the runs have logged.
report::Report comparison_report(const Comparison& comparison);

// A curve over the seeds of a setting: mean and standard error (0 for one seed) of y at equal rows of x, as far as all
// seeds go; none without both columns. `stage`: rows of that stage only; "": all.
report::Series mean_curve(const ComparedGroup& group, const std::optional<CsvColumns> ComparedRun::*table,
                          const std::string& stage, const std::string& x, const std::string& y);

}  // namespace costate::cli
