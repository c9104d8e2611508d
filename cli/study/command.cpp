// costate study: reads, predicts, runs, writes.
#include <costate/tensor/file.h>
#include <costate/tensor/parallel.h>

#include <chrono>

#include "commands.h"
#include "run/directory.h"
#include "run/lock.h"
#include "study/study.h"

namespace costate::cli {
namespace {

// A file's name from a title: "UNet, heun: memory against time" -> "unet_heun_memory_against_time".
std::string file_name(const std::string& title) {
  std::string name;
  for (const char c : title) {
    const bool kept = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (kept)
      name += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    else if (!name.empty() && name.back() != '_')
      name += '_';
  }
  return name;
}

}  // namespace

void study_command(const StudyOptions& options, std::ostream& out) {
  StudyConfig study = read_study(options.config, options.settings);
  use_threads(study.threads);
  Progress progress(options.quiet);
  if (options.plan) {
    const std::vector<StudyRow> rows = run_study(study, true, progress);
    if (options.json)
      out << to_json(rows, true).dump(2) << "\n";
    else
      out << study_table(rows, true);
    return;
  }
  const RunDirectory directory(study.out);
  RunLock lock(study.out);
  directory.create(options.overwrite);
  lock.take();
  directory.write("config.resolved.json", to_json(study).dump(2) + "\n");
  const auto start = std::chrono::steady_clock::now();
  const std::vector<StudyRow> rows = run_study(study, false, progress);
  report::Report page = study_report(study, rows);
  page.facts.push_back({"threads", std::to_string(threads())});
  page.facts.push_back({"version", COSTATE_VERSION});
  page.facts.push_back(
      {"time", duration_text(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count())});
  directory.write("study.json", to_json(rows, false).dump(2) + "\n");
  directory.write("study.csv", study_csv(rows, false));
  directory.write("report.html", report::html(page));
  for (const report::Section& s : page.sections)
    for (const report::Block& b : s.blocks)
      if (const auto* figure = std::get_if<report::Figure>(&b))
        directory.write("figures/" + file_name(figure->plot.title) + ".svg", report::svg_plot(figure->plot));
  if (options.json)
    out << to_json(rows, false).dump(2) << "\n";
  else
    out << study_table(rows, false) << "\nwritten to " << directory.path() << "\n";
  for (const StudyRow& r : rows)
    if (const std::string broken = broken_promise(r); !broken.empty()) fail(Fault::numerical, {broken});
}

}  // namespace costate::cli
