// Fine-tuning inside a C++ program: a flow model of points on two moons is tuned toward a reward that is plain C++ code.
#include <costate/finetune/regression/value_gradient.h>
#include <costate/finetune/data/points.h>
#include <costate/finetune/flow_matching.h>
#include <costate/finetune/network_field.h>
#include <costate/nn/mlp.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/parallel.h>

#include <cstdio>

using namespace costate;

int main() {
  set_threads(2);

  // 1. Pretrain a velocity network by flow matching.
  nn::Init init(/*seed=*/1);
  finetune::FlowMatching pretraining(nn::make_velocity_mlp({.dim = 2, .hidden = 64, .depth = 3}, init),
                                     data::two_moons(0.05, /*seed=*/2, 20000), /*conditional=*/false,
                                     {.batch = 256, .lr = {.peak = 3e-3}, .ema_decay = 0.99});
  for (int i = 0; i < 600; ++i) pretraining.step();
  const nn::Network base = pretraining.average();

  // 2. A reward: its value and gradient for every point. This one likes points on the right.
  const finetune::Reward reward =
      finetune::callback_reward("to the right", [](auto x, auto rows, auto value, auto gradient) {
        for (std::int64_t i = 0; i < rows; ++i) {
          value[i] = 1.5f * x[2 * i];
          gradient[2 * i] = 1.5f;
        }
      });

  // 3. Adjoint matching: the tuned law becomes p(x) exp(reward(x)) / Z.
  const sde::Chain chain = sde::exact_memoryless({}, sde::uniform_grid(40));
  const finetune::ControlProblem problem{chain, finetune::field_of(base), {2}, reward};
  finetune::ValueGradientRegression tuning(problem, base, {.batch = 128});
  for (int i = 0; i < 60; ++i) tuning.step();

  // 4. Samples, before and after.
  const auto mean_x = [&](const nn::Network& network) {
    const Tensor points = sde::sample(finetune::field_of(network), chain, {2}, 4000, Tensor(), {.seed = 3});
    double sum = 0;
    for (std::int64_t i = 0; i < 4000; ++i) sum += points.values<float>()[2 * i];
    return sum / 4000;
  };
  const double before = mean_x(base), after = mean_x(tuning.network());
  std::printf("mean of x: %.2f before, %.2f after\n", before, after);
  return after > before + 0.3 ? 0 : 1;
}
