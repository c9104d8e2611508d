// scheduler_config.json of diffusers, on our paths and chains (sde/diffusion.h says how their time and signs
// map to ours).
#pragma once
#include <costate/nn/timestep.h>
#include <costate/sde/diffusion.h>

#include "pretrained/state.h"

namespace costate::cli {

struct ImportedScheduler {
  std::string class_name;  // DDPMScheduler, DDIMScheduler, FlowMatchEulerDiscreteScheduler
  bool flow = false;       // flow matching: the linear path
  sde::Schedule schedule;
  sde::Parametrisation prediction = sde::Parametrisation::epsilon;
  bool negated = false;      // the network predicts minus our velocity
  nn::TimestepMap timestep;  // what the network is asked at
  // Discrete models.
  int train_timesteps = 1000;
  sde::BetaLaw law = sde::BetaLaw::linear;
  bool trained_betas = false;
  double beta_start = 1e-4, beta_end = 0.02;
  sde::TimestepSpacing spacing = sde::TimestepSpacing::leading;
  int steps_offset = 0;
  std::string variance_type = "fixed_small";
  // Flow matching.
  double shift = 1;
  bool double_shift = true;        // as the library does when it sets its timesteps
  std::vector<std::string> notes;  // what is not done as there

  // The library's own times, ours, for n steps.
  std::vector<double> grid(int n) const;
  // Its sampler: DDPM, DDIM with this eta, or Euler steps of the flow.
  sde::Chain chain(int n, double eta = 0) const;
};

// Throws Fault::data for another scheduler, another prediction_type, and what the chains cannot do, naming
// file and key.
ImportedScheduler import_scheduler(const Json& config, const std::string& where);

}  // namespace costate::cli
