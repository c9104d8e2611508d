// Objectives that weight the likelihood of trajectories: the reward may be a black box. One iteration: paths of the policy;
// one or several updates of
//   sum over paths and steps of (coefficient) (log-likelihood of the step, or a function of its ratio), surrogate.h,
// where the coefficient is an advantage (advantage.h: DDPO, DPOK, Flow-GRPO, Score-as-Action, TDPO, HRF, REINFORCE) or the
// derivative of a loss of the path's likelihood (path_losses.h: cross entropy, log variance, variance, moment, trajectory
// balance). Nothing is differentiated through the chain or the reward.
//
// With l_k the log-ratio of step k to the base, c_k = |u_k|^2/2 its conditional mean and w the weight of the divergence, the
// gradient of J = E[lambda r - sum f] - w KL is exactly either of
//   in_return            E sum_k grad log p_k (lambda r - sum_{j >= k} (f_j + w l_j)),
//   in_return_and_loss   E sum_k grad log p_k (lambda r - sum_{j >= k} (f_j + w c_j)) - w E sum_k grad c_k  (less variance).
// in_loss leaves the sum of the return out (DPOK, Flow-GRPO): its stationary point is not the optimum of J, but the control
// u_k = (std_k/w) E grad W_{k+1} with W the expected reward of the tuned policy itself; the two agree for linear rewards.
//
// Cost of a trajectory and iteration, K steps of which N with noise are trained, E = epochs:
//   policy rows    K in sampling; E N recorded (differentiated by parameters) in updates; replay: min(replay, iteration) E N;
//                  losses of paths: N more for every update after the first, and in every one on paths of earlier iterations
//   base rows      those of the K steps that have noise, where any divergence, or a loss of paths, is asked for; else 0
//   rewards        1; critic.skip: 1 + the steps the critic is asked at
//   critic rows    value: N, td: all steps with noise; and recorded E N, or critic.updates x critic.batch an iteration; reset:
//                  critic.batch more an iteration
//   stored         K + 1 states, and predictions of the N (and of the base); times replay
//   windows        K becomes K - i with siblings, and K/group_size policy rows are added; dynamic choice: every
//                  window.every iterations probes (K + sum over parts of (K - first step of the part)) rows
// Paths of problems that stop are learned from at the steps that they take, and are sampled to the end: their rows in updates
// are fewer than these, which a plan counts. A plan counts iterations after critic.warmup, with a full replay.
// No state vjps; the reward's gradient is never asked for. In the first critic.warmup iterations the policy learns nothing
// (loss, gradient_norm and lr are reported as 0); a plan counts them as others.
#pragma once
#include <costate/finetune/learner.h>
#include <costate/finetune/objective.h>
#include <costate/finetune/policy_gradient/batch.h>
#include <costate/finetune/policy_gradient/critic.h>
#include <costate/finetune/policy_gradient/path_losses.h>
#include <costate/finetune/policy_gradient/surrogate.h>
#include <costate/finetune/policy_gradient/window.h>

#include <deque>
#include <memory>
#include <optional>

namespace costate::finetune {

struct PolicyGradientOptions {
  std::int64_t batch = 256;  // trajectories an iteration
  // Trajectories at a time, whole groups, in sampling and, so many as these have trained steps, in updates; 0: all. They are
  // what ranks share (distributed/communicator.h): the law of the result is the same, its memory too.
  std::int64_t micro_batch = 0;
  std::uint64_t seed = 0;

  enum class Loss : std::uint8_t {
    score_function, clipped_ratio, clamped_ratio,                     // steps, by advantages
    cross_entropy, log_variance, variance, moment, trajectory_balance  // whole paths
  } loss = Loss::clipped_ratio;

  // Of steps.
  double ratio_clip = 0.2;      // of the ratio of summed log-likelihoods
  AdvantageOptions advantage{};  // its group_size is that of sampling too: groups share a label
  std::int64_t label_buffer = 32, label_minimum = 16;  // of LabelStatistics
  enum class Divergence : std::uint8_t { none, in_return, in_loss, in_return_and_loss } divergence = Divergence::in_return;
  double divergence_weight = 1;
  SurrogateOptions::Divergence divergence_form = SurrogateOptions::Divergence::exact;  // in_loss
  WindowOptions window{};
  CriticOptions critic{};                          // baselines value and td
  std::function<Tensor(const Tensor& x)> features{};  // what the critic sees of x (rows, ...): (rows, width); null: x itself

