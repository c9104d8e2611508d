#include <algorithm>
#include <cmath>
#include <cstdio>

#include "bytes.h"
#include "stages/evaluation.h"
#include "study/study.h"

namespace costate::cli {
namespace {

std::string short_number(double v) {
  if (!std::isfinite(v)) return "-";
  char text[32];
  std::snprintf(text, sizeof text, v == 0 ? "%.0f" : "%.2e", v);
  return text;
}
std::string milliseconds(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, seconds < 0.1 ? "%.2f" : "%.0f", 1e3 * seconds);
  return text;
}

// What people ask about one row, as text.
std::vector<std::string> head(bool planning) {
  if (planning) return {"network", "process", "steps", "method", "peak bytes", "evaluations", "pullbacks", "steps again", "FLOPs"};
  return {"network", "process", "steps", "method", "predicted peak", "measured peak", "evaluations", "pullbacks", "steps again",
          "ms", "error", "bits"};
}
std::vector<std::string> cells(const StudyRow& r, bool planning) {
  std::vector<std::string> c{r.network, r.process, std::to_string(r.steps), r.method};
  if (!r.refusal.empty()) {
    c.resize(head(planning).size(), "-");
    return c;
  }
  c.push_back(std::to_string(r.planned.peak.total));
  if (!planning) c.push_back(std::to_string(r.measured.peak.total));
  const StudyRow::Numbers& n = planning ? r.planned : r.measured;
  for (const std::int64_t v : {n.work.evaluations, n.work.pullbacks, n.work.recomputed}) c.push_back(std::to_string(v));
  if (planning) {
    c.push_back(flops_text(r.planned.flops));
  } else {
    c.push_back(milliseconds(r.seconds));
    c.push_back(short_number(r.error));
    c.push_back(r.exact ? "same" : "other");
  }
  return c;
}

// Sentences of refusal, each once: they name the number of steps and do not depend on it.
std::vector<std::string> refusals(const std::vector<StudyRow>& rows) {
  std::vector<std::string> sentences;
  for (const StudyRow& r : rows)
    if (!r.refusal.empty() && r.steps == rows.front().steps && std::find(sentences.begin(), sentences.end(), r.refusal) == sentences.end())
      sentences.push_back(r.refusal);
  return sentences;
}

template <class Value>
std::vector<std::string> distinct(const std::vector<StudyRow>& rows, const Value& value) {
  std::vector<std::string> all;
  for (const StudyRow& r : rows)
    if (const std::string v = value(r); std::find(all.begin(), all.end(), v) == all.end()) all.push_back(v);
  return all;
}

// One curve a method over the rows that `wanted` lets through.
template <class Wanted, class X, class Y>
report::Plot curves(const std::vector<StudyRow>& rows, std::string title, std::string x_label, std::string y_label,
                    const Wanted& wanted, const X& x, const Y& y) {
  report::Plot plot{.title = std::move(title), .x_label = std::move(x_label), .y_label = std::move(y_label), .log_x = true,
                    .log_y = true};
  for (const std::string& method : distinct(rows, [](const StudyRow& r) { return r.method; })) {
    report::Series s{.name = method};
    for (const StudyRow& r : rows)
      if (r.method == method && r.refusal.empty() && wanted(r)) s.xs.push_back(x(r)), s.ys.push_back(y(r));
    if (!s.xs.empty()) plot.series.push_back(std::move(s));
  }
  return plot;
}

report::Table table_of(const std::vector<StudyRow>& rows, const std::string& network, const std::string& process) {
  using report::Best;
  report::Table t{.caption = "Everything measured for " + network + " on " + process + ".",
                  .columns = {{"steps"}, {"method"}, {"predicted peak, bytes"}, {"measured peak, bytes", Best::none},
                              {"evaluations"}, {"pullbacks"}, {"steps again"}, {"on disk, bytes"}, {"FLOPs"}, {"ms"},
                              {"gradient error"}, {"bits of store_all"}}};
  for (const StudyRow& r : rows) {
    if (r.network != network || r.process != process || !r.refusal.empty()) continue;
    const auto whole = [](std::int64_t v) { return report::Cell(static_cast<double>(v), std::to_string(v)); };
    t.rows.push_back({whole(r.steps), r.method, whole(r.planned.peak.total), whole(r.measured.peak.total),
                      whole(r.measured.work.evaluations), whole(r.measured.work.pullbacks), whole(r.measured.work.recomputed),
                      whole(r.measured.work.offloaded_bytes),
                      report::Cell(static_cast<double>(r.measured.flops), flops_text(r.measured.flops)),
                      report::Cell(1e3 * r.seconds, milliseconds(r.seconds)), report::Cell(r.error, short_number(r.error)),
                      r.exact ? "same" : "other"});
  }
  return t;
}

}  // namespace

std::string study_table(const std::vector<StudyRow>& rows, bool planning) {
  Table table(head(planning));
  for (const StudyRow& r : rows)
    if (r.refusal.empty()) table.row(cells(r, planning));
  std::string out = table.text(false);
  const std::vector<std::string> left_out = refusals(rows);
  if (!left_out.empty()) out += "\nleft out:\n";
  for (const std::string& s : left_out) out += "  " + s + "\n";
  return out;
}

