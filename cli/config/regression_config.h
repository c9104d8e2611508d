// finetune.regression: options of the objectives of this loop.
#pragma once
#include <cstdint>
#include <string>

namespace costate::cli {

struct RegressionConfig {
  bool operator==(const RegressionConfig&) const = default;
};

}  // namespace costate::cli
