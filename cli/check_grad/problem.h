// A run's configuration as problems whose gradients can be checked.
#pragma once
#include "check_grad/check.h"
#include "commands.h"
#include "study/problem.h"

namespace costate::cli {

// What the configuration, and the run directory where there is one, say: read once for all processes.
class RunProblem {
 public:
  // Throws as the run itself would; Error(argument) naming an option, Error(io) where --model tuned has no checkpoint.
  RunProblem(const Config& config, const CheckGradOptions& options);

  // Along the chain, or a solver on the path's equation. The problem must not outlive this object.
  CheckedProblem along(const StudyProcess& process) const;
  // What is said when this process is run forwards, if it cannot be: a prediction of x_1, say, does not determine the drift
  // at t = 1; "" if it can.
  std::string undetermined(const StudyProcess& process) const;
  CheckSettings settings() const;
  std::string description() const;
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  // In one element type.
  struct Side {
    nn::Network network, base;  // base undefined: no control cost
    std::optional<finetune::Reward> reward;
  };
  // `tuned` as fine-tuning differentiates it: guided, and with adapters as its only parameters where there are any.
  Side side(const nn::Network& tuned, const nn::Network& base, bool control_cost) const;
  const Side& of(DType dtype) const { return dtype == DType::f64 ? wide_ : narrow_; }
  CheckedPath path(const StudyProcess& process, const std::vector<Tensor>& parameters) const;

  Config config_;
  std::int64_t steps_, rows_;
  int directions_;
  std::uint64_t seed_;
  Shape item_;
  Tensor labels_;
  Side narrow_, wide_;
  std::string weights_;
  std::vector<std::string> notes_;
};

}  // namespace costate::cli