  // Of paths.
  enum class LogZ : std::uint8_t {
    learned,  // moment, trajectory balance: a parameter with AdamW of its own
    batch,    // its estimate from the batch (trajectory balance: the mean of G; others: log mean e^G)
    running,  // cross entropy, variance: an average over iterations of the estimates of Z
  } log_z = LogZ::batch;
  double log_z_lr = 0.1, log_z_decay = 0.99;
  double noise_scale = 1;  // of the policy that makes the paths; another than 1 for log variance, variance, moment and
                           // trajectory balance, which know no sampling law
  // Of both.
  bool shared_noise = false;  // one x_0 a group; log variance and trajectory balance are then about the means of groups
  int epochs = 1, minibatches = 1;
  enum class Update : std::uint8_t {
    iteration,  // an update is about all trained steps of its paths
    timestep,   // an update is about one step of each path, in an order of each path's own
  } update = Update::iteration;
  int train_steps = 0;  // drawn anew each iteration from those of the window; 0: all
  int replay = 1;       // paths of this many iterations, the last one included, are learned from

  LearnerOptions learner{};
};

class PolicyGradient final : public Objective {
 public:
  // `tuned` starts as a copy of the base's network. Throws Error(argument) when the options do not fit each other or the
  // problem; `name` is the objective's in errors.
  PolicyGradient(std::string name, ControlProblem problem, nn::Network tuned, const PolicyGradientOptions& options);

  // Reports besides, where they apply: `invalid` (share of paths without a finite reward), `clipped` (share of ratios outside
  // the band), `advantage` (root mean square), `critic_loss`, `dormant` (share of neurons), `first_step` (of the window),
  // `log_z`, `ess` (effective share of the importance weights e^G, 1 at the optimum). control_cost is NaN where the base is
  // not evaluated.
  Metrics step() override;

  const nn::Network& network() const override { return learner_.network(); }
  nn::Network& network() { return learner_.network(); }
  nn::Network average() const override { return learner_.average(); }
  void visit_state(StateVisitor& v) override;
  std::int64_t iteration() const { return iteration_; }
  const ControlProblem& problem() const { return problem_; }
  const Critic* critic() const { return critic_ ? &*critic_ : nullptr; }
  double log_z() const;

  // The paths of the next iteration with their coefficients, and the gradient of one update on all of them: what step()
  // does with epochs = minibatches = 1, but for the update.
  PathBatch sample();
  Gradients gradient(const PathBatch& batch);

 private:
  // What the updates of an iteration add up to.
  struct Tally {
    double loss = 0, gradient_norm = 0, lr = 0, critic_loss = 0;
    std::int64_t updates = 0, critic_updates = 0, entries = 0;
    double dormant = 0;
    SurrogateSums sums{};
  };
  bool of_paths() const { return options_.loss >= PolicyGradientOptions::Loss::cross_entropy; }
  bool uses_critic() const { return critic_.has_value(); }
  void check() const;
  int choose_first_step();
  int best_part() const;
  std::vector<int> draw_steps(int first) const;
  void ask_critic(PathBatch& batch);  // values, and what they are functions of
  void weigh(PathBatch& batch);  // coefficients from advantages
  // Coefficients from a loss of paths, for the listed ones.
  PathLoss weigh_paths(std::span<PathBatch* const> batches, std::span<const Entry> paths) const;
  SurrogateOptions surrogate() const;
  CriticRows critic_rows(std::span<const PathBatch* const> batches, std::span<const Entry> entries,
                         CriticTargets& targets) const;
  std::vector<Entry> random_entries(std::span<const PathBatch* const> batches, std::int64_t count, std::uint64_t draw) const;
  // Of the surrogate at all entries, which ranks share.
  Gradients gradient_of(std::span<const PathBatch* const> batches, std::span<const Entry> entries, SurrogateSums& sums) const;
  void update(std::span<PathBatch* const> batches, std::span<const Entry> paths, std::span<const Entry> entries, Tally& tally);
  // The critic's updates that do not go with the policy's, and its resets.
  void learn_values(std::span<PathBatch* const> batches, Tally& tally);
  Metrics report(const PathBatch& newest, const Tally& tally);
  std::vector<Entry> entries_of(std::span<PathBatch* const> batches, std::span<const Entry> paths) const;

  std::string name_;
  ControlProblem problem_;
  PolicyGradientOptions options_;
  std::vector<int> controlled_;
  Learner learner_;
  std::optional<Critic> critic_;
  LabelStatistics labels_;
  std::deque<PathBatch> replay_;  // newest last
  Tensor log_z_;                  // scalar, learned
  nn::AdamW log_z_optimiser_;
  double running_log_z_ = 0;
  bool running_ = false;
  std::int64_t iteration_ = 0;
  int part_ = 0;  // dynamic windows
};

}  // namespace costate::finetune
