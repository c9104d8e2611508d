#include <costate/finetune/evaluate/estimate.h>

#include <algorithm>
#include <cmath>

#include "compare/compare.h"
#include "run/metrics.h"
#include "stages/evaluation.h"

namespace costate::cli {
namespace {

using report::Best;
using report::Cell;
using report::Figure;
using report::Plot;
using report::Series;

std::vector<Measure> known_measures(const Comparison& c) {
  std::vector<Measure> out;
  for (const Measure& m : measures())
    if (std::any_of(c.groups.begin(), c.groups.end(), [&](const ComparedGroup& g) { return spread(g, m.key).has_value(); }))
      out.push_back(m);
  return out;
}

// Counts in full, the rest with a few digits.
std::string shown(double v) {
  return v == std::floor(v) && std::abs(v) < 1e15 && std::abs(v) >= 1000 ? number_text(v) : short_number(v);
}
std::string shown(const Spread& s) {
  // Costs are often the same for every seed.
  return shown(s.mean) +
         (std::isfinite(s.standard_error) && s.standard_error > 0 ? " ± " + short_number(s.standard_error) : "");
}

Json spread_json(const Spread& s) {
  return {{"mean", json_number(s.mean)},
          {"standard_error", json_number(s.standard_error)},
          {"low", json_number(s.low)},
          {"high", json_number(s.high)},
          {"runs", s.runs}};
}

std::string csv_text(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char ch : text) out += ch == '"' ? "\"\"" : std::string(1, ch);
  return out + "\"";
}

report::Table table_of(const Comparison& c) {
  report::Table t{.caption = "Means over seeds, ± one standard error of the mean; the tuned model sampled by its chain."};
  t.columns = {{"setting"}, {"seeds"}};
  const std::vector<Measure> known = known_measures(c);
  for (const Measure& m : known)
    t.columns.push_back({m.title, m.better == Measure::Better::higher  ? Best::highest
                                  : m.better == Measure::Better::lower ? Best::lowest
                                                                       : Best::none});
  for (const ComparedGroup& g : c.groups) {
    std::vector<Cell> row{g.label, Cell(static_cast<double>(g.runs.size()))};
    for (const Measure& m : known) {
      const std::optional<Spread> s = spread(g, m.key);
      row.push_back(s ? Cell(s->mean, shown(*s)) : Cell());
    }
    t.rows.push_back(std::move(row));
  }
  return t;
}

constexpr const char* cross_caption =
    "What fine-tuning on one reward does to the others: mean rewards of the samples that each run has kept of its tuned model "
    "(samples/tuned_sde.npy), means over seeds. Learned rewards are those of the first run that was trained on them.";

report::Table cross_table_of(const Comparison& c) {
  report::Table t{.caption = cross_caption};
  t.columns = {{"setting"}};
  for (const std::string& name : c.cross.rewards) t.columns.push_back({name, Best::highest});
  for (std::size_t i = 0; i < c.groups.size(); ++i) {
    std::vector<Cell> row{c.groups[i].label};
    for (const std::optional<Spread>& s : c.cross.cells[i]) row.push_back(s ? Cell(s->mean, shown(*s)) : Cell());
    t.rows.push_back(std::move(row));
  }
  return t;
}

std::string plain(std::string text) {
  if (const std::size_t at = text.find("±"); at != std::string::npos) text.replace(at, std::string("±").size(), "+-");
  return text;
}

// One marker a run and, where checkpoints were evaluated, a line through their means.
Plot frontier(const Comparison& c, std::string title, std::string x_label, std::string y_label, const std::string& x,
              const std::string& y) {
  Plot plot{.title = std::move(title), .x_label = std::move(x_label), .y_label = std::move(y_label)};
  for (const ComparedGroup& g : c.groups) {
    Series points{.name = g.label, .line = false};
    for (const ComparedRun& r : g.runs)
      if (const auto at = r.numbers.find(x), of = r.numbers.find(y); at != r.numbers.end() && of != r.numbers.end())
        points.xs.push_back(at->second), points.ys.push_back(of->second);
    // One series a setting, so that colours stay: the line first, then its ends as a cloud with breaks between.
    const Series line = mean_curve(g, &ComparedRun::curve, "", x, y);
    if (!line.xs.empty()) {
      Series both{.name = g.label, .xs = line.xs, .ys = line.ys};
      for (std::size_t i = 0; i < points.xs.size(); ++i) {
        both.xs.push_back(NAN), both.ys.push_back(NAN);
        both.xs.push_back(points.xs[i]), both.ys.push_back(points.ys[i]);
      }
      points = std::move(both);
    }
    plot.series.push_back(std::move(points));
  }
  return plot;
}

// Best of n of the base, if all runs have one reward: that of the first run, from which the others differ by sampling.
void add_best_of_n(Plot& plot, const Comparison& c) {
  const auto reward_of = [](const ComparedRun& run) {
    Json reward = run.setting["reward"];
    reward.erase("multiplier");
    return reward;
  };
  const ComparedRun& first = c.groups[0].runs[0];
  for (const ComparedGroup& g : c.groups)  // with another reward it would be another frontier
    if (g.runs[0].best_of_n.empty() || reward_of(g.runs[0]) != reward_of(first)) return;
  double farthest = 0;  // one point beyond the runs, so that they fill the plot
  for (const ComparedGroup& g : c.groups)
    if (const std::optional<Spread> kl = spread(g, "path_kl")) farthest = std::max(farthest, kl->high);
  Series line{.name = "best of n of the base"};
  for (const auto& [kl, reward] : first.best_of_n) {
    line.xs.push_back(kl), line.ys.push_back(reward);
    if (kl > farthest) break;
  }
  plot.series.push_back(std::move(line));
}

bool empty(const Plot& p) {
  return std::all_of(p.series.begin(), p.series.end(), [](const Series& s) { return s.xs.empty(); });
}

Plot curves(const Comparison& c, const std::optional<CsvColumns> ComparedRun::*table, const std::string& stage,
            std::string title, const std::string& x_label, const std::string& y_label, const std::string& x,
            const std::string& y) {
  Plot plot{.title = std::move(title), .x_label = x_label, .y_label = y_label};
  for (const ComparedGroup& g : c.groups) {
    Series s = mean_curve(g, table, stage, x, y);
    for (double& e : s.errors) e *= 2;
    plot.series.push_back(std::move(s));
  }
  return plot;
}

}  // namespace

