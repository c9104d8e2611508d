// Runs on the control benchmark: a base drift, costs and the optimal control are given; what is tuned is a network for the
// control, and what is reported is its error.
#pragma once
#include "stages/stages.h"

namespace costate::cli {

inline bool is_control(const Config& config) { return config.control.problem != "none"; }

void control_finetune_stage(Session& session);
void control_evaluate_stage(Session& session);

}  // namespace costate::cli