Json to_json(const std::vector<StudyRow>& rows, bool planning) {
  const auto numbers = [](const StudyRow::Numbers& n) {
    Json by_tag = Json::object();
    for (int i = 0; i < memory::tag_count; ++i)
      if (n.peak.by_tag[i]) by_tag[std::string(memory::name(memory::Tag(i)))] = n.peak.by_tag[i];
    return Json{{"peak_bytes", n.peak.total},       {"peak_by_tag", by_tag},           {"evaluations", n.work.evaluations},
                {"pullbacks", n.work.pullbacks},    {"steps_again", n.work.recomputed}, {"offloaded_bytes", n.work.offloaded_bytes},
                {"flops", n.flops}};
  };
  Json out = Json::array();
  for (const StudyRow& r : rows) {
    Json row{{"network", r.network}, {"process", r.process}, {"steps", r.steps}, {"method", r.method}};
    if (!r.refusal.empty()) {
      row["refusal"] = r.refusal;
    } else {
      row["predicted"] = numbers(r.planned);
      if (!planning) {
        row["measured"] = numbers(r.measured);
        row["seconds"] = r.seconds;
        row["gradient_error"] = json_number(r.error);
        row["bits_of_store_all"] = r.exact;
      }
    }
    out.push_back(row);
  }
  return out;
}

std::string study_csv(const std::vector<StudyRow>& rows, bool planning) {
  std::string out;
  const auto line = [&](const std::vector<std::string>& values) {
    for (std::size_t i = 0; i < values.size(); ++i)
      out += (i ? "," : "") + (values[i].find(',') == std::string::npos ? values[i] : "\"" + values[i] + "\"");
    out += "\n";
  };
  line(head(planning));
  for (const StudyRow& r : rows)
    if (r.refusal.empty()) line(cells(r, planning));
  return out;
}

report::Report study_report(const StudyConfig& study, const std::vector<StudyRow>& rows) {
  report::Report page;
  page.title = "Adjoint methods: " + study.name;
  page.summary =
      "Every way to differentiate through the same sampled trajectories, with exact bytes and evaluations, predicted before "
      "anything ran. The cost is |x_K|^2/2; gradients are with respect to x_0 and to all parameters.";
  std::int64_t run = 0, broken = 0;
  for (const StudyRow& r : rows) run += r.refusal.empty(), broken += !broken_promise(r).empty();
  page.facts = {{"cells measured", std::to_string(run)},
                {"predicted peaks and counts that were measured to the byte", std::to_string(run - broken)},
                {"rounds of each time", std::to_string(study.rounds)},
                {"seed", std::to_string(study.seed)}};
  page.sections.push_back(
      {"How to read this",
       {"store_all keeps the state of every step and recomputes nothing; segments keeps every s-th state; binomial keeps a fixed "
        "number of states and takes the fewest steps possible with them; binomial_online does so without knowing how many steps "
        "will come; two_level keeps every s-th state on disk and plans binomially between them. All of these have the same bits.",
        "reversible undoes the steps of a reversible solver: no states, and the same gradient up to rounding. backsolve solves "
        "state and costate backwards as continuous equations: no states, but another gradient, as far off as the steps are "
        "coarse and the backward equation is unstable. interpolated takes the states from storage and solves the costate "
        "alone. forward carries one tangent for each number of the parameters.",
        "Peak memory counts the parameters, the kept states, and the graph of the one step that is being pulled back; the "
        "network's activations within that step are the floor that no plan for the steps can lower (recomputing blocks can). "
        "Gradient errors are relative to the stored gradient in double precision of the same steps and the same noise: single "
        "precision is the floor of the exact methods."}});
  for (const std::string& network : distinct(rows, [](const StudyRow& r) { return r.network; })) {
    report::Section section{network, {}};
    for (const std::string& process : distinct(rows, [](const StudyRow& r) { return r.process; })) {
      const auto here = [&](const StudyRow& r) { return r.network == network && r.process == process; };
      const auto exact = [&](const StudyRow& r) { return here(r) && std::isfinite(r.error) && r.error > 0; };
      const auto steps = [](const StudyRow& r) { return static_cast<double>(r.steps); };
      const auto bytes = [](const StudyRow& r) { return static_cast<double>(r.measured.peak.total); };
      if (std::none_of(rows.begin(), rows.end(), [&](const StudyRow& r) { return here(r) && r.refusal.empty(); })) continue;
      section.blocks.push_back(report::Figure{
          curves(rows, network + ", " + process + ": memory against time", "seconds a gradient", "peak bytes", here,
                 [](const StudyRow& r) { return r.seconds; }, bytes),
          "Each curve is a method, each point a number of steps; below and to the left is better."});
      section.blocks.push_back(report::Figure{
          curves(rows, network + ", " + process + ": memory against steps", "steps K", "peak bytes", here, steps, bytes),
          "store_all grows with K, segments with its square root, the others hardly."});
      if (study.reference)
        section.blocks.push_back(report::Figure{
            curves(rows, network + ", " + process + ": error against steps", "steps K", "relative error of the gradient", exact,
                   steps, [](const StudyRow& r) { return r.error; }),
            "Exact methods lie on the floor of single precision; continuous adjoints come down to it as steps become finer."});
      section.blocks.push_back(table_of(rows, network, process));
    }
    page.sections.push_back(std::move(section));
  }
  report::Section left_out{"Left out", {}};
  for (const std::string& s : refusals(rows)) left_out.blocks.push_back(s);
  if (!left_out.blocks.empty()) page.sections.push_back(std::move(left_out));
  return page;
}

}  // namespace costate::cli
