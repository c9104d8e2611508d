// control: a problem of stochastic control with a known answer instead of a model of data.
#pragma once
#include <cstdint>
#include <string>

namespace costate::cli {

struct ControlConfig {
  std::string problem = "none";
  std::int64_t seed = 0, steps = 0, paths = 512;
  bool operator==(const ControlConfig&) const = default;
};

}  // namespace costate::cli
