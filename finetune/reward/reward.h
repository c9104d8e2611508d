// Rewards: what fine-tuning raises. r maps samples (rows, ...) to (rows,); objectives multiply it by lambda, so that the
// tuned law is p_base exp(lambda r) / Z. A reward is a function of values that can be differentiated, or a black box of
// which nothing but values is known; every row is scored on its own, so that one vjp with ones gives all gradients.
#pragma once
#include <costate/autograd/tape.h>

#include <functional>
#include <string>
#include <vector>

namespace costate::finetune {

struct Reward {
  std::string name = {};
  // (rows, ...) -> (rows,), built from ops. Null for black boxes. Called by one thread at a time with a whole micro-batch.
  std::function<Var(const Var& x)> value = {};
  // (rows, ...) -> (rows,) on the host; used when `value` is null, and never called on the meta device. Called as `value` is.
  std::function<Tensor(const Tensor& x)> black_box = {};

  // What `scores` does with rows that fail: whose value or gradient is not finite, or for which the reward throws.
  //   stop  Error(Fault::numerical), or what was thrown
  //   skip  value 0, gradient 0, valid 0: the objective leaves the row out
  //   clip  values are clamped into [clip_low, clip_high], NaN and what was thrown becomes clip_low; the gradient of a row
  //         whose value was clamped, or whose gradient is not finite, is 0
  enum class Policy { stop, skip, clip };
  Policy on_failure = Policy::stop;
  double clip_low = 0, clip_high = 0;

  bool differentiable() const { return static_cast<bool>(value); }
  bool defined() const { return value || black_box; }

  // The values (rows,) as they are, finite or not, in the element type of x. Throws Error(Fault::argument) when the reward
  // is empty, or gives another shape than (rows,).
  Tensor operator()(const Tensor& x) const;

  struct ValueAndGradient {
    Tensor value;     // (rows,)
    Tensor gradient;  // of the shape of x
  };
  // Whatever the policy, all rows or none: throws Error(Fault::argument) when the value has another shape than (rows,) or the
  // reward is a black box, Error(Fault::numerical), with the number of rows concerned, when a value or gradient is not finite.
  ValueAndGradient value_and_gradient(const Tensor& x) const;

  struct Scores {
    Tensor value;                     // (rows,)
    Tensor gradient;                  // of the shape of x; undefined unless it was asked for
    std::vector<std::uint8_t> valid;  // (rows,), 0 where a row was skipped; empty: all rows are valid
    std::int64_t failed = 0;          // rows that failed, however they were dealt with
  };
  // By the policy. When a reward throws under skip or clip, the rows are scored again one by one to find those that it throws
  // for. A reward that fails for every one of several rows, or throws for the first four of them, is broken rather than
  // unlucky: it stops under every policy. So do errors of the call itself, Fault::argument and Fault::memory.
  Scores scores(const Tensor& x, bool with_gradient) const;
};

}  // namespace costate::finetune
