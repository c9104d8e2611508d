// Objectives of the loop `backpropagation`.
#include "objectives/objectives.h"

namespace costate::cli {

std::vector<ObjectiveEntry> backpropagation_objectives() { return {}; }

}  // namespace costate::cli
