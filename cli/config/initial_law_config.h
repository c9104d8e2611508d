// finetune.initial_law: the law of x_0 that a control starts from.
#pragma once
#include <cstdint>
#include <string>

namespace costate::cli {

struct InitialLawConfig {
  std::string kind = "noise";
  std::string regression = "gamma";
  std::int64_t hidden = 64, depth = 2, iterations = 400, batch = 256, rollouts = 4;
  double lr = 3e-3;
  std::int64_t particles = 64;
  std::int64_t moves = 50;
  double move_size = 0.5;
  std::int64_t control_steps = 16, control_iterations = 300;
  bool operator==(const InitialLawConfig&) const = default;
};

}  // namespace costate::cli