report::Series mean_curve(const ComparedGroup& group, const std::optional<CsvColumns> ComparedRun::*table,
                          const std::string& stage, const std::string& x, const std::string& y) {
  Series out{.name = group.label, .band = true};
  std::vector<std::vector<std::pair<double, double>>> lines;
  for (const ComparedRun& run : group.runs) {
    const std::optional<CsvColumns>& t = run.*table;
    if (!t || !t->has(x) || !t->has(y) || (!stage.empty() && !t->has("stage"))) return out;
    std::vector<std::pair<double, double>>& line = lines.emplace_back();
    for (std::size_t i = 0; i < t->rows(); ++i) {
      if (!stage.empty() && t->text("stage", i) != stage) continue;
      const double at = t->number(x, i), value = t->number(y, i);
      if (std::isfinite(at) && std::isfinite(value)) line.emplace_back(at, value);
    }
  }
  std::size_t rows = lines.empty() ? 0 : lines[0].size();
  for (const auto& line : lines) rows = std::min(rows, line.size());
  for (std::size_t i = 0; i < rows; ++i) {
    std::vector<double> xs, ys;
    for (const auto& line : lines) xs.push_back(line[i].first), ys.push_back(line[i].second);
    const finetune::Estimate mean = finetune::mean_estimate(ys);
    out.xs.push_back(finetune::mean_estimate(xs).value), out.ys.push_back(mean.value);
    out.errors.push_back(lines.size() > 1 ? mean.standard_error : 0.0);
  }
  return out;
}

