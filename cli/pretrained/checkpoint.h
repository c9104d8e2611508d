// A pretrained checkpoint: where its parts lie, which network they describe, and the network itself.
#pragma once
#include <costate/nn/dit.h>
#include <costate/nn/network.h>
#include <costate/nn/unet.h>

#include <optional>
#include <variant>

#include "pretrained/names.h"
#include "pretrained/scheduler.h"

namespace costate::cli {

// A pipeline directory (model_index.json with unet/ or transformer/ and scheduler/), a model directory
// (config.json, weights, maybe scheduler_config.json), or weights alone.
struct CheckpointFiles {
  std::string weights;            // for open_weights
  std::string config, scheduler;  // "" when there is none
  std::string pipeline;           // _class_name of model_index.json, or ""
  std::vector<std::string> notes;
};
// Throws Fault::io when nothing is there and Fault::data when it is none of these.
CheckpointFiles find_checkpoint(const std::string& path);

struct NetworkSpec {
  Dialect dialect;
  std::variant<nn::UNetOptions, nn::DitOptions> options;
  std::int64_t channels = 3, height = 0, width = 0;  // of a picture; 0: not told
  std::int64_t classes = 0;
  std::vector<std::string> notes;
};
// From config.json and, for weights without one, from the shapes of the tensors (the original DiT; its number
// of heads is known for the published widths only). Throws Fault::data naming file and key.
NetworkSpec network_spec(const CheckpointFiles& files, const SafetensorsSet& set);

// What the configuration file of the library that reads the dialect says.
Json config_json(const NetworkSpec& spec, Dialect dialect);

// An unfilled network on the meta device.
std::variant<nn::UNet, nn::Dit> blank_network(const NetworkSpec& spec, const nn::TimestepMap& timestep);

// The names of the tensors in the home dialect (nn::UNet, or nn::Dit with its table of positions).
std::vector<std::string> home_names(const NetworkSpec& spec);
// Throws Fault::data with one sentence that lists every tensor that is missing, not expected, or of another
// shape or type.
void check_weights(const NetworkSpec& spec, const SafetensorsSet& set);

struct LoadedCheckpoint {
  CheckpointFiles files;
  NetworkSpec spec;
  std::optional<ImportedScheduler> scheduler;
  nn::Network network;  // of (x, t, labels) in our time and with our sign
  std::vector<std::string> notes;
};
// Reads a checkpoint into a network of f32 parameters, tensor by tensor and without a second copy: F16 and
// BF16 widen, F64 is rounded (and noted). Throws Fault::data with one sentence that lists every tensor that
// is missing, not expected, or of another shape or type. `device` meta: parameters without values, for plans.
LoadedCheckpoint load_pretrained(const std::string& path, Device device = Device::cpu);

}  // namespace costate::cli
