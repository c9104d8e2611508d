// A user's own reward, outside of autograd: plain functions of floats.
#pragma once
#include <costate/finetune/reward/reward.h>

#include <span>

namespace costate::finetune {

// Rows of x, flattened, as float. The callback fills value (rows) and gradient (rows x dim); both are zeros before. It is also
// called, with a gradient that is thrown away, for values alone.
using RewardCallback =
    std::function<void(std::span<const float> x, std::int64_t rows, std::span<float> value, std::span<float> gradient)>;
Reward callback_reward(std::string name, RewardCallback callback);

// Values alone: for objectives without reward gradients.
using ValueCallback = std::function<void(std::span<const float> x, std::int64_t rows, std::span<float> value)>;
Reward black_box_reward(std::string name, ValueCallback callback);

}  // namespace costate::finetune
