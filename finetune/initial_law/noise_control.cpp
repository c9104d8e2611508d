#include <costate/finetune/initial_law/noise_control.h>

#include <costate/finetune/network_field.h>
#include <costate/sde/sampler.h>

#include <cmath>

namespace costate::finetune {
namespace {

sde::Chain point_chain(int steps) {
  require(steps >= 1, "noise control: ", steps, " steps; expected at least 1");
  sde::Chain chain;
  const double h = 1.0 / steps;
  for (int k = 0; k <= steps; ++k) chain.t.push_back(k * h);
  const auto n = static_cast<std::size_t>(steps);
  chain.A.assign(n, 1.0), chain.C.assign(n, h), chain.std.assign(n, std::sqrt(h));
  chain.step = sde::Step::euler_maruyama;
  chain.noise = {sde::NoiseLaw::Kind::constant, 1.0};
  chain.description = "Brownian motion from a point, in " + std::to_string(steps) + " steps";
  return chain;
}

}  // namespace

ControlProblem noise_control_problem(const nn::Network& value, const Shape& sample_shape, int steps, Device device) {
  Reward reward;
  reward.name = "the value of the noise";
  reward.value = [value](const Var& x) {
    return value(x, Var(Tensor::full({x.extent(0)}, 0.0, x.dtype(), x.value().device())), Tensor());
  };
  ControlProblem p{.chain = point_chain(steps),
                   .base = [](const Var& x, const Var&,
                              const Tensor&) { return Var(Tensor::zeros(x.shape(), x.dtype(), x.value().device())); },
                   .sample_shape = sample_shape,
                   .reward = std::move(reward)};
  p.initial = [sample_shape, device](std::int64_t rows, const sde::NoiseKey&) {
    return Tensor::zeros(sample_shape.with_front(rows), DType::f32, device);
  };
  p.device = device;
  return p;
}

Tensor controlled_noise(const nn::Network& control, const Shape& sample_shape, int steps, std::int64_t rows,
                        const sde::NoiseKey& key, Device device) {
  const sde::Chain chain = point_chain(steps);
  const sde::Field field = field_of(control);
  const sde::NoiseKey own{key.seed ^ 0xA24BAED4963EE407ull, key.first_sample};
  const Tensor out = Tensor::empty(sample_shape.with_front(rows), DType::f32, device);
  sde::each_chunk(rows, [&](std::int64_t begin, std::int64_t n) {
    out.slice(begin, n).copy_from(
        sde::rollout(field, chain, Tensor::zeros(sample_shape.with_front(n), DType::f32, device), Tensor(), own.from(begin)));
  });
  return out;
}

}  // namespace costate::finetune
