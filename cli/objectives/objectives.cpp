#include "objectives/objectives.h"

#include <costate/tensor/error.h>

namespace costate::cli {

const std::vector<ObjectiveEntry>& objectives() {
  static const std::vector<ObjectiveEntry> all = [] {
    std::vector<ObjectiveEntry> list = regression_objectives();
    for (auto more : {policy_gradient_objectives(), backpropagation_objectives()})
      list.insert(list.end(), more.begin(), more.end());
    return list;
  }();
  return all;
}

std::vector<std::string> objective_names() {
  std::vector<std::string> names;
  for (const ObjectiveEntry& e : objectives()) names.push_back(e.name);
  return names;
}

std::string_view name(Loop loop) {
  return loop == Loop::regression ? "regression" : loop == Loop::policy_gradient ? "policy_gradient" : "backpropagation";
}

const ObjectiveEntry& objective(const std::string& name) {
  for (const ObjectiveEntry& e : objectives())
    if (e.name == name) return e;
  fail(Fault::argument, {"finetune.objective: found '", name, "'; `costate config-reference` lists the objectives"});
}

FinetuneConfig standard_finetune(const std::string& name) {
  FinetuneConfig f = Config().finetune;
  f.objective = name;
  objective(name).preset(f);
  return f;
}

bool reads_features(const Config& c) {
  return objective(c.finetune.objective).loop == Loop::policy_gradient && c.finetune.policy_gradient.critic.input == "features";
}

void check_objective(const Config& c) {
  const Loop loop = objective(c.finetune.objective).loop;
  const FinetuneConfig standard = standard_finetune(c.finetune.objective);
  const auto only = [&](Loop whose, bool given, const char* section) {
    require(loop == whose || !given, section, ": the objective '", c.finetune.objective, "' does not look at these keys");
  };
  only(Loop::regression, !(c.finetune.regression == standard.regression), "finetune.regression");
  only(Loop::policy_gradient, !(c.finetune.policy_gradient == standard.policy_gradient), "finetune.policy_gradient");
  only(Loop::backpropagation, !(c.finetune.backpropagation == standard.backpropagation), "finetune.backpropagation");
  if (loop == Loop::regression) check_regression(c);
  if (loop == Loop::policy_gradient) check_policy_gradient(c);
  only(Loop::backpropagation, !(c.finetune.initial_law == standard.initial_law), "finetune.initial_law");
  if (loop == Loop::backpropagation) check_backpropagation(c, standard);
}

}  // namespace costate::cli
