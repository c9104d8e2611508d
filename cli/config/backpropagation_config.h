// finetune.backpropagation: options of the objectives of this loop.
#pragma once
#include <cstdint>
#include <string>

namespace costate::cli {

struct BackpropagationConfig {
  std::string truncation = "full";
  std::int64_t last_steps = 1;
  double normal_mean = 0.84, normal_deviation = 0.1;
  std::int64_t renoisings = 0;
  double stop_from = 0.0, stop_to = 0.0;
  bool detached_inputs = false;
  std::int64_t trained_steps = 0;
  double kl_weight = 0.0;
  std::string loss = "reward";
  double margin = 0.0, target = 0.0;
  std::string adjoint = "store_all";
  std::int64_t segment = 0, slots = 0;
  std::string scratch;
  bool host_memory = false;
  bool operator==(const BackpropagationConfig&) const = default;
};

}  // namespace costate::cli
