// costate check-grad: reads a run's configuration, compares gradients, prints, and writes no file.
#include <costate/sde/solver/solver.h>
#include <costate/tensor/error.h>

#include <charconv>
#include <cmath>

#include "bytes.h"
#include "check_grad/problem.h"
#include "run/metrics.h"
#include "stages/evaluation.h"

namespace costate::cli {
namespace {

// "chain", "heun", "reversible_heun:0.5".
StudyProcess process_of(const std::string& text) {
  const std::size_t colon = text.find(':');
  StudyProcess p{text.substr(0, colon)};
  if (colon != std::string::npos) {
    const char *first = text.data() + colon + 1, *last = text.data() + text.size();
    const auto [end, fault] = std::from_chars(first, last, p.sigma);
    require(fault == std::errc() && end == last && std::isfinite(p.sigma) && p.sigma >= 0, "--processes: found '", text,
            "', expected a number of at least 0 behind the colon, the sigma of the noise sigma (1 - t)");
  }
  if (p.name != "chain") try {
      sde::solver(p.name);
    } catch (const Error& e) {
      fail(e.fault(), {"--processes: ", e.what(), " (or chain, the section sampler)"});
    }
  require(p.name != "chain" || colon == std::string::npos, "--processes: found '", text,
          "', but a chain's noise is that of the section sampler");
  return p;
}

std::string tolerance_text(const CheckRow& r) {
  if (r.verdict == CheckRow::Verdict::reported) return "-";
  return r.tolerance == 0 ? "0" : short_number(r.tolerance);
}

std::string table_text(const std::vector<CheckRow>& rows) {
  Table table({"process", "gradient of", "against", "distance", "tolerance", "verdict", "peak memory", "evaluations", "time"});
  std::string refused;
  for (const CheckRow& r : rows) {
    if (r.verdict == CheckRow::Verdict::refused) {
      refused += "  " + r.process + ": " + r.refusal + "\n";
      continue;
    }
    std::vector<std::string> cells{r.process,         r.method,        r.against, short_number(r.distance),
                                   tolerance_text(r), verdict_text(r), "",        "", ""};
    if (r.seconds > 0)
      cells[6] = bytes_text(r.peak_bytes), cells[7] = std::to_string(r.work.evaluations),
      cells[8] = short_number(1e3 * r.seconds) + " ms";
    table.row(std::move(cells));
  }
  return table.text(false) + (refused.empty() ? "" : "\nrefused:\n" + refused);
}

Json row_json(const CheckRow& r) {
  Json row{{"process", r.process}, {"gradient_of", r.method}, {"against", r.against}, {"verdict", verdict_text(r)}};
  if (r.verdict == CheckRow::Verdict::refused) {
    row["refusal"] = r.refusal;
    return row;
  }
  row["distance"] = json_number(r.distance);
  row["tolerance"] = json_number(r.tolerance);  // null: not judged
  for (const auto& [reverse, difference] : r.directions)
    row["directions"].push_back({{"gradient", json_number(reverse)}, {"difference", json_number(difference)}});
  if (r.seconds > 0)
    row.update({{"peak_bytes", r.peak_bytes},
                {"evaluations", r.work.evaluations},
                {"pullbacks", r.work.pullbacks},
                {"steps_again", r.work.recomputed},
                {"seconds", r.seconds}});
  return row;
}

}  // namespace

void check_grad_command(const CheckGradOptions& options, std::ostream& out) {
  std::vector<StudyProcess> processes;
  for (const std::string& p : options.processes) processes.push_back(process_of(p));
  const Config config = read_config(options.config, options.settings).config;
  use_threads(config.threads);
  const ArithmeticScope arithmetic(config);
  const RunProblem run(config, options);
  Progress progress(options.quiet);
  std::vector<CheckRow> rows;
  std::vector<std::string> notes = run.notes();
  for (StudyProcess p : processes) {
    std::string why = run.undetermined(p);
    if (!why.empty() && p.name != "chain") {
      p.inner = true;
      notes.push_back(p.label() + ": not at both ends of [0, 1], because " + why);
      why = run.undetermined(p);
    }
    if (!why.empty()) fail(Fault::argument, {"check-grad: ", p.label(), ": ", why});
    progress.begin("check-grad, " + p.label(), 3 + static_cast<std::int64_t>(sde::adjoint_methods().size()));
    for (CheckRow& row : check_methods(run.along(p), run.settings(), progress)) rows.push_back(std::move(row));
    progress.end(first_failure(rows).empty() ? "holds" : "fails");
  }
  const std::string failure = first_failure(rows);
  if (options.json) {
    Json result{{"problem", run.description()}, {"notes", notes}, {"holds", failure.empty()}, {"rows", Json::array()}};
    for (const CheckRow& r : rows) result["rows"].push_back(row_json(r));
    out << result.dump(2) << "\n";
  } else {
    out << run.description() << "\n";
    for (const std::string& note : notes) out << "note: " << note << "\n";
    out << "\n" << table_text(rows);
  }
  if (!failure.empty()) fail(Fault::numerical, {failure});
}

}  // namespace costate::cli
