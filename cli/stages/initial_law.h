// The law of x_0 of a run: learnt before the control, drawn from in training, sampling and evaluation.
#pragma once
#include <costate/finetune/initial_law/tilted_noise.h>

#include <optional>

#include "stages/stages.h"

namespace costate::cli {

inline const std::string noise_value_checkpoint = "checkpoints/noise_value.safetensors";
inline const std::string noise_control_checkpoint = "checkpoints/noise_control.safetensors";

// By finetune.initial_law: fits the value of the noise on paths of the base, and the control of `flow` to it, keeps both as
// checkpoints, logs them as `noise_value` and `noise_control`, and sets problem.initial. `noise`: removes what an earlier run
// kept.
void learn_initial_law(Session& session, const data::Dataset& data, finetune::ControlProblem& problem);

// That of the tuned model, from the checkpoints; none for `noise`.
std::optional<finetune::TiltedNoise> load_initial_law(Session& session, const data::Dataset& data);

// Samples of a chain from that law: the noises of the steps are those of sde::sample.
Tensor sample_from(const Tensor& x0, const sde::Field& field, const sde::Chain& chain, const Tensor& labels,
                   const sde::NoiseKey& key);

}  // namespace costate::cli
