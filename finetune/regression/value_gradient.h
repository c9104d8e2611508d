// Value-gradient regression: one iteration simulates trajectories of the tuned network and regresses the control of every
// step on a costate of the state that follows,
//   sum_k |u_k(theta) + std_k a_{k+1}/b_k|^2,   u_k = C_k (tuned - base)(x_k)/std_k,   E[a_{k+1} | x_k] = -E grad V_{k+1},
// where V_k is the value (the best that can be had from step k on). Nothing is differentiated through trajectory or
// costate. At the fixed point u_k = std_k E[grad V_{k+1}]/b_k, which is the optimum of the discrete control problem.
//
// The costates make the methods of the literature:
//   lean            adjoint matching (Domingo-Enrich, Drozdzal, Karrer, Chen: arXiv 2409.08861), and with path weights
//                   SOCM-adjoint (Domingo-Enrich, Han, Amos, Bruna, Chen: arXiv 2312.02027)
//   full            discrete-adjoint matching: the gradient of backpropagation
//   continuous      the continuous adjoint equation
//   reparametrised  stochastic optimal control matching (SOCM, arXiv 2312.02027), with path weights; with M = 1, or learnt
//   value           policy iteration on a value network (PI-FT: Han, Razaviyayn, Xu, arXiv 2412.18164)
//   stein           the same without any gradient of the value: E[grad V(m + std e)] = E[V(m + std e) e]/std (Stein)
//
// Cost of one iteration, rows a trajectory, for K steps, the first N of which have noise, L in the loss, f the
// lowest that may be in it (0 with early_steps):
//   costate         tuned: plain  by state   by parameters  base: plain  by state   reward
//   lean            K             -          L              1            K - f - 1  1 with gradient
//   full            K             K - f - 1  L              1            N - f - 1  1 with gradient
//   continuous      K             K - f - 1  L              1 or 2       N - f - 1  1 with gradient
//   reparametrised  K             -          L              1            K - 1      1 with gradient
//   value, stein    K             -          L              N            -          1
// (continuous: 1 where step f alone is in the loss; a value: with gradient where the last step has noise and is in the loss.)
// Pairing `same` asks for one more vjp of what is pulled back, the lean and full costates for one plain base row less, and so
// does the continuous one where it has 2; alg1 for a base vjp more; denoised_endpoint for a plain base row more.
// keep_activations takes L from the plain rows. Path weights with the lean costate ask for the base at the f steps below f
// too. A value network adds rows of its own, see value_network.h. Replay divides everything but the vjps by parameters and
// the value network's rows by its passes (with f = 0: costates of all steps are kept), and adds N plain tuned rows an update
// when it is weighted.
// States are kept at all K + 1 steps; costates and base predictions at L (base predictions at N with path weights or a
// value); the tuned predictions at N with path weights, a value or weighted replay.
#pragma once
#include <costate/finetune/learner.h>
#include <costate/finetune/objective.h>
#include <costate/finetune/regression/costates.h>
#include <costate/finetune/regression/costate_batch.h>
#include <costate/finetune/regression/device_iteration.h>
#include <costate/finetune/regression/path_weights.h>
#include <costate/finetune/regression/reparametrisation.h>
#include <costate/finetune/regression/replay_buffer.h>
#include <costate/finetune/regression/value_network.h>

#include <optional>
#include <vector>

namespace costate::finetune {

struct ValueGradientOptions {
  enum class Costate : std::uint8_t { lean, full, continuous, reparametrised, value, stein } costate = Costate::lean;

  std::int64_t batch = 256;      // trajectories an iteration
  // Trajectories at a time; 0: all. Bounds memory, not the result's law; costates lean (without path weights), full and
  // continuous alone.
  std::int64_t micro_batch = 0;
  std::uint64_t seed = 0;

  // Which costate x_k is regressed on: `next` a_{k+1}, the one that makes the discrete optimum exact; `same` a_k (the
  // published code: it under-tilts by O(h)); `alg1` a_{k+1} with one more Jacobian, at (x_K, t = 1), as Algorithm 1 of
  // adjoint matching is written (lean; Euler-Maruyama memoryless chains with velocity networks only).
  enum class Pairing : std::uint8_t { next, same, alg1 } pairing = Pairing::next;

  // Steps that enter the loss: the last `late` ones and `early` of the others, drawn anew each iteration. late = 0: all.
  int early_steps = 0, late_steps = 0;

  // min(limit, residual^2) a sample and step; adjoint matching's limit is 1.6 lambda^2. 0: none. A bias: it moves the optimum.
  double loss_clip = 0.0;

  // Units of the residual: `control` as above; `velocity` |v - v_base + (std_k^2 / C_k) a|^2 in units of the velocity,
  // whatever the network predicts: the same minimiser with weights that do not blow up at the ends.
  enum class LossSpace : std::uint8_t { control, velocity } loss_space = LossSpace::control;

  // Keep the tuned network's activations at the steps that enter the loss when they are first computed, while sampling,
  // instead of computing them again: with L of K steps, L of K + 2 K + 3 L passes are saved, for the memory of L passes of
  // `micro_batch` rows.
  bool keep_activations = false;

  // On a cuda device: sampling, and the rest of an iteration but for the reward, become two recorded graphs each of which is one
  // launch (tensor/graph.h). The bits are those without. Where that cannot be, not_recorded() says why.
  bool graphs = false;

  // grad r at the noiseless estimate of x_1 from x_{K-1} by the base network, instead of at x_K.
  bool denoised_endpoint = false;

  // Costate full: add the term of mean zero that takes the variance from the costate as the control becomes optimal (see
  // full_costates).
  bool sticking_the_landing = false;

