// Optimisation: AdamW, learning-rate schedules, gradient clipping, averaged weights.
#pragma once
#include <costate/nn/model.h>

namespace costate::nn {

// AdamW (Loshchilov and Hutter, arXiv 1711.05101), with the bias-corrected moments of Adam (arXiv 1412.6980):
//   m = beta1 m + (1-beta1) g,  v = beta2 v + (1-beta2) g^2,
//   p = (1 - lr weight_decay) p - lr (m / (1-beta1^n)) / (sqrt(v / (1-beta2^n)) + eps)
struct AdamWOptions {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0;
};

class AdamW {
 public:
  // Throws Fault::argument unless the betas lie in [0, 1) and eps and weight_decay are not negative.
  explicit AdamW(const AdamWOptions& options = {});

  // One update of `parameters` in place (each made unique first) with gradients of the same order and shapes;
  // lr and gradient_scale (multiplied to every gradient: clipping) are of this update. The first call makes
  // the moments. When it throws, because something does not fit or memory is short, no value has changed.
  void step(std::span<Tensor* const> parameters, std::span<const Tensor> gradients, double lr,
            double gradient_scale = 1.0);

  // The same in parts, where a device computes and the host does not wait:
  //   prepare  checks, makes the moments and tells the device this update's numbers (Now)
  //   launch   the kernels: of tensors at the addresses of `prepare`, with the numbers that the device has when they run
  //   commit   counts the update, when it is known to have changed the parameters
  // `averages` of the parameters, if there are any, follow by `average_weight` in the same pass. `squares` (1), f64 where the
  // parameters are: the sum of the squares of all gradients, whose root is clipped to `limit` (0: not); `check` (1), f64:
  // one more number. Unless both are finite nothing is changed. Either may be undefined.
  struct Now {
    double lr, gradient_scale = 1, limit = 0, average_weight = 0;
  };
  void prepare(std::span<Tensor* const> parameters, const Now& now);
  void launch(std::span<Tensor* const> parameters, std::span<const Tensor> gradients, std::span<const Tensor> averages,
              const Tensor& squares, const Tensor& check);
  void commit() { ++steps_; }

  std::int64_t steps() const { return steps_; }
  const AdamWOptions& options() const { return options_; }
  // The state, for checkpoints: first and second moments in the order of the parameters.
  std::vector<Tensor>& first_moments() { return m_; }
  std::vector<Tensor>& second_moments() { return v_; }
  void restore(std::int64_t steps, std::vector<Tensor> m, std::vector<Tensor> v);

 private:
  AdamWOptions options_;
  std::int64_t steps_ = 0;
  std::vector<Tensor> m_, v_;
  AdamWNow now_{};
  Tensor now_there_;  // the same on a cuda device
};

// lr(n) for update n = 0, 1, ...: linear warm-up over `warmup` updates, then constant, or a half cosine down
// to `final` times the peak at update `total`.
struct LearningRate {
  double peak = 1e-3;
  std::int64_t warmup = 0, total = 0;
  enum class Decay : std::uint8_t { constant, cosine } decay = Decay::constant;
  double final = 0.0;
  double operator()(std::int64_t update) const;
};

// The Euclidean norm of all gradients together, in double precision.
double gradient_norm(std::span<const Tensor> gradients);
// The factor that brings the norm down to `limit` (1 if it is below, or if limit is 0: no clipping).
double clip_factor(double norm, double limit);

// An exponential moving average of a model's parameters: the first update copies them, then
// average += (1 - decay) (parameter - average). With warm-up the decay of update n = 0, 1, ... is
// min(decay, (1 + n) / (10 + n)).
class Ema {
 public:
  Ema() = default;
  Ema(double decay, bool warmup);
  bool enabled() const { return decay_ > 0; }
  void update(std::span<const Tensor> parameters);
  // In parts, as AdamW's: `prepare` makes the average (before the first update: unset, with weight 1) and returns the weight of
  // this update; AdamW::launch or the like updates it; `commit` counts it.
  double prepare(std::span<const Tensor> parameters);
  void commit() { ++updates_; }
  const std::vector<Tensor>& average() const { return average_; }
  std::int64_t updates() const { return updates_; }
  void restore(std::int64_t updates, std::vector<Tensor> average);

 private:
  double decay_ = 0;
  bool warmup_ = true;
  std::int64_t updates_ = 0;
  std::vector<Tensor> average_;
};

}  // namespace costate::nn
