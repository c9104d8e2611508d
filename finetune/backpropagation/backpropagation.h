// Reward backpropagation: the gradient of the reward at the end of a path with respect to the parameters of every step, or of
// some, through the path itself; and with the divergence from the base beside it, relative-entropy control.
//
//   minimise  E[ L(r(x_K)) + sum_k f_k(x_k) ] + w KL(P_u || P),   L(r) = -lambda r unless told otherwise,
//   costate   a_K = L'(r) grad r,   a_k = J_k^T a_{k+1} + grad_x [ f_k + w |u_k|^2/2 ],
// where the penalty is differentiated with respect to the state too: leaving that out gives another stationary point (the
// "KL in the loss" of policy gradients). With w = 1 the optimum is the path law P exp(lambda r - sum f)/Z given x_0; with
// w = 0 there is no optimum but the argmax of the reward, and early stopping and small networks are the only brakes. Steps
// without noise have no control: with w > 0 the gradient passes through them but not into the parameters, as no divergence
// would hold their predictions back.
//
// Published methods are options of this one:
//   DRaFT, DRaFT-K, DRaFT-LV  Clark, Vicol, Swersky, Fleet, arXiv 2309.17400: whole paths; the last K steps; the last step,
//                             again from re-noised samples
//   AlignProp                 Prabhudesai, Goyal, Pathak, Fragkiadaki, arXiv 2310.03739: a random number of last steps
//   ReFL                      Xu et al. (ImageReward), arXiv 2304.05977: one step, and the estimate of x_1 from there
//   DRTune                    Wu et al., arXiv 2405.00760: the network's inputs are constants, some steps, early stop
//   ELEGANT                   Uehara et al., arXiv 2402.15194: whole paths with w > 0 and a learnt initial law
//
// Evaluations of a trajectory, in rows of network calls. T steps are taken (K, or m + 1 after a stop at step m), of which
// L = T - first have a record; with detached inputs S of them are trained:
//   tuned, prediction alone            T + the steps that the adjoint method takes again (store_all: 0)
//   tuned, differentiated by state     L - 1, also by parameters where the step is trained; detached inputs: 0
//   tuned, by parameters alone         1, in step `first`, whose state needs no costate; detached inputs: S
//   base (w > 0), by state             steps with noise after `first`; detached inputs: 0
//   base (w > 0), prediction alone     1 if step `first` has noise; detached inputs: the trained steps with noise
//   reward, with gradient              1
//   keep_activations takes away        L predictions alone (with re-noisings n more; detached inputs: one a trained step)
//   re-noisings, n of them, add        n predictions of the tuned network, n by parameters alone, n rewards
// States that are kept: those of the adjoint method on L steps (store_all: L; binomial: its slots).
#pragma once
#include <costate/finetune/backpropagation/path.h>
#include <costate/finetune/backpropagation/terminal_loss.h>
#include <costate/finetune/learner.h>
#include <costate/finetune/objective.h>
#include <costate/sde/adjoint/adjoint.h>

namespace costate::finetune {

struct BackpropagationOptions {
  std::int64_t batch = 256;      // trajectories an iteration
  std::int64_t micro_batch = 0;  // trajectories at a time; 0: all. Bounds memory, not the result's law
  std::uint64_t seed = 0;

  // Steps with a record: all; the last `last_steps`; from K0 on, K0 drawn once an iteration: uniformly from the steps, or
  // rounded from N(mean, deviation^2), both shares of the number of steps, and kept within the steps.
  enum class Truncation : std::uint8_t { full, last, uniform, normal } truncation = Truncation::full;
  int last_steps = 1;
  double normal_mean = 0.84, normal_deviation = 0.1;

  // Besides the end of the path, its last step is taken again from n states that are noised from the end to the last level,
  // x_{K-1}' = alpha x_K + beta e, and the n + 1 gradients are averaged. Needs truncation `last` of one step.
  int renoisings = 0;

  // The path ends at step m, uniform in the steps between these shares of their number, with the noiseless estimate of x_1,
  // which is trained like a step. Drawn once an iteration. stop_to = 0: no stop.
  double stop_from = 0, stop_to = 0;

  // The network's input is a constant: the reward reaches step k through A_{k+1} ... A_{K-1} alone.
  bool detached_inputs = false;
  // Detached inputs only: so many steps, equally spaced behind a random offset, are trained, and the estimate after a stop;
  // 0: all are.
  int trained_steps = 0;

  double kl_weight = 0;  // w
  TerminalLossOptions loss{};
  sde::AdjointOptions adjoint{};  // without `visit`
  // Keep what the network computed in the steps with a record while they are taken, for the sweep, instead of computing it
  // again: the memory of L records of `micro_batch` rows, the same bits. For store_all, which takes no step again.
  bool keep_activations = false;
  LearnerOptions learner{};
};

struct BackpropagationMetrics {
  double loss = 0;          // a trajectory; means are over those whose reward could be computed
  double reward = 0;        // without lambda
  double penalty = 0;       // sum f_k + w |u_k|^2/2, of the steps with a record
  double control_cost = 0;  // sum |u_k|^2/2; NaN unless w > 0 and every step with noise was looked at
  int first = 0, last = 0;  // the steps with a record are first..last-1
  std::int64_t failed = 0;  // trajectories whose reward could not be computed
};

class Backpropagation final : public Objective {
 public:
  // Throws Error(argument) for options that contradict each other or the problem: a stop or re-noisings with a cost of states
  // or a divergence (both would lose steps of it), a reward without a gradient, an adjoint method that chains do not allow.
  Backpropagation(ControlProblem problem, nn::Network tuned, const BackpropagationOptions& options);

  // One update; reports penalty, first_step, last_step and failed as well. Throws Error(numerical) also when no reward of the
  // batch could be computed.
  Metrics step() override;
  const nn::Network& network() const override { return learner_.network(); }
  nn::Network average() const override { return learner_.average(); }
  void visit_state(StateVisitor& v) override { v("learner", learner_); }
  std::int64_t iteration() const { return learner_.updates(); }

  // Which steps iteration n differentiates.
  DifferentiatedPath draw(std::int64_t n) const;
  // The gradient of the current iteration without the update: for tests and studies.
  Gradients gradient(BackpropagationMetrics& metrics) const;

 private:
  struct Sums;
  Gradients micro_batch(std::int64_t first, std::int64_t rows, const DifferentiatedPath& path, Sums& sums) const;
  Gradients sweep(const Tensor& start, int first, const DifferentiatedPath& path, const Tensor& labels,
                  const sde::NoiseKey& key, double weight, Sums& sums, Tensor* end) const;

  ControlProblem problem_;
  BackpropagationOptions options_;
  Learner learner_;
};

}  // namespace costate::finetune