  // b_k, (K): what the divergence of each step counts in the objective (PI-FT's beta_t); one number stands for all, none
  // for ones. The tuned law is the tilted one for equal numbers only.
  std::vector<double> kl_weights{};

  // Weight each path by its density with respect to the optimal law, exp(lambda r - sum f) p/p_v, divided by a running mean
  // (path_weights.h): the regression is then under the optimal law, whatever the policy. reparametrised costates need it.
  bool path_weights = false;
  double normaliser_decay = 0.9;  // of the running mean

  ReparametrisationOptions reparametrisation{};  // costate reparametrised
  ValueOptions value{};                          // costates value and stein
  ReplayOptions replay{};
  LearnerOptions learner{};
};

struct ValueGradientMetrics {
  double loss = 0;             // a sample and step
  double reward = 0;           // mean over the rows that have one, without lambda, at the terminal point
  double control_cost = 0;     // 1/2 sum_k |C_k (v - v_base)/std_k|^2, mean over samples: the path KL divergence of the
                               // policy that made the trajectories (unbiased over the draw of steps); of the present one
                               // under replay
  double costate_norm = 0;     // the largest over steps of the root mean square of |a_{k+1}| over samples
  double clipped = 0;          // share of the residuals that the clip cut
  double failed = 0;           // rows without a finite reward
  double ess = 1;              // effective sample size of the rows' weights, a row
  double value_loss = 0;       // mean squared error of the value network
  Curvature contraction{};     // extremes over steps and rows of std_k^2/b_k times the Hessian of V_{k+1}; NaN: not measured
  struct Seconds {
    double sample = 0, adjoint = 0, regress = 0, optimise = 0;
  } seconds;
};

class ValueGradientRegression final : public Objective {
 public:
  using Options = ValueGradientOptions;
  // `tuned` starts as a copy of the network of problem.base. Throws Error(argument) for options that do not go together.
  ValueGradientRegression(ControlProblem problem, nn::Network tuned, const Options& options);
  ValueGradientRegression(ValueGradientRegression&&) = delete;

  // One update. Reports besides the common numbers costate_norm and clipped; ess with path weights or weighted replay;
  // value_loss with a value network, and contraction and curvature (the largest |kappa| and the largest kappa, see
  // value_network.h) where they are measured; failed where rewards failed. Throws Error(numerical) when the costate is not
  // finite, all rewards failed, or the curvature of the value leaves a step without optimum.
  Metrics step() override;

  // More about the last step.
  const ValueGradientMetrics& last() const { return last_; }

  // The gradient of one iteration without the update (of the tuned network, then of the reparametrisation matrices): for
  // tests and studies. Advances what is estimated on the way: the running mean of path weights, the value, the replay.
  Gradients gradient(ValueGradientMetrics& metrics);

  // With `graphs`: why an iteration, or a part of it, is not recorded; "": it is, from the third iteration on.
  std::string not_recorded() const;
  std::string remark() const override { return options_.graphs ? not_recorded() : std::string(); }

  std::int64_t iteration() const { return learner_.updates(); }
  nn::Network& network() { return learner_.network(); }
  const nn::Network& network() const override { return learner_.network(); }
  nn::Network average() const override { return learner_.average(); }
  void visit_state(StateVisitor& v) override;
  const sde::Chain& chain() const { return problem_.chain; }
  const ControlProblem& problem() const { return problem_; }
  const std::optional<ValueFunction>& value() const { return value_; }
  const std::optional<Reparametrisation>& reparametrisation() const { return matrices_; }

 private:
  void check() const;
  std::vector<int> draw_steps() const;
  Metrics report(const ValueGradientMetrics& m, const Learner::Update& update) const;
  bool learns_value() const {
    return options_.costate == Options::Costate::value || options_.costate == Options::Costate::stein;
  }
  // Trajectories with everything that does not change when the policy does: states, rewards, costates of the path.
  CostateBatch collect(std::int64_t first_sample, std::int64_t rows, const std::vector<int>& steps,
                    ValueGradientMetrics& metrics) const;
  void simulate_into(CostateBatch& batch, std::int64_t rows) const;
  Tensor terminal_costate(CostateBatch& batch, ValueGradientMetrics& metrics) const;
  void path_costates(CostateBatch& batch, const Tensor& terminal, ValueGradientMetrics& metrics) const;
  // Costates from the value as it is now.
  void value_costates(CostateBatch& batch, const std::vector<int>& steps, ValueGradientMetrics& metrics);
  // The rows' weights in the loss; empty: ones.
  std::vector<double> row_weights(const CostateBatch& batch, ValueGradientMetrics& metrics);
  Gradients regress(CostateBatch& batch, const std::vector<int>& steps, const std::vector<double>& weights,
                    ValueGradientMetrics& metrics) const;
  Gradients replayed(ValueGradientMetrics& metrics);

  ControlProblem problem_;
  Options options_;
  std::vector<double> kl_weights_;  // (K)
  sde::Affine terminal_{1, 0};      // alg1: the step at t = 1
  std::vector<int> controlled_;     // steps with noise
  Learner learner_;
  std::optional<Normaliser> normaliser_;
  std::optional<Reparametrisation> matrices_;
  std::optional<ValueFunction> value_;
  std::optional<ReplayBuffer> replay_;
  Curvature contraction_;         // as last measured
  std::vector<double> damping_;   // w of each step
  ValueGradientMetrics last_;
  std::unique_ptr<DeviceIteration> on_device_;  // where refusal() has nothing against it; refers to the members above
};

}  // namespace costate::finetune
