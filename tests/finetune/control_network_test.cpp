#include <costate/autograd/check.h>
#include <costate/finetune/adjoint_matching.h>
#include <costate/finetune/evaluate/control_error.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/problem/control_network.h>
#include <costate/tensor/error.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

namespace costate::finetune {
namespace {

TEST(ControlNetwork, StartsAtTheBaseWithThePublishedWidths) {
  const ControlBenchmark b = control_benchmark("quadratic_ou_easy", {10});
  nn::Init init(1);
  const ControlNetwork n = make_control_network(b.base, {20}, init);
  const Tensor x = Tensor::empty({5, 20}), t = Tensor::full({5}, 0.3);
  random_normal(x, 3, Stream::user, 0, 0);
  EXPECT_EQ(n(Var(x), Var(t), Tensor()).value().to_doubles(), b.base(Var(x), Var(t), Tensor()).value().to_doubles());
  // 21 -> 256 -> 128 -> 64 -> 128 -> 256 -> 20, and across 21 -> 20, 256 -> 256, 128 -> 128; weights and biases.
  const auto layer = [](int in, int out) { return (in + 1) * out; };
  EXPECT_EQ(nn::parameter_count(n), layer(21, 256) + layer(256, 128) + layer(128, 64) + layer(64, 128) + layer(128, 256) +
                                        layer(256, 20) + layer(21, 20) + layer(256, 256) + layer(128, 128));
}

// By the state and by every parameter, away from the start where most of them are zero.
TEST(ControlNetwork, Gradients) {
  const ControlBenchmark b = control_benchmark("double_well", {10});
  nn::Init init(1, DType::f64);
  ControlNetwork n = make_control_network(b.base, {10, {6, 4}, Activation::silu, 2}, init);
  std::uint32_t i = 0;
  nn::visit(n, [&](const std::string&, Var& p) {
    const Tensor value = Tensor::empty_like(p.value());
    random_normal(value, 5, Stream::user, 0, i++);
    p = affine(Var(value), 0.4, 0).value();
  });
  const Tensor x = Tensor::empty({3, 10}, DType::f64), t = Tensor::full({3}, 0.3, DType::f64);
  random_normal(x, 4, Stream::user, 0, 0);
  std::vector<Tensor> inputs = nn::parameters(n);
  inputs.push_back(x);
  const std::string report = check_gradients(
      [&](std::span<const Var> in) {
        ControlNetwork copy = n;
        std::size_t k = 0;
        nn::visit(copy, [&](const std::string&, Var& p) { p = in[k++]; });
        return copy(in[k], Var(t), Tensor());
      },
      inputs, 1);
  EXPECT_EQ(report, "");
}

// Adjoint matching learns the linear problem's control, which no state changes, so that it may start from N(0, I): the lean
// adjoint is deterministic and the regression has no noise.
TEST(ControlNetwork, LearnsTheLinearProblem) {
  const ControlBenchmark b = control_benchmark("linear_ou", {20, 1});
  nn::Init init(1);
  AdjointMatchingOptions options;
  options.batch = 32;
  options.adamw.lr = 1e-2;
  options.ema_decay = 0.98;
  AdjointMatching learner(b.base, make_control_network(b.base, {b.dim, {16}}, init), b.chain, {b.dim}, b.reward, options);
  for (int i = 0; i < 800; ++i) learner.step();
  const double relative = control_error(b, field_of(learner.average()), 200, {9}).relative();
  EXPECT_LT(relative, 0.01);  // what is left: the learner's discretisation, O(h^2) = 0.0025, and the network
}

TEST(ControlNetwork, Refusals) {
  const ControlBenchmark b = control_benchmark("double_well", {10});
  nn::Init init(1);
  EXPECT_THROW(make_control_network(nullptr, {10}, init), Error);
  EXPECT_THROW(make_control_network(b.base, {10, {}}, init), Error);
  EXPECT_THROW(make_control_network(b.base, {10, {8, 0}}, init), Error);
  const ControlNetwork n = make_control_network(b.base, {10, {8}}, init);
  EXPECT_THROW(n.control(Var(Tensor::zeros({3, 4})), Var(Tensor::zeros({3}))), Error);
}

}  // namespace
}  // namespace costate::finetune
