// finetune.policy_gradient: options of the objectives of this loop.
#pragma once
#include <cstdint>
#include <string>

namespace costate::cli {

struct PolicyGradientConfig {
  bool operator==(const PolicyGradientConfig&) const = default;
};

}  // namespace costate::cli
