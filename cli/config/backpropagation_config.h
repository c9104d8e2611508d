// finetune.backpropagation: options of the objectives of this loop.
#pragma once
#include <cstdint>
#include <string>

namespace costate::cli {

struct BackpropagationConfig {
  bool operator==(const BackpropagationConfig&) const = default;
};

}  // namespace costate::cli
