// Objectives that regress the control on a gradient of the value.
#include <costate/finetune/adjoint_matching.h>

#include "build.h"
#include "objectives/objectives.h"

namespace costate::cli {
namespace {

std::unique_ptr<finetune::Objective> make_adjoint_matching(ObjectiveInputs in) {
  const finetune::ControlProblem& p = in.problem;
  auto trainer = std::make_unique<finetune::AdjointMatching>(p.base, std::move(in.tuned), p.chain, p.sample_shape, p.reward,
                                                             adjoint_matching_options(in.config), p.device);
  trainer->set_labels(p.labels);
  return trainer;
}

}  // namespace

std::vector<ObjectiveEntry> regression_objectives() {
  return {{.name = "adjoint_matching", .title = "Adjoint matching", .source = "arXiv 2409.08861", .make = make_adjoint_matching}};
}

}  // namespace costate::cli
