// The paths that a policy gradient learns from, with everything about them that stays as it is when the policy moves on.
#pragma once
#include <costate/finetune/policy_gradient/advantage.h>
#include <costate/finetune/rollout.h>

namespace costate::finetune {

struct PathBatch {
  Trajectories paths;
  int first_step = 0;
  double noise_scale = 1;  // the noise of the steps is this times the chain's
  std::vector<std::uint8_t> valid;     // (paths): 0: its reward is not finite, no part in anything
  std::int64_t valid_paths = 0;
  std::vector<std::int32_t> labels;    // (paths) or empty
  double mean_reward = 0;              // of valid paths, without the multiplier
  std::vector<double> reward;          // (paths): lambda r(x_K), 0 where not valid
  StepTable state_cost;                // (K)(paths): f_k(x_k), 0 once a path has stopped; or empty
  StepTable control_cost, log_ratio;   // (K)(paths), of the policy that made them to the base; empty without the base
  std::vector<int> trained;            // steps that enter the loss, each for `step_weight` of them
  double step_weight = 1;
  StepTable returns;                   // (K)(paths): what a critic learns
  StepTable values;                    // (K + 1)(paths): what it said when the paths were made; the reward where they have
                                       // stopped
  StepTable gain, offset;              // (K)(paths): the parts of its skip parametrisation
  std::vector<Tensor> critic_input;    // (K): (paths, features)
  StepTable coefficient;               // (K)(paths): what multiplies the log-likelihood of a step
  std::int64_t policy = 0;             // updates the policy had had

  int steps() const { return paths.steps(); }
  std::int64_t rows() const { return paths.rows(); }
  // Whether step k of a path is learned from: a path has no part in anything once it has stopped.
  bool takes(int k, std::size_t path) const { return valid[path] != 0 && paths.active(k, static_cast<std::int64_t>(path)); }
  // lambda r - sum f, and the log-ratio of the whole path at the time it was made.
  std::vector<double> path_score() const;
  std::vector<double> path_log_ratio() const;
  void visit_state(StateVisitor& v);
};

struct BatchOptions {
  std::int64_t rows = 256, group_size = 1;
  std::int64_t micro_batch = 0;  // paths at a time, whole groups, which ranks share (distributed/communicator.h); 0: all
  bool shared_noise = false;  // one x_0 a group
  bool siblings = false;      // x_{first_step} of a group's paths: its parent's sample, noised again
  int first_step = 0;
  double noise_scale = 1;
  bool base = true;           // evaluate the base
};

// Paths of `policy`, their rewards and likelihoods. The members of a group have one label. Noise is that of `key`.
// Cost a path: K - first_step policy rows, as many base rows where asked (steps with noise only), one reward; siblings K/group
// policy rows more. Every rank gets all paths. Throws Error(numerical) when no reward is finite.
PathBatch collect(const sde::Field& policy, const ControlProblem& problem, const BatchOptions& options,
                  const sde::NoiseKey& key);

// Which paths have a finite, valid reward, and their rewards; throws Error(numerical) when none has.
void take_rewards(PathBatch& batch, const Reward::Scores& scores, double multiplier);

// Rows of `x`, each `times` times in a row.
Tensor repeat_rows(const Tensor& x, std::int64_t times);
// alpha(t_step) x + beta(t_step) e of every row, the law of x_step given its end: e by counter (key, Stream::coupling).
Tensor noised_again(const sde::Chain& chain, int step, const Tensor& x, const sde::NoiseKey& key);
// Ends of paths of the policy alone: nothing else is kept.
Tensor terminal_samples(const sde::Field& policy, const ControlProblem& problem, const Tensor& start, int first_step,
                        const Tensor& labels, const sde::NoiseKey& key);
// The noise of step k as it entered row `row`, without the chain's std: written to `out` (1, ...).
void row_noise(const PathBatch& batch, int k, std::int64_t row, const Tensor& out);

}  // namespace costate::finetune
