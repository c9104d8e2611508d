// finetune.policy_gradient: options of the objectives of this loop.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace costate::cli {

struct WindowConfig {
  std::string kind = "full";
  std::int64_t parts = 5, low = 1, high = 0;
  double centre = 0.0, deviation = 0.0;
  std::vector<std::vector<double>> clusters;
  bool siblings = false;
  std::int64_t every = 10, probes = 32;
  double penalty = 1.0;
  bool operator==(const WindowConfig&) const = default;
};

struct CriticConfig {
  std::string input = "state";
  std::vector<std::int64_t> widths{64, 64};
  bool linear = false;
  std::int64_t time_frequencies = 4;
  double dropout = 0.0;
  bool skip = false;
  double lr = 1e-3, weight_decay = 0.0, clip_norm = 1.0;
  std::int64_t updates = 0, batch = 256, warmup = 0;
  double value_clip = 0.0;
  std::string reset = "none";
  std::int64_t reset_every = 10;
  double threshold = 0.0;
  bool operator==(const CriticConfig&) const = default;
};

struct PolicyGradientConfig {
  std::string loss = "clipped_ratio";
  double ratio_clip = 0.2;
  std::string baseline = "batch", whitening = "none";
  double advantage_clip = 0.0;
  std::int64_t label_buffer = 32, label_minimum = 16;
  std::string divergence = "in_return", divergence_form = "exact";
  double divergence_weight = 1.0;
  std::int64_t group_size = 1;
  bool shared_noise = false;
  std::int64_t epochs = 1, minibatches = 1;
  std::string update = "iteration";
  std::int64_t train_steps = 0, replay = 1;
  std::string log_z = "batch";
  double log_z_lr = 0.1, log_z_decay = 0.99, noise_scale = 1.0;
  WindowConfig window;
  CriticConfig critic;
  bool operator==(const PolicyGradientConfig&) const = default;
};

}  // namespace costate::cli
