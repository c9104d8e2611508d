// Trainings of a millisecond, for what is done to them many thousand times.
#pragma once
#include <costate/finetune/backpropagation/backpropagation.h>
#include <costate/finetune/network_field.h>
#include <costate/finetune/policy_gradient/policy_gradient.h>
#include <costate/finetune/regression/value_gradient.h>
#include <costate/nn/init.h>
#include <costate/nn/mlp.h>
#include <costate/sde/grid.h>

#include <memory>
#include <string>
#include <vector>

namespace costate::faults {

inline nn::Network small_network(std::uint64_t seed) {
  nn::MlpOptions o;
  o.dim = 2, o.hidden = 6, o.depth = 1, o.time_frequencies = 1;
  const memory::TagScope scope(memory::Tag::parameters);
  nn::Init init(seed);
  return nn::Network(nn::make_velocity_mlp(o, init));
}
inline finetune::ControlProblem small_problem(const nn::Network& base) {
  return {.chain = sde::exact_memoryless({}, sde::uniform_grid(3)),
          .base = finetune::field_of(base),
          .sample_shape = {2},
          .reward = finetune::quadratic_reward({1.0, -0.5}, {0.5, 0.1, 0.1, 0.3})};
}

inline const std::vector<std::string> small_trainings{"adjoint matching with replay", "policy gradient with a critic",
                                                      "backpropagation"};
inline std::unique_ptr<finetune::Objective> small_training(const std::string& name, const nn::Network& base,
                                                           std::int64_t batch = 4) {
  const finetune::LearnerOptions learner{.lr = {.peak = 1e-2}, .ema_decay = 0.9};
  if (name == small_trainings[0]) {
    finetune::ValueGradientOptions o;
    o.batch = batch, o.replay.size = 2 * batch, o.learner = learner;
    return std::make_unique<finetune::ValueGradientRegression>(small_problem(base), nn::clone(base), o);
  }
  if (name == small_trainings[1]) {
    finetune::PolicyGradientOptions o;
    o.batch = batch, o.learner = learner, o.advantage.baseline = finetune::Baseline::value, o.critic.widths = {5};
    o.critic.reset = finetune::CriticOptions::Reset::active, o.critic.reset_every = 2;
    return std::make_unique<finetune::PolicyGradient>("test", small_problem(base), nn::clone(base), o);
  }
  finetune::BackpropagationOptions o;
  o.batch = batch, o.learner = learner;
  return std::make_unique<finetune::Backpropagation>(small_problem(base), nn::clone(base), o);
}

}  // namespace costate::faults
