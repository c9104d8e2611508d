// Adjoint matching (Domingo-Enrich, Drozdzal, Karrer, Chen: arXiv 2409.08861), on any Gaussian chain.
//
// One iteration: trajectories of the tuned network; the terminal costate a_K = -lambda grad r; the lean adjoint with the
// base network along these states; regression of the mean shift on the costate,
//   sum_k | C_k (v - v_base)(x_k) / std_k + std_k a |^2,
// whose only critical point is the optimal control: the tuned law is then p_base exp(lambda r) / Z. Nothing is
// differentiated through the trajectory, the costate or the base.
#pragma once
#include <costate/finetune/learner.h>
#include <costate/finetune/objective.h>
#include <costate/finetune/reward.h>
#include <costate/sde/adjoint/lean.h>
#include <costate/sde/sampler.h>

namespace costate::finetune {

struct AdjointMatchingOptions {
  std::int64_t batch = 256;            // trajectories an iteration
  std::int64_t micro_batch = 0;        // trajectories at a time; 0: all. Bounds memory, not the result's law
  double reward_multiplier = 1.0;      // lambda
  std::uint64_t seed = 0;

  // Which costate x_k is regressed on: `next` a_{k+1}, the one that makes the discrete optimum exact; `same` a_k (the
  // published code: it under-tilts by O(h)); `alg1` a_{k+1} with one more Jacobian, at (x_K, t = 1), as the paper's
  // Algorithm 1 is written (Euler-Maruyama memoryless chains with velocity networks only).
  enum class Pairing : std::uint8_t { next, same, alg1 } pairing = Pairing::next;

  // Steps that enter the loss: the last `late` ones and `early` of the others, drawn anew each iteration. late = 0: all.
  int early_steps = 0, late_steps = 0;

  // min(limit, residual^2) a sample and step; the paper's limit is 1.6 lambda^2. 0: none. A bias: it moves the optimum.
  double loss_clip = 0.0;

  // Units of the residual: `control` as above; `velocity` |v - v_base + (std_k^2 / C_k) a|^2 in units of the velocity,
  // whatever the network predicts: the same minimiser with weights that do not blow up at the ends.
  enum class LossSpace : std::uint8_t { control, velocity } loss_space = LossSpace::control;

  // Keep the tuned network's activations at the steps that enter the loss when they are first computed, while sampling,
  // instead of computing them again: with L of K steps, L of K + 2 K + 3 L passes are saved, for the memory of L passes of
  // `micro_batch` rows.
  bool keep_activations = false;

  // grad r at the noiseless estimate of x_1 from x_{K-1} by the base network, instead of at x_K.
  bool denoised_endpoint = false;

  LearnerOptions learner{};
};

struct AdjointMatchingMetrics {
  double loss = 0;             // a sample and step
  double reward = 0;           // mean, without lambda, at the terminal point
  double control_cost = 0;     // 1/2 sum_k |C_k (v - v_base)/std_k|^2, mean over samples: the path KL divergence of the
                               // policy that made the trajectories (unbiased over the draw of steps)
  double costate_norm = 0;     // the largest over steps of the root mean square of |a_k| over samples
  double clipped = 0;          // share of the residuals that the clip cut
  struct Seconds {
    double sample = 0, adjoint = 0, regress = 0, optimise = 0;
  } seconds;
};

class AdjointMatching final : public Objective {
 public:
  // `base` is the frozen field that the chain's prediction is a perturbation of; `tuned` starts as a copy of its network.
  // sample_shape is without the axis of rows. `label`: draws the label of a sample, for conditional networks.
  AdjointMatching(sde::Field base, nn::Network tuned, sde::Chain chain, Shape sample_shape, Reward reward,
                  const AdjointMatchingOptions& options, Device device = Device::cpu);

  // Labels of trajectories are drawn uniformly from these; none: unconditional.
  void set_labels(std::vector<std::int32_t> labels) { label_choices_ = std::move(labels); }

  // One update; reports costate_norm and clipped as well. Throws also when the costate is not finite.
  Metrics step() override;

  // More about the last step.
  const AdjointMatchingMetrics& last() const { return last_; }

  // The gradient of one iteration without the update: for tests and studies.
  Gradients gradient(AdjointMatchingMetrics& metrics) const;

  std::int64_t iteration() const { return learner_.updates(); }
  nn::Network& network() { return learner_.network(); }
  const nn::Network& network() const override { return learner_.network(); }
  nn::Network average() const override { return learner_.average(); }
  const sde::Chain& chain() const { return chain_; }

 private:
  std::vector<int> draw_steps() const;
  Gradients micro_batch(std::int64_t first, std::int64_t rows, const std::vector<int>& steps,
                        AdjointMatchingMetrics& metrics) const;

  sde::Field base_;
  sde::Chain chain_;
  Shape sample_shape_;
  Reward reward_;
  AdjointMatchingOptions options_;
  Device device_;
  std::vector<std::int32_t> label_choices_;
  sde::Affine terminal_{1, 0};  // alg1: the step at t = 1
  std::vector<int> controlled_;  // steps with noise
  Learner learner_;
  AdjointMatchingMetrics last_;
};

}  // namespace costate::finetune
