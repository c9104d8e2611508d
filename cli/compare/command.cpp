// costate compare: reads run directories, prints a table, writes a page.
#include <costate/tensor/error.h>

#include <filesystem>

#include "commands.h"
#include "compare/compare.h"
#include "run/directory.h"

namespace costate::cli {

std::vector<std::string> compare_command(const CompareOptions& options, std::ostream& out) {
  namespace fs = std::filesystem;
  if (!options.out.empty() && fs::exists(options.out)) {
    require(fs::is_directory(options.out), "compare: --out '", options.out, "' is a file, expected a directory or a new name");
    require(fs::is_empty(options.out) || fs::exists(options.out + "/compare.json"), "compare: --out '", options.out,
            "' holds something else than a comparison; give another name");
    require(fs::is_empty(options.out) || options.overwrite, "compare: --out '", options.out,
            "' holds a comparison already; give another name, or --overwrite to replace it");
  }
  const Comparison comparison = compare_runs(options.runs, options.ignore);
  if (!options.out.empty()) {
    const RunDirectory folder(options.out);
    folder.write("compare.csv", comparison_csv(comparison));
    folder.write("report.html", report::html(comparison_report(comparison)));
    folder.write("compare.json", to_json(comparison).dump(2) + "\n");
  }
  if (options.json)
    out << to_json(comparison).dump(2) << "\n";
  else
    out << comparison_table(comparison) << (options.out.empty() ? "" : "\nwritten to " + options.out + "\n");
  return comparison.left_out;
}

}  // namespace costate::cli
