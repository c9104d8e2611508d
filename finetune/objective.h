// A fine-tuning objective in training: trajectories, a loss, updates.
#pragma once
#include <costate/nn/network.h>

#include <string>
#include <string_view>
#include <vector>

namespace costate::finetune {

class StateVisitor;

// Named numbers of one iteration, in a fixed order. Names are string literals.
class Metrics {
 public:
  struct Entry {
    std::string_view name;
    double value;
  };
  void set(std::string_view name, double value);
  double operator[](std::string_view name) const;  // throws Error(argument) for a name that is not there
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
};

class Objective {
 public:
  virtual ~Objective() = default;

  // One iteration. Every objective reports `loss`, `gradient_norm`, `lr`, `reward` (mean over trajectories, without the
  // multiplier) and `control_cost` (the path KL divergence of the policy that made the trajectories from the base; NaN where
  // the objective does not evaluate the base), and whatever else its header names. Throws Error(Fault::numerical) when a
  // number that decides the update is not finite; the parameters are then as before.
  virtual Metrics step() = 0;

  virtual const nn::Network& network() const = 0;
  // The averaged weights, where they are averaged.
  virtual nn::Network average() const = 0;

  // Everything that the next iterations depend on but the problem and the options (training_state.h): another objective of the
  // same problem and options that is given it back goes on with the same bits.
  virtual void visit_state(StateVisitor& v) = 0;

  // What could not be done as the options ask, to the same numbers: a sentence, from the iteration on in which it showed; "": nothing.
  virtual std::string remark() const { return {}; }
};

}  // namespace costate::finetune
