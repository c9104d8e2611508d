// The value function as a network, for policy iteration (PI-FT: Han, Razaviyayn, Xu, arXiv 2412.18164):
//   V_k(x) = max E[lambda r(x_K) - sum_{j >= k} (f_j + b_j |u_j|^2/2) | x_k = x],   V_K = lambda r exactly,
// fitted to trajectories of the policy u, by
//   td           V_k(x_k) ~ Vbar_{k+1}(x_{k+1}) - f_k - b_k |u_k|^2/2, Vbar with averaged weights (Polyak),
//   monte_carlo  V_k(x_k) ~ what the trajectory collected from step k on.
// A plain network maps (x, t) to V; the form `skip` is
//   V_k(x) = sin(pi t/2) lambda r(x1) + cos(pi t/2) F(x, t)
// with x1 the base's noiseless estimate from (x, t) (after arXiv 2502.01819, Section 6). The policy that is regressed on its
// gradients is u_k = std_k E[grad V_{k+1}]/b_k, a fixed point in u, because u moves the point at which the gradient is
// taken. The map contracts by |kappa_k|, kappa_k = std_k^2/b_k times the Hessian of V_{k+1}: where V is convex with
// kappa_k >= 1 the step has no optimum; where it is concave with kappa_k < -1 it has one, which the undamped iteration
// runs away from. Damping u <- (1 - w) u + w (its image) with w = 1/(1 + |kappa|) cures that.
//
// Cost of one iteration in rows of the value network a trajectory, for U updates, L steps in the loss:
//   td          K - 1 plain              monte_carlo  -
//   fit         U K by parameters; rewards without gradient, whose V_K is the network too: U (K + 1)
//   value       L by state, less one where the last step is in the loss and V_K is the reward
//   stein       plain, the states of the loss steps and those after them, each once (with early_steps once for each step),
//               but x_K; with P pairs instead 2 P L, less
//               2 P where the last step is in the loss
// The form `skip` asks for plain base rows at the K - N steps without noise and the reward at K - 1 states (where t > 0); for
// each state of the costates' rows above, once more for base and reward, by state and with gradient for `value`. A
// measurement of the contraction takes 4 I vjps by state of R rows at each step with noise, of base and reward as well with
// `skip`; those of V_K are gradients of the reward.
#pragma once
#include <costate/finetune/control_problem.h>
#include <costate/finetune/learner.h>
#include <costate/finetune/regression/costate_batch.h>

#include <limits>
#include <span>

namespace costate::finetune {

struct ValueOptions {
  std::int64_t hidden = 64;  // width of the hidden layers
  int depth = 2;             // their number
  int time_frequencies = 4;
  enum class Form : std::uint8_t { plain, skip } form = Form::plain;
  enum class Target : std::uint8_t { td, monte_carlo } target = Target::td;
  double target_decay = 0.9;      // td: Vbar <- decay Vbar + (1 - decay) V after every update
  int updates = 4;                // an iteration, each on the whole batch
  LearnerOptions learner{.lr = {.peak = 3e-3}};

  int pairs = 0;                  // stein: pairs +-e drawn anew at each state; 0: the path's own noise, V_k(x_k) subtracted
  bool damping = false;           // w = 1/(1 + |kappa|) where the measured curvature is negative
  int contraction_every = 0;      // iterations from one measurement of kappa_k to the next; 0: none
  std::int64_t contraction_rows = 16;
  int contraction_iterations = 10;  // of the power method
};

// The lowest and highest eigenvalue found, over rows. The power method underestimates both in modulus.
struct Curvature {
  double lowest = std::numeric_limits<double>::quiet_NaN(), highest = std::numeric_limits<double>::quiet_NaN();
};

class ValueFunction {
 public:
  // A label that trajectories may have is an input of the network.
  ValueFunction(const ControlProblem& problem, const ValueOptions& options, std::uint64_t seed);

  // V_k at x (rows, ...): (rows,), and grad V_k, of the shape of x. Where a reward fails the value is 0 and the gradient 0.
  // Calls the reward where it is a part of V_k: by one thread at a time.
  Tensor value(int k, const Tensor& x, const Tensor& labels) const;
  Tensor gradient(int k, const Tensor& x, const Tensor& labels) const;

  // Fits the network to the batch, whose tuned and base predictions of steps with noise are defined; the mean squared error
  // before the last update. Throws Error(numerical) when it is not finite.
  double fit(const CostateBatch& batch, std::span<const double> kl_weights);

  // Of the Hessian of V_k at each row of x, by the power method on central differences of gradients: two vjps an iteration,
  // first for the eigenvalue of largest modulus, then, shifted by it, for the other end of the spectrum. NaN on the meta
  // device.
  Curvature curvature(int k, const Tensor& x, const Tensor& labels) const;

  bool exact_end() const { return problem_.reward.differentiable(); }  // V_K is lambda r itself, also for gradients
  const nn::Network& network() const { return learner_.network(); }
  void visit_state(StateVisitor& v);

 private:
  Tensor network_value(const nn::Network& network, int k, const Tensor& x, const Tensor& labels) const;
  Tensor reward_value(const Tensor& x, double scale) const;
  Tensor estimate(int k, const Tensor& x, const Tensor& labels) const;  // x1
  std::vector<std::vector<double>> guesses(const CostateBatch& batch) const;
  // What the network is fitted to, (K + 1) of (rows,): V_k less what the form adds, over the unit.
  std::vector<Tensor> targets(const CostateBatch& batch, std::span<const double> kl_weights);
  double skip_weight(int k) const;  // sin(pi t/2); 0 for the plain form

  ControlProblem problem_;
  ValueOptions options_;
  std::uint64_t seed_;
  Learner learner_;
  nn::Network averaged_;      // Vbar
  double offset_ = 0, unit_ = 1;  // V = offset + unit network: of the returns of the first batch
  bool scaled_ = false;
};

}  // namespace costate::finetune
