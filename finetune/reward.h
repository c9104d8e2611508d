// Rewards: what fine-tuning raises. r maps samples (rows, ...) to (rows,); objectives multiply it by lambda and use its
// gradient, so that the tuned law is p_base exp(lambda r) / Z.
#pragma once
#include <costate/nn/mlp.h>
#include <string>

namespace costate::finetune {

// Every row on its own, so that one vjp with ones gives all gradients. Called by one thread at a time with a whole
// micro-batch.
struct Reward {
  std::string name;
  std::function<Var(const Var& x)> value{};            // (rows, ...) -> (rows,), built from ops; null for black boxes
  std::function<Tensor(const Tensor& x)> black_box{};  // the same without a gradient; used where value is null

  bool differentiable() const { return static_cast<bool>(value); }
  bool defined() const { return value || black_box; }
  Tensor operator()(const Tensor& x) const;
  struct ValueAndGradient {
    Tensor value;     // (rows,)
    Tensor gradient;  // of the shape of x
  };
  // Throws Error(Fault::argument) when the value has another shape than (rows,), Error(Fault::numerical), with the number
  // of rows concerned, when a value or gradient is not finite.
  ValueAndGradient value_and_gradient(const Tensor& x) const;
  // Values, with gradients if they are asked for, and what became of rows whose value is not finite.
  struct Scores {
    Tensor value;                      // (rows,)
    Tensor gradient;                   // of the shape of x, or undefined
    std::vector<std::uint8_t> valid;   // 0: the row has no part in the loss; empty: all rows have
    std::int64_t failed = 0;           // rows whose value was not finite
  };
  Scores scores(const Tensor& x, bool with_gradient) const;
};

// c^T x over the flattened features.
Reward linear_reward(std::vector<double> c);
// c^T x - (x - centre)^T Q (x - centre) / 2; Q row-major (dim x dim), symmetric, or a vector of its diagonal.
Reward quadratic_reward(std::vector<double> centre, std::vector<double> q, std::vector<double> c = {});
// log p_a(x) - log p_b(x) of two isotropic Gaussian mixtures: means (components, dim), one variance each, weights.
struct IsotropicMixture {
  std::vector<double> means, variances, weights;
};
Reward log_density_ratio_reward(IsotropicMixture a, IsotropicMixture b, std::int64_t dim);
// log p(target | x) of a classifier; several targets: of any of them.
Reward classifier_reward(nn::Classifier classifier, std::vector<std::int32_t> targets);
// A user's own value and gradient, outside of autograd: rows of x, flattened, as float. The callback fills value (rows) and
// gradient (rows x dim).
using RewardCallback =
    std::function<void(std::span<const float> x, std::int64_t rows, std::span<float> value, std::span<float> gradient)>;
Reward callback_reward(std::string name, RewardCallback callback);

}  // namespace costate::finetune
