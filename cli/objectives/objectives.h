// The registry of objectives: the names that finetune.objective takes, the defaults that go with each, and how each is made.
// There are three loops; an objective is one of them with certain options.
#pragma once
#include <costate/finetune/control_problem.h>
#include <costate/finetune/objective.h>

#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "objectives/cost.h"

namespace costate::cli {

struct ObjectiveInputs {
  const Config& config;
  finetune::ControlProblem problem;
  nn::Network base, tuned;  // problem.base is the field of `base`
  // (rows, ...) -> (rows, width): the last hidden layer of the reward's classifier; null unless reads_features(config).
  std::function<Tensor(const Tensor& x)> reward_features{};
};
bool reads_features(const Config& config);

enum class Loop { regression, policy_gradient, backpropagation };

// Whether the objective's optimum is the law P exp(lambda r - sum f)/Z of paths.
enum class Optimum : unsigned char {
  tilted,      // with the law of x_0 tilted as well: the law of samples is p_base exp(lambda r)/Z on every chain
  given_start, // given x_0: that is the law of samples on chains that forget x_0 (memoryless ones)
  other,
};

struct ObjectiveEntry {
  std::string name;    // adjoint_matching
  std::string title;   // Adjoint matching
  std::string source;  // arXiv 2409.08861
  Loop loop = Loop::regression;
  // As preset:
  bool needs_reward_gradient = true;
  Optimum optimum = Optimum::given_start;
  std::string lands{};  // what stands between it and that law; for others, where it goes instead
  // Changes the defaults of FinetuneConfig to those of this objective; keys of the file come after it.
  void (*preset)(FinetuneConfig&) = [](FinetuneConfig&) {};
  std::unique_ptr<finetune::Objective> (*make)(ObjectiveInputs inputs) = nullptr;
  // Iterations after which what an iteration does, and costs, repeats: what a plan has to look at. Null: every one is alike.
  std::int64_t (*period)(const FinetuneConfig&) = nullptr;
  ObjectiveCost (*cost)(const Config& config) = nullptr;
};
std::string_view name(Loop loop);

// One file a loop.
std::vector<ObjectiveEntry> regression_objectives();
// Keys of this loop that the objective, which belongs to it, does not look at are errors.
void check_regression(const Config& config);
std::vector<ObjectiveEntry> policy_gradient_objectives();
std::vector<ObjectiveEntry> backpropagation_objectives();

// All of them, in the order in which they are shown.
const std::vector<ObjectiveEntry>& objectives();
std::vector<std::string> objective_names();
// Throws Error(argument) for an unknown name.
const ObjectiveEntry& objective(const std::string& name);
// The standard configuration of an objective.
FinetuneConfig standard_finetune(const std::string& objective);

// Keys of a loop that `finetune.objective` does not belong to, or that this objective does not look at, are errors.
void check_objective(const Config& config);
// The part of one loop.
void check_policy_gradient(const Config& config);
// Of this loop's objectives, beside their defaults; called by check_objective.
void check_backpropagation(const Config& config, const FinetuneConfig& standard);

}  // namespace costate::cli
