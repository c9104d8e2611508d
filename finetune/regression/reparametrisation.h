// Costates of stochastic optimal control matching (arXiv 2312.02027), for Gaussian chains exactly. Moving x_k by v and x_j by
// M_j v, j > k, M_k = 1, with the noises that this takes, differentiates the value under the expectation:
//   -E*[a_k | x_k] = grad log E[exp(lambda r - sum_{j >= k} f_j) | x_k]   for every choice of the matrices M_j, with
//   a_k = sum_{j >= k} M_j^T grad f_j - lambda M_K^T grad r + sum_{j >= k} (M_{j+1} - (d mean_j/dx) M_j)^T e_j/std_j,
// where e_j is the noise in terms of the base, E* the mean under the optimal law (hence path weights), mean_j that of the
// base. M_{j+1} = (d mean_j/dx) M_j gives the lean adjoint. Noiseless steps cannot be moved: they must be the last ones, and
// are pulled back first.
//   M_j = e^{-gamma (t_j - t_k)} 1 + (1 - e^{-gamma (t_j - t_k)}) N(t_k, t_j)
// with a network N and gamma > 0 learnt to the least residual, jointly with the control: the mean of the target does not
// depend on them, its variance does. Time and memory are O(K^2 dim^2) besides the networks': dim <= 64.
#pragma once
#include <costate/finetune/control_problem.h>
#include <costate/finetune/learner.h>
#include <costate/finetune/regression/costates.h>

#include <optional>

namespace costate::finetune {

struct ReparametrisationOptions {
  bool learned = true;       // false: M = 1
  double gamma = 2.0;        // at first
  std::int64_t hidden = 128; // width of the two hidden layers of N
  double scale = 0.1;        // of N at first, relative to the customary initial weights
  LearnerOptions learner{.lr = {.peak = 1e-3}};
};

inline constexpr std::int64_t largest_reparametrised_dim = 64;

class Reparametrisation {
 public:
  Reparametrisation(const ControlProblem& problem, const ReparametrisationOptions& options, std::uint64_t seed);

  bool learned() const { return learner_.has_value(); }
  // K' of the last step with noise, plus one: x_{K'} is where the pulled-back terminal costate acts.
  int horizon() const { return horizon_; }

  // What M_j multiplies, for rows of a chunk: `own` (K + 1, rows, dim) has at k the vector that a_k takes with M_k = 1,
  // `later` at j the one that earlier costates take with M_j. From the states, and e_j by `noise(j, base prediction)`; visits
  // every step with its base prediction. One vjp of the base by state a step above the first, one evaluation at the first.
  struct Terms {
    std::vector<Tensor> own, later;  // (K' + 1), (rows, ...); 0 .. 0 undefined where not needed
  };
  Terms terms(const CostateInputs& in, Tensor terminal, const std::function<Tensor(int j, const Tensor& prediction)>& noise,
              const CostateVisitor& visit) const;

  // a_{k+1} of all rows, own and later (K + 1, rows, dim): with the matrices of `network`, or with M = 1.
  Var costate(const nn::Network* network, int k, const Tensor& own, const Tensor& later) const;
  // M(t_k, t_j) for j = first, ..., first + count - 1: (count, dim, dim).
  Var matrices(const nn::Network& network, int k, int first, int count) const;

  const nn::Network& network() const { return learner_->network(); }
  Learner& learner() { return *learner_; }

 private:
  sde::Chain chain_;
  std::int64_t dim_;
  Device device_;
  int horizon_ = 0;
  std::optional<Learner> learner_;
};

}  // namespace costate::finetune
