#include <costate/nn/filters.h>

#include <algorithm>
#include <cstdio>

#include "stages/stages.h"

namespace costate::cli {

namespace {
// A tensor as it is in a file, and in the order of memory.
Tensor read(const Shape& shape, DType dtype, Device device) {
  const Tensor t = Tensor::empty(nn::shape_in_file(shape), dtype, device);
  return shape.rank() == 4 ? nn::filters_from_file(t) : t;
}
// What loading a file asks for: room for all values, which then replace those that were there.
template <class Model>
void plan_load(Model& model) {
  const memory::TagScope scope(memory::Tag::parameters);
  std::vector<Tensor> values;
  nn::visit_state(model, [&](const std::string&, Var& p) {
    values.push_back(read(p.shape(), p.dtype(), p.device()));
  });
  std::size_t i = 0;
  nn::visit_state(model, [&](const std::string&, Var& p) { p = Var(std::move(values[i++])); });
}
// What reading adapters asks for.
void plan_adapters(nn::Network& network, const LoraConfig& config) {
  const memory::TagScope scope(memory::Tag::parameters);
  nn::visit_layers(network, [&](const std::string& name, Var& weight, nn::Lora& lora, int) {
    const auto fits = [&](const std::string& target) { return nn::matches_target(target, name); };
    if (std::none_of(config.targets.begin(), config.targets.end(), fits)) return;
    const nn::LoraShapes shapes = nn::lora_shapes(weight.shape(), config.rank);
    const auto half = [&](const Shape& shape) { return Var(read(shape, weight.dtype(), weight.device())); };
    lora.down = half(shapes.down), lora.up = half(shapes.up), lora.scale = 1;
  });
}
}  // namespace

nn::Network load_network(Session& s, const data::Dataset& data, const std::string& name,
                         const std::vector<std::string>& sections) {
  nn::Network network = make_network(s.config, data, s.device);
  if (name == base_checkpoint && s.config.network.kind == "pretrained")
    return counted(std::move(network), s.counter);
  if (s.planning())
    plan_load(network);
  else
    load_checkpoint(*s.directory, name, network, s.config, sections);
  return counted(std::move(network), s.counter);
}

nn::Network load_tuned(Session& s, const data::Dataset& data, std::int64_t step) {
  const std::string name = step > 0 ? numbered(tuned_file(s.config), step) : tuned_file(s.config);
  if (s.config.finetune.lora.rank == 0) return load_network(s, data, name, tuned_sections);
  nn::Network network = load_network(s, data, base_checkpoint, base_sections);
  if (s.planning())
    plan_adapters(network, s.config.finetune.lora);
  else
    load_adapters(*s.directory, name, network, s.config, tuned_sections);
  return network;
}

nn::Classifier load_classifier(Session& s, const data::Dataset& data, const ClassifierConfig& config,
                               const std::string& name, const std::vector<std::string>& sections) {
  nn::Classifier classifier = make_classifier(config, data, s.device);
  if (s.planning())
    plan_load(classifier);
  else
    load_checkpoint(*s.directory, name, classifier, s.config, sections);
  return classifier;
}

finetune::Reward load_reward(Session& s, const data::Dataset& data) {
  nn::Classifier classifier;
  if (s.config.reward.kind == "classifier")
    classifier = load_classifier(s, data, s.config.reward_classifier, reward_checkpoint, classifier_sections);
  return counted(make_reward(s.config.reward, data, classifier), s.counter);
}

std::string numbered(const std::string& checkpoint, std::int64_t step) {
  char digits[24];
  std::snprintf(digits, sizeof digits, "_%06lld", static_cast<long long>(step));
  const std::size_t dot = checkpoint.rfind('.');
  return checkpoint.substr(0, dot) + digits + checkpoint.substr(dot);
}

}  // namespace costate::cli
