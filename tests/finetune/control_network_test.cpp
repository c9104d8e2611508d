#include <costate/autograd/check.h>
#include <costate/finetune/evaluate/control_error.h>
#include <costate/finetune/gradients.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/problem/control_network.h>
#include <costate/nn/optim.h>
#include <costate/sde/sampler.h>
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

// By the state and by every parameter, away from the start where most of them are zero; with the term of the reward's gradient
// the state's derivative is one of second order.
void expect_right_gradients(const ControlNetworkOptions& options, const ControlBenchmark& b) {
  nn::Init init(1, DType::f64);
  ControlNetwork n = make_control_network(b.base, options, init);
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
TEST(ControlNetwork, Gradients) {
  const ControlBenchmark b = control_benchmark("double_well", {10});
  expect_right_gradients({10, {6, 4}, Activation::silu, 2}, b);
  expect_right_gradients({10, {6, 4}, Activation::silu, 2, 3, true, b.reward.value}, b);
}

TEST(ControlNetwork, TheTermOfTheRewardIsItsGradient) {
  const ControlBenchmark b = control_benchmark("double_well", {10});
  nn::Init init(1, DType::f64);
  ControlNetwork n = make_control_network(b.base, {10, {6}, Activation::silu, 0, 1, false, b.reward.value}, init);
  const Tensor x = Tensor::empty({3, 10}, DType::f64), t = Tensor::full({3}, 0.3, DType::f64);
  random_normal(x, 4, Stream::user, 0, 0);
  for (const double u : n.control(Var(x), Var(t)).value().to_doubles()) EXPECT_EQ(u, 0);
  n.gain[1].bias = Var(Tensor::full({10}, 1, DType::f64));
  EXPECT_EQ(n.control(Var(x), Var(t)).value().to_doubles(), b.reward.value_and_gradient(x).gradient.to_doubles());
  // The same on a tape, where the gradient is recorded.
  Tape tape;
  EXPECT_EQ(n.control(tape.watch(x), Var(t)).value().to_doubles(), b.reward.value_and_gradient(x).gradient.to_doubles());
}

// One iteration of adjoint matching by hand, with running costs: paths of u, the lean adjoint a_k = (1 + h b'(x_k))^T a_{k+1} +
// h grad f(x_k) from a_K = grad g, and the regression of u(x_k) on -a_{k+1}.
void match(ControlNetwork& network, nn::AdamW& optimiser, const ControlBenchmark& b, std::uint64_t iteration, double lr) {
  const std::int64_t rows = 64;
  std::vector<Tensor> states;
  const Tensor start = broadcast_to(Var(Tensor::from(b.x0, {1, b.dim})), {rows, b.dim}).value();
  const Tensor end = sde::rollout(field_of(network), b.chain, start, Tensor(), {3, iteration * rows},
                                  [&](int, const Tensor& x, const Tensor&) { states.push_back(x); });
  std::vector<Tensor> costates(states.size());
  Tensor costate = neg(Var(b.reward.value_and_gradient(end).gradient)).value();
  for (int k = b.steps(); k-- > 0;) {
    const auto i = static_cast<std::size_t>(k);
    costates[i] = costate;
    costate = sde::pullback_step(b.base, b.chain, k, states[i], Tensor(), costate).costate;
    if (!b.state_cost) continue;
    Tape tape;
    const Var x = tape.watch(states[i]);
    costate = add(Var(costate), Var(std::move(tape).vjp(sum(b.state_cost(k, x)), x))).value();
  }
  const Gradients g = sum_gradients(network, b.steps(), [&](const ControlNetwork& n, std::int64_t k) {
    const auto i = static_cast<std::size_t>(k);
    const Var t(sde::step_time(b.chain, static_cast<int>(k), states[i]));
    return mean(square(add(n.control(Var(states[i]), t), Var(costates[i]))));
  });
  optimiser.step(mutable_parameters(network), g.parameters, lr);
}

double learned_error(const ControlBenchmark& b, int iterations) {
  nn::Init init(1, DType::f64);
  ControlNetwork network = make_control_network(b.base, {b.dim, {16}}, init);
  nn::AdamW optimiser;
  const nn::LearningRate lr{1e-2, 0, iterations, nn::LearningRate::Decay::cosine, 0.02};
  for (int i = 0; i < iterations; ++i) match(network, optimiser, b, static_cast<std::uint64_t>(i), lr(i));
  return control_error(b, field_of(network), 200, {9}, DType::f64).relative();
}

// The linear problem's lean adjoint is deterministic: the regression has no noise, and what is left is the network.
TEST(ControlNetwork, LearnsTheLinearProblem) { EXPECT_LT(learned_error(control_benchmark("linear_ou", {20, 1}), 300), 0.01); }

// A problem with a running cost, and matrices that do not commute with their transposes.
TEST(ControlNetwork, LearnsAQuadraticProblem) {
  const std::vector<double> x0 = {1.2, -0.8};
  const ControlBenchmark b = quadratic_benchmark(
      "quadratic", {2, {-0.5, 1.5, -0.2, 0.3}, {1, 0.4, 0, 0.8}, {0.8, 0.2, 0.2, 0.5}, {0.6, 0, 0, 0.9}}, x0, 20);
  EXPECT_LT(learned_error(b, 300), 0.02);
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
