// A sample of every differentiable op: a function, and shapes and range of its inputs.
#pragma once
#include <costate/autograd/ops.h>
#include <costate/tensor/pointwise.h>
#include <costate/tensor/random.h>

#include <functional>
#include <string>
#include <vector>

namespace costate {

using Inputs = std::span<const Var>;
struct Sample {
  std::string op;
  std::function<Var(Inputs)> f;
  std::vector<Shape> shapes;
  int order = 2;
  double low = -2, high = 2;  // range of the inputs
};

inline const Tensor index3 = Tensor::from(std::vector<std::int32_t>{2, 0, 2}, {3});

// Points are drawn away from kinks: relu, abs, clamp, maximum and minimum have none within 1e-6 of these.
inline std::vector<Sample> samples() {
  const Shape s{3, 4};
  std::vector<Sample> all = {
      {"neg", [](Inputs x) { return neg(x[0]); }, {s}},
      {"exp", [](Inputs x) { return exp(x[0]); }, {s}},
      {"log", [](Inputs x) { return log(x[0]); }, {s}, 2, 0.2, 3},
      {"sqrt", [](Inputs x) { return sqrt(x[0]); }, {s}, 2, 0.2, 3},
      {"square", [](Inputs x) { return square(x[0]); }, {s}},
      {"reciprocal", [](Inputs x) { return reciprocal(x[0]); }, {s}, 2, 0.4, 3},
      {"sin", [](Inputs x) { return sin(x[0]); }, {s}},
      {"cos", [](Inputs x) { return cos(x[0]); }, {s}},
      {"tanh", [](Inputs x) { return tanh(x[0]); }, {s}},
      {"sigmoid", [](Inputs x) { return sigmoid(x[0]); }, {s}},
      {"silu", [](Inputs x) { return silu(x[0]); }, {s}},
      {"gelu_tanh", [](Inputs x) { return gelu_tanh(x[0]); }, {s}},
      {"gelu_erf", [](Inputs x) { return gelu_erf(x[0]); }, {s}},
      {"relu", [](Inputs x) { return mul(relu(x[0]), x[0]); }, {s}},
      {"softplus", [](Inputs x) { return softplus(x[0]); }, {s}},
      {"abs", [](Inputs x) { return mul(abs(x[0]), x[0]); }, {s}},
      {"affine", [](Inputs x) { return affine(square(x[0]), 1.5, -0.5); }, {s}},
      {"power", [](Inputs x) { return power(x[0], 1.7); }, {s}, 2, 0.3, 2},
      {"clamp", [](Inputs x) { return mul(clamp(x[0], -1, 0.9), x[0]); }, {s}},
      {"add", [](Inputs x) { return square(add(x[0], x[1])); }, {s, s}},
      {"add", [](Inputs x) { return square(add(x[0], x[1])); }, {s, {4}}},
      {"sub", [](Inputs x) { return square(sub(x[0], x[1])); }, {{3, 1}, {4}}},
      {"mul", [](Inputs x) { return mul(x[0], x[1]); }, {s, {3, 1}}},
      {"mul", [](Inputs x) { return mul(x[0], x[0]); }, {s}},
      {"div", [](Inputs x) { return div(x[0], x[1]); }, {s, {4}}, 2, 0.4, 2},
      {"maximum", [](Inputs x) { return square(maximum(x[0], x[1])); }, {s, s}},
      {"minimum", [](Inputs x) { return square(minimum(x[0], x[1])); }, {s, {}}},
      {"axpby", [](Inputs x) { return square(axpby(2, x[0], -3, x[1])); }, {s, s}},
      {"multiply_add", [](Inputs x) { return multiply_add(x[0], x[1], x[2]); }, {s, {4}, {3, 1}}},
      {"chain_step", [](Inputs x) { return square(chain_step(0.5, x[0], 2, x[1], 0.3, x[2])); }, {s, s, s}},
      {"matching_residual",
       [](Inputs x) { return square(matching_residual(1.5, x[0], x[1], -0.7, x[2])); }, {s, s, {4}}},
      {"pointwise", [](Inputs x) { return pointwise(Pointwise::mul, {&x[0], &x[1]}); }, {s, s}},
      {"cast", [](Inputs x) { return cast(square(cast(x[0], DType::f64)), x[0].dtype()); }, {s}},
      {"sum", [](Inputs x) { return sum(square(x[0])); }, {s}},
      {"sum", [](Inputs x) { return square(sum(x[0], 1)); }, {{2, 3, 4}}},
      {"sum", [](Inputs x) { return square(sum(x[0], 0, true)); }, {s}},
      {"mean", [](Inputs x) { return square(mean(x[0])); }, {s}},
      {"mean", [](Inputs x) { return square(mean(x[0], -1)); }, {s}},
      {"sum_to", [](Inputs x) { return square(sum_to(x[0], {3, 1})); }, {{2, 3, 4}}},
      {"broadcast_to", [](Inputs x) { return square(broadcast_to(x[0], {2, 3, 4})); }, {{3, 1}}},
      {"reshape", [](Inputs x) { return square(reshape(x[0], {4, -1})); }, {s}},
      {"permute", [](Inputs x) { return mul(permute(x[0], {2, 0, 1}), x[1]); }, {{2, 3, 4}, {4, 2, 3}}},
      {"transpose", [](Inputs x) { return mul(transpose(x[0]), x[1]); }, {s, {4, 3}}},
      {"concat", [](Inputs x) { return square(concat({&x[0], &x[1]}, 1)); }, {s, {3, 2}}},
      {"concat", [](Inputs x) { return square(concat({&x[0], &x[1], &x[0]}, 0)); }, {s, {1, 4}}},
      {"narrow", [](Inputs x) { return square(narrow(x[0], 1, 1, 2)); }, {s}},
      {"narrow", [](Inputs x) { return square(narrow(x[0], -1, 1, 2)); }, {s}},
      {"narrow", [](Inputs x) { return mul(narrow(x[0], 0, 1, 2), narrow(x[0], 0, 0, 2)); }, {s}},
      {"matmul", [](Inputs x) { return matmul(x[0], x[1]); }, {s, {4, 5}}},
      {"matmul", [](Inputs x) { return matmul(x[0], x[1], true, false); }, {{4, 3}, {4, 5}}},
      {"matmul", [](Inputs x) { return matmul(x[0], x[1], false, true); }, {s, {5, 4}}},
      {"matmul", [](Inputs x) { return matmul(x[0], x[1], true, true); }, {{4, 3}, {5, 4}}},
      {"matmul", [](Inputs x) { return matmul(x[0], x[1], false, true); }, {{2, 3, 4}, {2, 5, 4}}},
      {"linear", [](Inputs x) { return linear(x[0], x[1], x[2]); }, {{2, 3, 4}, {5, 4}, {5}}},
      {"linear", [](Inputs x) { return square(linear(x[0], x[1], Var())); }, {s, {5, 4}}},
      {"linear", [](Inputs x) { return linear(x[0], x[1], x[2], Activation::silu); }, {s, {5, 4}, {5}}, 1},
      {"linear", [](Inputs x) { return linear(x[0], x[1], x[2], Activation::gelu_tanh); }, {s, {5, 4}, {5}}, 1},
      {"linear", [](Inputs x) { return linear(x[0], x[1], x[2], Activation::relu); }, {s, {5, 4}, {5}}, 1},
      {"softmax", [](Inputs x) { return softmax(x[0]); }, {{3, 5}}},
      {"log_softmax", [](Inputs x) { return log_softmax(x[0]); }, {{3, 5}}},
      {"layer_norm", [](Inputs x) { return layer_norm(x[0], 1e-3); }, {{3, 5}}},
      {"group_norm", [](Inputs x) { return group_norm(x[0], x[1], x[2], 2, 1e-3); }, {{2, 3, 2, 4}, {4}, {4}}},
      {"group_norm", [](Inputs x) { return group_norm(x[0], {}, {}, 1, 1e-3); }, {{2, 3, 4}}},
      {"group_norm",
       [](Inputs x) { return group_norm(x[0], x[1], x[2], 3, 1e-3, Activation::none, x[3], x[4]); },
       {{2, 4, 6}, {6}, {6}, {2, 6}, {2, 6}}},
      {"group_norm",
       [](Inputs x) { return group_norm(x[0], x[1], x[2], 3, 1e-3, Activation::silu, x[3], x[4]); },
       {{2, 2, 2, 6}, {6}, {6}, {2, 6}, {2, 6}}, 1},
      {"group_norm", [](Inputs x) { return group_norm(x[0], x[1], x[2], 2, 1e-3, Activation::gelu_tanh); },
       {{2, 3, 4}, {4}, {4}}, 1},
      {"group_norm", [](Inputs x) { return group_norm(x[0], {}, {}, 2, 1e-3, Activation::silu, x[1]); },
       {{2, 3, 4}, {2, 4}}, 1},
      {"modulated_layer_norm", [](Inputs x) { return modulated_layer_norm(x[0], x[1], x[2], 1e-3); },
       {{2, 3, 5}, {2, 5}, {2, 5}}},
      {"attention", [](Inputs x) { return attention(x[0], x[1], x[2], 2); }, {{2, 3, 6}, {2, 3, 6}, {2, 3, 6}}, 1},
      {"attention", [](Inputs x) { return attention(x[0], x[1], x[2], 1); }, {{1, 2, 4}, {1, 5, 4}, {1, 5, 4}}, 1},
      {"attention", [](Inputs x) { return attention(x[0], x[0], x[0], 2); }, {{1, 3, 4}}, 1},
      {"attention", [](Inputs x) { return attention(x[0], 2); }, {{2, 3, 12}}, 1},
      {"dropout", [](Inputs x) { return square(dropout(x[0], 0.4, 5, 1, 2)); }, {{3, 7}}},
      {"gather_rows", [](Inputs x) { return square(gather_rows(x[0], index3.to(x[0].device()))); }, {{4, 2}}},
      {"conv2d", [](Inputs x) { return conv2d(x[0], x[1], x[2], {}); }, {{2, 4, 5, 2}, {3, 2, 3, 2}, {3}}},
      {"conv2d", [](Inputs x) { return conv2d(x[0], x[1], Var(), {1, 1, 1, 1, 1}); }, {{2, 4, 3, 2}, {2, 3, 3, 2}}},
      {"conv2d", [](Inputs x) { return square(conv2d(x[0], x[1], x[2], {2, 0, 1, 0, 1})); },
       {{1, 6, 5, 2}, {2, 3, 3, 2}, {2}}},
      {"conv2d", [](Inputs x) { return conv2d(x[0], x[1], Var(), {2, 1, 0, 2, 1, 2}); }, {{1, 5, 4, 4}, {2, 3, 2, 2}}},
      {"conv2d", [](Inputs x) { return conv2d(x[0], x[1], Var(), {1, 1, 1, 1, 1, 3}); }, {{1, 3, 3, 3}, {3, 3, 3, 1}}},
      {"conv2d", [](Inputs x) { return conv2d(x[0], x[1], x[2], {}); }, {{2, 3, 2, 4}, {3, 1, 1, 4}, {3}}},
      {"conv2d", [](Inputs x) { return conv2d(x[0], x[1], Var(), {2}); }, {{1, 3, 4, 2}, {3, 1, 1, 2}}},
      {"upsample_nearest", [](Inputs x) { return square(upsample_nearest(x[0], 2)); }, {{2, 2, 3, 2}}},
      {"upsample_nearest", [](Inputs x) { return mul(upsample_nearest(x[0], 3), x[1]); }, {{1, 2, 1, 2}, {1, 6, 3, 2}}},
      {"average_pool", [](Inputs x) { return square(average_pool(x[0], 2)); }, {{2, 4, 6, 2}}},
      {"average_pool", [](Inputs x) { return square(average_pool(x[0], 3)); }, {{1, 4, 5, 2}}},  // a row and two columns over
      {"pad", [](Inputs x) { return mul(pad(x[0], 1, 0, 2, 3), x[1]); }, {{2, 2, 3, 2}, {2, 3, 8, 2}}},
      {"scatter_rows", [](Inputs x) { return square(scatter_rows(x[0], index3.to(x[0].device()), 5)); }, {{3, 2}}},
  };
  return all;
}

inline std::vector<Tensor> inputs_of(const Sample& s, std::uint32_t which) {
  std::vector<Tensor> inputs;
  for (const Shape& shape : s.shapes) {
    Tensor t = Tensor::empty({1, shape.numel()}, DType::f64);
    random_uniform(t, 11, Stream::user, which, static_cast<std::uint32_t>(inputs.size()));
    for (double& v : t.mutate<double>()) v = s.low + (s.high - s.low) * v;
    inputs.push_back(t.reshape(shape));
  }
  return inputs;
}

}  // namespace costate
