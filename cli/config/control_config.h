// control: a problem of stochastic control with a known answer instead of a model of data.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace costate::cli {

struct ControlConfig {
  std::string problem = "none";
  std::int64_t seed = 0, steps = 0;
  std::vector<std::int64_t> hidden{256, 128, 64};
  std::string activation = "relu";
  std::int64_t time_frequencies = 0, state_powers = 1;
  bool products = false, terminal_gradient = false;
  std::int64_t paths = 512;
  bool operator==(const ControlConfig&) const = default;
};

}  // namespace costate::cli
