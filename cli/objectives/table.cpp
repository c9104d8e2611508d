#include "objectives/table.h"

#include <costate/tensor/error.h>

#include <cmath>
#include <cstdio>

#include "objectives/objectives.h"
#include "stages/evaluation.h"

namespace costate::cli {
namespace {

// The configuration that costs are shown for.
Config shown(const ObjectiveEntry& e) {
  Config c;
  c.finetune = standard_finetune(e.name);
  return c;
}

// Up to two digits behind the point; ~ for means, <= for bounds.
std::string rows(double v, ObjectiveCost::Kind kind) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", v);
  std::string out = text;
  while (out.back() == '0') out.pop_back();
  if (out.back() == '.') out.pop_back();
  using Kind = ObjectiveCost::Kind;
  return v == 0 || kind == Kind::exact ? out : (kind == Kind::mean ? "~" : "<=") + out;
}

std::string word(Optimum optimum) {
  return optimum == Optimum::tilted ? "tilted" : optimum == Optimum::given_start ? "tilted given x_0" : "other";
}

std::string landing(const ObjectiveEntry& e) {
  if (e.optimum == Optimum::other) return e.lands;
  return (e.optimum == Optimum::tilted ? "tilted law, " : "tilted law given x_0, ") + e.lands;
}

}  // namespace

std::string objectives_table(bool markdown) {
  Table table({"objective", "source", "needs grad r", "policy", "base", "by state", "by parameters", "rewards", "kept",
               "lands at"});
  for (const ObjectiveEntry& e : objectives()) {
    const ObjectiveCost cost = e.cost(shown(e));
    const auto cell = [&](double v) { return rows(v, cost.kind); };
    std::string source = e.source;
    if (source.starts_with("arXiv ")) source = source.substr(6);
    table.row({markdown ? "[" + e.name + "](objectives/" + e.name + ".md)" : e.name, source,
               e.needs_reward_gradient ? "yes" : "no", cell(cost.policy), cell(cost.base), cell(cost.state),
               cell(cost.parameters), cell(cost.rewards), cell(cost.stored), landing(e)});
  }
  return table.text(markdown);
}

Json objectives_json() {
  Json out = Json::object();
  for (const ObjectiveEntry& e : objectives()) {
    const ObjectiveCost cost = e.cost(shown(e));
    using Kind = ObjectiveCost::Kind;
    out[e.name] = {{"title", e.title},
                   {"source", e.source},
                   {"loop", std::string(name(e.loop))},
                   {"needs_reward_gradient", e.needs_reward_gradient},
                   {"needs_noise", true},  // controls are mean shifts in units of the noise: ControlProblem::check
                   {"optimum", word(e.optimum)},
                   {"lands", e.lands},
                   {"cost",
                    {{"policy", cost.policy},
                     {"base", cost.base},
                     {"state", cost.state},
                     {"parameters", cost.parameters},
                     {"rewards", cost.rewards},
                     {"reward_gradient", cost.reward_gradient},
                     {"stored", cost.stored},
                     {"kind", cost.kind == Kind::exact ? "exact" : cost.kind == Kind::mean ? "mean" : "most"},
                     {"base_before", cost.base_before},
                     {"rewards_before", cost.rewards_before}}}};
  }
  return out;
}

void objectives_command(const ObjectivesOptions& options, std::ostream& out) {
  require(!options.json || !options.markdown, "costate objectives: found --json and --markdown, expected one of them");
  if (options.json)
    out << objectives_json().dump(2) << "\n";
  else
    out << objectives_table(options.markdown);
  if (options.json || options.markdown) return;
  const Config c;
  out << "\nRows a trajectory and iteration with the sampler " << c.sampler.kind << ", " << c.sampler.steps
      << " steps, and defaults.\npolicy, base: predictions alone; by state, by parameters: with a derivative; kept: tensors of a "
         "sample's size;\n~: means over what iterations draw; <=: bounds. All need a sampler with noise. Sources are numbers of "
         "arXiv.\n";
}

}  // namespace costate::cli
