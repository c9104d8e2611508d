// Classifier-free guidance as a field and as a network.
#include <costate/autograd/ops.h>
#include <costate/finetune/network_field.h>
#include <costate/nn/mlp.h>
#include <costate/tensor/random.h>
#include <gtest/gtest.h>

#include <cmath>

namespace costate::finetune {
namespace {

struct Guidance : testing::Test {
  nn::Network network = [] {
    nn::Init init(3, DType::f64);
    nn::VelocityMlp m = nn::make_velocity_mlp({.dim = 3, .hidden = 8, .depth = 2, .classes = 4}, init);
    m.output.weight = Var(init.normal({3, 8}, 0.5));  // as made it is zero
    return nn::Network(m);
  }();
  Tensor x = Tensor::empty({5, 3}, DType::f64), t = Tensor::full({5}, 0.3, DType::f64);
  Tensor labels = Tensor::from(std::vector<std::int32_t>{0, 3, 1, 1, 2}, {5});
  void SetUp() override { random_normal(x, 1, Stream::user, 0, 0); }
};

TEST_F(Guidance, IsTheStatedCombination) {
  const double w = 1.5;
  const auto conditional = network(x, t, labels).value().to_doubles(), free = network(x, t, {}).value().to_doubles();
  const auto as_field = guided(field_of(network), w)(x, t, labels).value().to_doubles();
  const auto as_network = guided(network, w)(x, t, labels).value().to_doubles();
  double apart = 0;
  for (std::size_t i = 0; i < conditional.size(); ++i) {
    EXPECT_NEAR(as_field[i], (1 + w) * conditional[i] - w * free[i], 1e-12);
    EXPECT_EQ(as_network[i], as_field[i]);
    apart += std::abs(conditional[i] - free[i]);
  }
  EXPECT_GT(apart, 0.1);
}

TEST_F(Guidance, LeavesUnlabelledCallsAlone) {
  EXPECT_EQ(guided(network, 2.0)(x, t, {}).value().to_doubles(), network(x, t, {}).value().to_doubles());
  EXPECT_EQ(guided(field_of(network), 2.0)(x, t, {}).value().to_doubles(), network(x, t, {}).value().to_doubles());
}

TEST_F(Guidance, HasTheNetworksParametersAndTheirGradients) {
  const nn::Network g = guided(network, 0.7);
  const auto names = [](nn::Network n) {
    std::vector<std::string> list;
    nn::visit(n, [&](const std::string& name, Var&) { list.push_back(name); });
    return list;
  };
  EXPECT_EQ(names(g), names(network));
  // d/dp of the sum of squares, against the combination of two watched calls.
  const auto gradient = [&](const std::function<Var(const nn::Network&)>& f) {
    Tape tape;
    std::vector<Var> watched;
    const nn::Network n = nn::watch(network, tape, watched);
    const Var y = sum(square(f(n)));
    return std::move(tape).vjp(y, watched);
  };
  const auto direct = gradient([&](const nn::Network& n) { return guided(n, 0.7)(x, t, labels); });
  const auto composed =
      gradient([&](const nn::Network& n) { return 1.7 * n(x, t, labels) - 0.7 * n(x, t, {}); });
  ASSERT_EQ(direct.size(), composed.size());
  for (std::size_t i = 0; i < direct.size(); ++i) {
    const auto a = direct[i].to_doubles(), b = composed[i].to_doubles();
    for (std::size_t j = 0; j < a.size(); ++j) EXPECT_NEAR(a[j], b[j], 1e-12 * (1 + std::abs(b[j])));
  }
}

}  // namespace
}  // namespace costate::finetune
