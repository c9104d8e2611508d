// What the formulas of rewards are written in: samples as rows of features, and constants beside them.
#pragma once
#include <costate/autograd/tape.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace costate::finetune {

// x (rows, ...) as (rows, dim). Throws Error(Fault::argument), naming the reward `name`, for another number of features.
Var features(const Var& x, std::size_t dim, std::string_view name);
// Numbers on the device and in the element type of `like`.
Var constant_like(const std::vector<double>& values, const Shape& shape, const Var& like);

// A value whose gradient is computed with it, outside of autograd. `compute` fills value (rows,), f32 zeros, and gradient, f32
// zeros of the shape of x; it is not called on the meta device. First order only.
using ValueWithGradient = std::function<void(const Tensor& x, Tensor& value, Tensor& gradient)>;
Var with_given_gradient(const std::string& name, const Var& x, const ValueWithGradient& compute);

}  // namespace costate::finetune
