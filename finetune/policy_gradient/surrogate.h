// The function whose gradient a policy gradient follows, over chosen steps of chosen paths. With the control that the policy
// has gained since the path was made, and the noise e_k of the path,
//   delta_k = C_k (theta - old)(x_k)/std_k,   l_k = log p_theta/p_old (x_{k+1} | x_k) = delta_k . e_k - |delta_k|^2/2
// (summed over the features, as a likelihood is: many codes take the mean, and with it clip at another scale), an entry with
// coefficient A counts
//   linear          A l_k             its derivative is A grad log p_theta: score functions, losses of whole paths
//   clipped_ratio   min(A e^l, A clamp(e^l, 1 - c, 1 + c))     proximal policy optimisation, arXiv 1707.06347
//   clamped_ratio   A clamp(e^l, 1 - c, 1 + c)                 as the code of DPOK has it: no gradient outside the band
// less the divergence of the policy from the base at x_k: exact, |C_k (theta - base)/std_k|^2/2, or as DPOK's code has it the
// mean square of theta - base. At theta = old all three have the gradient A grad log p_theta.
#pragma once
#include <costate/finetune/gradients.h>
#include <costate/finetune/policy_gradient/batch.h>

namespace costate::finetune {

struct SurrogateOptions {
  enum class Kind : std::uint8_t { linear, clipped_ratio, clamped_ratio } kind = Kind::linear;
  double ratio_clip = 0.2;
  double divergence_weight = 0;  // of the term in the loss; 0: none, and the base's predictions are not looked at
  enum class Divergence : std::uint8_t { exact, prediction } divergence = Divergence::exact;
};

// A step of a path, by its place in a list of batches.
struct Entry {
  std::int32_t batch = 0;
  std::int32_t path = 0;
  std::int32_t step = 0;
  double weight = 1;  // of the entry, its divergence included
};

struct SurrogateSums {
  double clipped = 0;      // entries whose ratio left the band
  double log_ratio = 0;    // sum of l_k
};

// Minus the weighted sum over the entries, and its gradient. One recorded policy row an entry. `sums` are added to.
Gradients surrogate_gradient(const nn::Network& policy, const ControlProblem& problem,
                             std::span<const PathBatch* const> batches, std::span<const Entry> entries,
                             const SurrogateOptions& options, SurrogateSums& sums);

// log p_theta/p_old of whole paths (all steps with noise that they take, from the batch's first on) under the policy as it is:
// one plain row a step of each listed path.
std::vector<double> path_log_ratio_since(const sde::Field& policy, const ControlProblem& problem, const PathBatch& batch,
                                         std::span<const std::int32_t> paths);

}  // namespace costate::finetune
