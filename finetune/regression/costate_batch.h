// The trajectories that updates of a regression are computed from, with what is regressed on.
#pragma once
#include <costate/finetune/rollout.h>

#include <memory>
#include <vector>

namespace costate::finetune {

// A recorded pass of the tuned network, kept from sampling for the regression.
struct RecordedPass {
  std::unique_ptr<Tape> tape;
  std::vector<Var> watched;
  Var prediction;
};

struct CostateBatch {
  // States of all steps. Predictions (of the policy that made the paths) and base predictions are defined where the options
  // of the objective ask for them.
  Trajectories paths;
  std::vector<int> steps;             // that enter the loss, increasing
  std::vector<Tensor> costates;       // (K): of step k what x_k is regressed on, (rows, ...); undefined for the others
  std::vector<double> reward;         // (rows): without the multiplier; zeros on the meta device
  std::vector<std::uint8_t> valid{};  // as of Reward::Scores: rows with 0 have no part in any loss; empty: all have
  Tensor reward_gradient{};           // at x_K; undefined unless the last costate needs it
  // Costates of the reparametrisation trick: the vectors that its matrices multiply, (K + 1, rows, dim) each.
  Tensor own{}, later{};
  std::vector<RecordedPass> kept{};   // of (place in steps, chunk of rows)

  std::int64_t rows() const { return paths.rows(); }
  void visit_state(StateVisitor& v);  // of a batch that keeps no passes
};

}  // namespace costate::finetune
