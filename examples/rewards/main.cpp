// Rewards in a C++ program: functions with and without gradients, what becomes of samples that cannot be scored, and the same
// reward under another divergence.
#include <costate/finetune/reward.h>

#include <cmath>
#include <cstdio>
#include <random>

using namespace costate;

int main() {
  // With a gradient: for every objective. Rows of x are points (x, y); value and gradient are zeros to be filled.
  const finetune::Reward ring = finetune::callback_reward("ring", [](auto x, auto rows, auto value, auto gradient) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const float u = x[2 * i], v = x[2 * i + 1], radius = std::sqrt(u * u + v * v), off = radius - 2;
      value[i] = -off * off;
      if (radius > 0) gradient[2 * i] = -2 * off * u / radius, gradient[2 * i + 1] = -2 * off * v / radius;
    }
  });

  // Without one: for objectives that ask for values only. A sample that cannot be scored is NaN, and is left out.
  finetune::Reward slope = finetune::black_box_reward("slope", [](auto x, auto rows, auto value) {
    for (std::int64_t i = 0; i < rows; ++i) value[i] = std::log(x[2 * i + 1] / x[2 * i]);
  });
  slope.on_failure = finetune::Reward::Policy::skip;

  const Tensor points = Tensor::from(std::vector<float>{3, 4, 1, -1, 2, 2}, {3, 2});
  const auto both = ring.value_and_gradient(points);
  const auto scores = slope.scores(points, /*with_gradient=*/false);
  std::printf("ring %g with gradient (%g, %g); %d of 3 slopes failed\n", both.value.values<float>()[0],
              both.gradient.values<float>()[0], both.gradient.values<float>()[1], static_cast<int>(scores.failed));

  // The law that maximises E r - a D_f against a base, here N(0, I), for Pearson's chi^2 with a = 2; the multiplier of mass
  // comes from rewards of samples of the base.
  std::mt19937 engine(1);
  std::normal_distribution<float> normal;
  std::vector<float> base(2 * 20000);
  for (float& v : base) v = normal(engine);
  const std::vector<double> rewards = ring(Tensor::from(base, {20000, 2})).to_doubles();
  const auto tilt = finetune::divergence_tilt(finetune::f_divergence("pearson"), rewards, {.temperature = 2});
  // Any objective with multiplier 1 / 0.5 raises this to that law.
  const finetune::Reward transformed = finetune::f_divergence_reward(ring, tilt, /*temperature=*/0.5);
  std::printf("multiplier %.2f, E r %.2f, D_f %.2f, duality gap %.0e; transformed ring %.2f\n", tilt.lambda, tilt.mean_reward,
              tilt.divergence_value, std::abs(tilt.value - tilt.dual_value), transformed(points).values<float>()[2]);
  return std::abs(tilt.value - tilt.dual_value) < 1e-9 ? 0 : 1;
}