std::string comparison_table(const Comparison& c) {
  const std::vector<Measure> known = known_measures(c);
  std::vector<std::string> head{"setting", "seeds"};
  for (const Measure& m : known) head.push_back(m.title);
  Table table(head);
  for (const ComparedGroup& g : c.groups) {
    std::vector<std::string> row{g.label, std::to_string(g.runs.size())};
    for (const Measure& m : known) {
      const std::optional<Spread> s = spread(g, m.key);
      row.push_back(s ? plain(shown(*s)) : "-");
    }
    table.row(row);
  }
  if (c.cross.rewards.empty()) return table.text(false);
  head = {"samples under"};
  head.insert(head.end(), c.cross.rewards.begin(), c.cross.rewards.end());
  Table cross(head);
  for (std::size_t i = 0; i < c.groups.size(); ++i) {
    std::vector<std::string> row{c.groups[i].label};
    for (const std::optional<Spread>& s : c.cross.cells[i]) row.push_back(s ? plain(shown(*s)) : "-");
    cross.row(row);
  }
  std::string out = table.text(false) + "\n" + cross.text(false);
  for (const std::string& note : c.cross.notes) out += note + "\n";
  return out;
}

Json to_json(const Comparison& c) {
  Json out = {{"settings", Json::array()}, {"left_out", c.left_out}, {"ignored", c.ignored}};
  if (!c.cross.rewards.empty()) {
    Json& cross = out["cross_rewards"] = {{"rewards", c.cross.rewards}, {"means", Json::array()}, {"notes", c.cross.notes}};
    for (const auto& cells : c.cross.cells) {
      Json row = Json::array();
      for (const std::optional<Spread>& s : cells) row.push_back(s ? spread_json(*s) : Json(nullptr));
      cross["means"].push_back(std::move(row));
    }
  }
  for (const ComparedGroup& g : c.groups) {
    Json group{{"label", g.label},
               {"objective", g.runs[0].objective},
               {"seeds", Json::array()},
               {"numbers", Json::object()},
               {"runs", Json::array()}};
    for (const ComparedRun& r : g.runs) {
      group["seeds"].push_back(r.seed);
      Json run{{"path", r.path}, {"name", r.name}, {"seed", r.seed}};
      for (const auto& [key, value] : r.numbers) run["numbers"][key] = json_number(value);
      group["runs"].push_back(std::move(run));
    }
    for (const Measure& m : measures())
      if (const std::optional<Spread> s = spread(g, m.key)) group["numbers"][m.key] = spread_json(*s);
    out["settings"].push_back(std::move(group));
  }
  return out;
}

std::string comparison_csv(const Comparison& c) {
  std::string out = "setting,objective,path,name,seed";
  for (const Measure& m : measures()) out += "," + m.key;
  out += "\n";
  for (const ComparedGroup& g : c.groups)
    for (const ComparedRun& r : g.runs) {
      out += csv_text(g.label) + "," + csv_text(r.objective) + "," + csv_text(r.path) + "," + csv_text(r.name) + "," +
             std::to_string(r.seed);
      for (const Measure& m : measures()) {
        const auto at = r.numbers.find(m.key);
        out += "," + (at == r.numbers.end() ? "" : number_text(at->second));
      }
      out += "\n";
    }
  return out;
}

