// Critics: what they learn, how their clip holds, and the neurons that are reset.
#include <costate/finetune/policy_gradient/neuron_reset.h>

#include "finetune/policy_gradient_support.h"

namespace costate::finetune {
namespace {

using namespace testing;

TEST(NeuronReset, ScoresDoNotSeeTheScaleOfALayer) {
  CriticOptions o;
  o.widths = {16, 12}, o.time_frequencies = 2;
  Critic critic(o, 3, 0, 7, Device::cpu);
  const Tensor x = sde::initial_noise({3}, 40, {5, 0}), t = Tensor::full({40}, 0.3);
  const auto before = neuron_scores(critic.network(), x, t, {});
  ValueMlp scaled = nn::clone(critic.network());
  scale_in_place(scaled.hidden[0].weight.value(), 3.0), scale_in_place(scaled.hidden[0].bias.value(), 3.0);
  const auto after = neuron_scores(scaled, x, t, {});
  for (std::size_t l = 0; l < 2; ++l) {
    double mean = 0;
    for (std::size_t i = 0; i < before[l].size(); ++i) {
      EXPECT_NEAR(after[l][i], before[l][i], 1e-5);
      mean += before[l][i] / static_cast<double>(before[l].size());
    }
    EXPECT_NEAR(mean, 1, 1e-6);
  }
  // A neuron whose rectifier never opens is dormant, exactly.
  scaled.hidden[0].bias.value().mutate<float>()[4] = -1000;
  EXPECT_EQ(neuron_scores(scaled, x, t, {})[0][4], 0.0);
}

TEST(NeuronReset, TouchesTheMaskedNeuronsAndNothingElse) {
  CriticOptions o;
  o.widths = {6, 5}, o.time_frequencies = 0, o.lr = 0.01;
  Critic critic(o, 3, 0, 7, Device::cpu);
  const CriticRows rows{sde::initial_noise({3}, 40, {5, 0}), Tensor::full({40}, 0.3), {}, {}, {}};
  CriticTargets targets{std::vector<double>(40, 1.0), std::vector<double>(40, 0.0), 40};
  for (int i = 0; i < 3; ++i) critic.update(rows, targets);
  const ValueMlp old = nn::clone(critic.network());
  const auto m = critic.optimiser().first_moments(), v = critic.optimiser().second_moments();
  const NeuronMasks masks{{1, 0, 0, 1, 0, 0}, {0, 0, 0, 0, 1}};
  nn::Init init(3);
  reset_neurons(critic.network(), critic.optimiser(), masks, false, init);
  const auto was = nn::parameters(old), is = nn::parameters(critic.network());
  ASSERT_EQ(is.size(), 6u);
  // touched(parameter, row, column) by the two masks: rows of a layer's own mask, columns of the layer before.
  const auto touched = [&](std::size_t p, std::int64_t row, std::int64_t column) {
    const std::size_t layer = p / 2;
    const bool own = layer < 2 && masks[layer][row], in = p % 2 == 0 && layer > 0 && masks[layer - 1][column];
    return own || in;
  };
  int changed = 0;
  for (std::size_t p = 0; p < 6; ++p) {
    const std::int64_t columns = was[p].rank() == 2 ? was[p].extent(1) : 1;
    for (std::int64_t i = 0; i < was[p].numel(); ++i) {
      const bool here = touched(p, i / columns, i % columns);
      const float a = was[p].values<float>()[i], b = is[p].values<float>()[i];
      if (here) {
        EXPECT_NE(a, b);
        if (p % 2 == 1) {
          EXPECT_EQ(b, 0.0f);
        }
        EXPECT_EQ(critic.optimiser().first_moments()[p].values<float>()[i], 0.0f);
        EXPECT_EQ(critic.optimiser().second_moments()[p].values<float>()[i], 0.0f);
        ++changed;
      } else {
        EXPECT_EQ(a, b);
        EXPECT_EQ(critic.optimiser().first_moments()[p].values<float>()[i], m[p].values<float>()[i]);
        EXPECT_EQ(critic.optimiser().second_moments()[p].values<float>()[i], v[p].values<float>()[i]);
      }
    }
  }
  EXPECT_EQ(changed, 2 * 3 + 2 + (5 * 2 + 6 - 2) + 1 + 1);
}

TEST(NeuronReset, FreshWeightsHaveTheLawOfAFreshCritic) {
  // The linear critic's N(0, 1/(in + 1)^2): mean and variance of 40000 new weights, 4 standard errors.
  CriticOptions o;
  o.widths = {200, 200}, o.time_frequencies = 0, o.linear = true;
  Critic critic(o, 199, 0, 7, Device::cpu);
  nn::Init init(11);
  reset_neurons(critic.network(), critic.optimiser(), {std::vector<std::uint8_t>(200, 0), std::vector<std::uint8_t>(200, 1)},
                true, init);
  const auto w = critic.network().hidden[1].weight.value().to_doubles();
  const auto n = static_cast<double>(w.size());
  double mean = 0, square = 0;
  for (const double x : w) mean += x / n, square += x * x / n;
  EXPECT_NEAR(mean * 201, 0, 4 / std::sqrt(n));
  EXPECT_NEAR(square * 201 * 201, 1, 4 * std::sqrt(2 / n));
}

TEST(Critic, LearnsAValueAndItsClipHolds) {
  CriticOptions o;
  o.widths = {32, 32}, o.lr = 5e-3;
  Critic critic(o, 1, 0, 3, Device::cpu);
  critic.calibrate(2, 0.5);
  const Tensor x = sde::initial_noise({1}, 256, {5, 0});
  CriticRows rows{x, Tensor::full({256}, 0.5), {}, {}, {}};
  CriticTargets targets{{}, std::vector<double>(256, 2.0), 256};
  for (const double v : x.to_doubles()) targets.target.push_back(2 + std::tanh(v));
  for (int i = 0; i < 300; ++i) critic.update(rows, targets);
  const auto value = critic.values(rows);
  double error = 0;
  for (std::size_t i = 0; i < 256; ++i) error += std::pow(value[i] - targets.target[i], 2) / 256;
  EXPECT_LT(std::sqrt(error), 0.05);
  // Beyond the clip about the old value nothing pulls: with targets far above and V already past old + clip there is no
  // gradient, so that the network keeps its bits (weight decay is 0).
  o.value_clip = 0.1;
  Critic clipped(o, 1, 0, 3, Device::cpu);
  targets.target.assign(256, 1000.0);
  targets.old = clipped.values(rows);
  for (double& v : targets.old) v -= 0.2;
  const auto was = nn::parameters(nn::clone(clipped.network()));
  clipped.update(rows, targets);
  const auto is = nn::parameters(clipped.network());
  // max() takes the larger residual, which is the clipped one: constant.
  for (std::size_t p = 0; p < was.size(); ++p) EXPECT_EQ(is[p].to_doubles(), was[p].to_doubles());
}

}  // namespace
}  // namespace costate::finetune
