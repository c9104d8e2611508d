// From the configuration to the objects of the library: the registry of kinds.
#pragma once
#include <costate/finetune/classifier_training.h>
#include <costate/finetune/data/dataset.h>
#include <costate/finetune/flow_matching.h>
#include <costate/finetune/learner.h>
#include <costate/finetune/problem/mixture_tilt.h>
#include <costate/nn/lora.h>
#include <costate/sde/sampler.h>
#include <costate/tensor/precision.h>
#include <optional>

#include "config/config.h"
#include "config/json.h"
#include "data.h"
#include "rewards.h"

namespace costate::cli {

// What the model and the reward learn from, and what only the judge does (count 0 without held_out).
struct RunData {
  data::Dataset model, judge;
};
// `shapes_only`: generated items are zeros, which costs no time; counts, shapes and classes are those of the
// real data.
RunData load_run_data(const Config& config, bool shapes_only);
Shape item_shape(const data::Dataset& set);

sde::Schedule make_schedule(const Config& config);
// `steps` 0: as many as the configuration says.
sde::Chain make_chain(const Config& config, std::int64_t steps = 0);
// The chain of sample.ode, and of Euler's method where that is a Runge-Kutta method, which is no chain.
sde::Chain make_ode_chain(const Config& config, std::int64_t steps = 0);
// Samples by sample.ode.
Tensor sample_ode(const Config& config, const sde::Field& field, std::int64_t steps, const Shape& shape, std::int64_t count,
                  const Tensor& labels, const sde::NoiseKey& key, Device device);
std::int64_t ode_steps(const Config& config);

// Fresh parameters from the seed.
nn::Network make_network(const Config& config, const data::Dataset& data, Device device);
// What a UNet or a DiT is, as the config.json of the library that reads it (see pretrained/checkpoint.h); null for an mlp.
Json network_json(const Config& config, const data::Dataset& data);
nn::Classifier make_classifier(const ClassifierConfig& config, const data::Dataset& data, Device device);

finetune::FlowMatchingOptions flow_matching_options(const Config& config);
finetune::LearnerOptions learner_options(const OptimiserConfig& config, std::int64_t updates);
nn::LoraOptions lora_options(const Config& config);
finetune::ClassifierOptions classifier_options(const ClassifierConfig& config);

// The law that fine-tuning aims at, in the units that the network sees, where it is known: mixture data with
// a linear or quadratic reward, without a bump and not clipped, whose exponential is integrable, under the KL divergence.
std::optional<finetune::MixtureTilt> closed_form(const Config& config, const data::Dataset& data);

// Labels of samples 0..count-1: the classes in turn; undefined for none. Checked against the classes of the
// data.
Tensor make_labels(const std::vector<std::int64_t>& classes, std::int64_t count, const data::Dataset& data,
                   const char* key, Device device);

// The threads of this process from the key `threads`; 0: one a processor.
void use_threads(std::int64_t threads);

// The arithmetic of products and the type of kept activations while it stands, from the keys `precision` and `activations`.
// Networks that compute in bf16 do so by themselves (make_network).
struct ArithmeticScope {
  explicit ArithmeticScope(const Config& config);
  PrecisionScope products;
  KeptTypeScope activations;
};

// The device of the key `device`, open. Throws Error(runtime) with the reason where it cannot be had.
Device use_device(const Config& config);

// Seeds of the parts of a run: unrelated noise from one number.
enum class Purpose : std::uint64_t { pretrain = 1, finetune, sample, evaluate, split, f_divergence = 40 };
std::uint64_t seed_of(const Config& config, Purpose purpose);

}  // namespace costate::cli
