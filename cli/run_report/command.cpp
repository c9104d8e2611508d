#include "commands.h"
#include "run_report/report.h"

namespace costate::cli {

void report_command(const std::string& directory, const std::string& file, std::ostream& out) {
  const RunDirectory run(directory);
  const std::string path = file.empty() ? run.file("report.html") : file;
  report::save_html(path, run_report(run));
  out << "written to " << path << "\n";
}

}  // namespace costate::cli
