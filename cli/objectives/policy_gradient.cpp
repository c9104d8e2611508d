// Objectives of the loop `policy_gradient`.
#include "objectives/objectives.h"

namespace costate::cli {

std::vector<ObjectiveEntry> policy_gradient_objectives() { return {}; }

}  // namespace costate::cli
