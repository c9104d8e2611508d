// What fine-tuning raises: the sections `reward` and `gold`.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace costate::cli {

using Matrix = std::vector<std::vector<double>>;

struct MixtureConfig {
  Matrix means;
  std::vector<double> variances, weights;
};

struct BumpConfig {
  double amount = 0.0, width = 1.0;
  std::vector<double> centre;
};

struct EnsembleConfig {
  std::int64_t members = 1;
  std::string rule = "lower_bound";
  double coefficient = 1.0;
};

struct FDivergenceConfig {
  std::string kind = "none";
  double alpha = 0.5, temperature = 0.0;
  std::int64_t samples = 4096;
  double floor = 1e-6, ceiling = 1e6;
};

struct RewardConfig {
  std::string kind = "none";
  double multiplier = 1.0;
  std::vector<double> coefficients, centre;
  Matrix precision;
  MixtureConfig numerator, denominator;
  std::vector<std::int64_t> targets;
  double scale = 1.0;
  std::string axis = "left_right";
  double smoothing = 0.01;
  std::int64_t quality = 95;
  std::vector<std::string> command;
  bool command_gradient = false;
  double command_timeout = 60.0;
  std::string on_failure = "stop";
  std::vector<double> clip;
  BumpConfig bump;
  EnsembleConfig ensemble;
  FDivergenceConfig f_divergence;
};

}  // namespace costate::cli