report::Report comparison_report(const Comparison& c) {
  report::Report page;
  page.title = "Fine-tuning runs compared";
  std::size_t runs = 0;
  for (const ComparedGroup& g : c.groups) runs += g.runs.size();
  page.summary = "Each row is one setting; its runs differ in nothing but the seed.";
  page.facts = {{"settings", std::to_string(c.groups.size())},
                {"runs", std::to_string(runs)},
                {"left out", std::to_string(c.left_out.size())}};
  report::Section results{"Results", {table_of(c)}};
  results.blocks.push_back(
      "J = lambda E[reward] - path KL is what fine-tuning maximises, and log Z is its least upper bound: log Z - J is 0 for "
      "the "
      "optimal control alone. The ESS share is the effective share of tuned samples as weighted samples of the tilted law. "
      "Frechet and W1 are distances to base samples reweighted by exp(lambda reward), the law that fine-tuning aims at. Costs "
      "are those of fine-tuning alone. docs/evaluation.md says how each number is estimated and how it is biased.");
  for (const std::string& s : c.left_out) results.blocks.push_back(s + ".");
  if (!c.ignored.empty()) {
    std::string keys;
    for (const std::string& key : c.ignored) keys += (keys.empty() ? "" : ", ") + key;
    results.blocks.push_back("Runs of one setting may differ in " + keys + " here as well.");
  }
  if (!c.cross.rewards.empty()) results.blocks.push_back(cross_table_of(c));
  for (const std::string& s : c.cross.notes) results.blocks.push_back(s + ".");
  page.sections.push_back(std::move(results));

  const auto add = [](report::Section& section, Plot plot, const std::string& caption) {
    if (!empty(plot)) section.blocks.push_back(Figure{std::move(plot), caption});
  };
  report::Section progress{"Fine-tuning", {}};
  const std::string band = " Means over seeds; bands of two standard errors of the mean where there are several.";
  const std::pair<const char*, const char*> costs[] = {{"reward_queries", "reward queries"},
                                                       {"evaluations", "network evaluations (rows)"}};
  const std::pair<const char*, const char*> values[] = {{"reward", "reward"},
                                                        {"control_cost", "path KL"},
                                                        {"control_error", "relative control error"}};
  for (const auto& [y, y_title] : values)
    for (const auto& [x, x_title] : costs)
      add(progress,
          curves(c, &ComparedRun::metrics, "finetune", std::string(y_title) + " against " + x_title, x_title, y_title, x, y),
          "Of the trajectories that are trained on." + band);
  if (!progress.blocks.empty()) page.sections.push_back(std::move(progress));

  // Of samples that training has not seen, and with the gold reward, which training never looks at.
  report::Section checkpoints{"Checkpoints", {}};
  const std::pair<const char*, const char*> evaluated[] = {
      {"reward", "reward"}, {"gold_reward", "gold reward"}, {"path_kl", "path KL"}, {"vendi", "Vendi score"},
      {"frechet", "Frechet distance to the reweighted base"}};
  for (const auto& [y, y_title] : evaluated)
    for (const auto& [x, x_title] : costs)
      add(checkpoints,
          curves(c, &ComparedRun::curve, "", std::string(y_title) + " of checkpoints against " + x_title, x_title, y_title, x,
                 y),
          "Of evaluated checkpoints, all with the same noise." + band);
  if (!checkpoints.blocks.empty()) page.sections.push_back(std::move(checkpoints));

  report::Section frontiers{"Frontiers", {}};
  const std::string points = " One marker a run; a line through its evaluated checkpoints, if there are any.";
  Plot reward = frontier(c, "Reward against path KL", "path KL", "reward", "path_kl", "reward");
  if (!empty(reward)) add_best_of_n(reward, c);
  add(frontiers, std::move(reward),
      "The higher at equal KL, the better." + points +
          " The best of 1, 2, 4, ... samples of the base has the divergence log n - (n - 1)/n from it, without training.");
  add(frontiers, frontier(c, "Reward against diversity", "Vendi score", "reward", "vendi", "reward"),
      "Diversity as the effective number of different samples." + points);
  add(frontiers, frontier(c, "Gold against proxy", "reward that was trained on", "gold reward", "reward", "gold_reward"),
      "A gold reward that falls while the proxy rises is over-optimisation." + points);
  add(frontiers, frontier(c, "Gold against path KL", "path KL", "gold reward", "path_kl", "gold_reward"),
      "The same against divergence." + points);
  if (!frontiers.blocks.empty()) page.sections.push_back(std::move(frontiers));
  return page;
}

}  // namespace costate::cli
