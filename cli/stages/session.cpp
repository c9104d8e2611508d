#include <cstdio>

#include "stages/stages.h"

namespace costate::cli {

namespace {
// What loading a file asks for: room for all values, which then replace those that were there.
template <class Model>
void plan_load(Model& model) {
  const memory::TagScope scope(memory::Tag::parameters);
  std::vector<Tensor> values;
  nn::visit(model, [&](const std::string&, Var& p) { values.push_back(Tensor::empty_like(p.value())); });
  std::size_t i = 0;
  nn::visit(model, [&](const std::string&, Var& p) { p = Var(std::move(values[i++])); });
}
}  // namespace

nn::Network load_network(Session& s, const data::Dataset& data, const std::string& name,
                         const std::vector<std::string>& sections) {
  nn::Network network = make_network(s.config, data, s.device);
  if (s.planning())
    plan_load(network);
  else
    load_checkpoint(*s.directory, name, network, s.config, sections);
  return counted(std::move(network), s.counter);
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
  return make_reward(s.config.reward, data, classifier);
}

std::string numbered(const std::string& checkpoint, std::int64_t step) {
  char digits[24];
  std::snprintf(digits, sizeof digits, "_%06lld", static_cast<long long>(step));
  const std::size_t dot = checkpoint.rfind('.');
  return checkpoint.substr(0, dot) + digits + checkpoint.substr(dot);
}

}  // namespace costate::cli
