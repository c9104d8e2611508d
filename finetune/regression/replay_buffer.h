// Trajectories that serve more than one update: those of the last collection, each batch of which is drawn `passes` times.
//
// Without weights the regression is on the law of the policy that made the paths: a step of policy iteration that ends when
// the buffer is made anew. With weights each path counts with its density under the present policy,
//   w = prod_k p_new/p_old (x_{k+1} | x_k),   log of a step: |e|^2/2 - |e + u_old - u_new|^2/2,
// divided by the batch's mean; their effective sample size says when the buffer has become useless.
#pragma once
#include <costate/finetune/regression/costate_batch.h>

#include <deque>
#include <functional>

namespace costate::finetune {

struct ReplayOptions {
  std::int64_t size = 0;     // trajectories kept, a multiple of the batch; 0: no replay
  std::int64_t passes = 2;   // updates from each batch of them
  bool weighted = false;     // by the density of a path under the present policy
  double least_ess = 0.3;    // weighted: the buffer is made anew when a batch's effective sample size a row falls below
};

class ReplayBuffer {
 public:
  ReplayBuffer(const ReplayOptions& options, std::int64_t batch, std::uint64_t seed);  // throws unless size = n batch

  bool empty() const { return order_.empty(); }
  std::int64_t batches() const { return count_; }  // of a full buffer
  // Takes a new collection of `batches()` batches.
  void fill(std::vector<CostateBatch> collection);
  // The next batch, in an order drawn anew for every pass; the buffer is empty after the last one.
  CostateBatch& draw();
  // Forgets what is left.
  void clear() { order_.clear(); }
  std::int64_t collections() const { return collections_; }
  void visit_state(StateVisitor& v);

 private:
  ReplayOptions options_;
  std::int64_t count_;
  std::uint64_t seed_;
  std::vector<CostateBatch> batches_;
  std::deque<std::size_t> order_;
  std::int64_t collections_ = 0;
};

// log of prod_k p_new/p_old along the paths, (rows), from the predictions of the policy that made them and those of
// `tuned`, evaluated once at every state with noise. Zeros on the meta device.
std::vector<double> log_policy_ratio(const ControlProblem& problem, const Trajectories& paths, const sde::Field& tuned);

}  // namespace costate::finetune
