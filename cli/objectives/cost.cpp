#include "objectives/cost.h"

#include <costate/finetune/problem/control_benchmark.h>

#include "build.h"
#include "control/control.h"

namespace costate::cli {

sde::Chain tuned_chain(const Config& c) {
  if (!is_control(c)) return make_chain(c);
  return finetune::control_benchmark(c.control.problem, {.steps = static_cast<int>(c.control.steps),
                                                         .seed = static_cast<std::uint64_t>(c.control.seed)})
      .chain;
}

std::vector<int> noisy_steps(const sde::Chain& chain) {
  std::vector<int> steps;
  for (int k = 0; k < chain.steps(); ++k)
    if (chain.std[static_cast<std::size_t>(k)] > 0) steps.push_back(k);
  return steps;
}

ObjectiveCost with_guidance(ObjectiveCost cost, const Config& c) {
  if (c.finetune.guidance == 0) return cost;
  for (double* rows : {&cost.policy, &cost.base, &cost.state, &cost.parameters}) *rows *= 2;
  return cost;
}

}  // namespace costate::cli
