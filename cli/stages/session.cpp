#include <costate/finetune/network_field.h>
#include <costate/nn/filters.h>
#include <costate/sde/sampler.h>

#include <algorithm>
#include <cstdio>

#include "distributed/ranks.h"
#include "run/stop.h"
#include "stages/stages.h"

namespace costate::cli {

void Session::stop_if_asked() const {
  if (!planning() && !saving && any_rank(stop_requested()))
    throw Interrupted("stopped before the end of a stage, which begins again with --resume auto");
}

Json usage_json(const memory::Usage& u) {
  Json by_tag = Json::object();
  for (int i = 0; i < memory::tag_count; ++i)
    if (u.by_tag[i]) by_tag[std::string(memory::name(static_cast<memory::Tag>(i)))] = u.by_tag[i];
  return {{"bytes", u.total}, {"by_tag", by_tag}};
}
Json evaluations_json(const Evaluations& e) {
  return {{"plain", e.plain}, {"state", e.state}, {"parameters", e.parameters}, {"rewards", e.rewards}};
}

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
  read_network(s, network, name, sections);
  return counted(std::move(network), s.counter);
}

void read_network(Session& s, nn::Network& network, const std::string& name, const std::vector<std::string>& sections) {
  if (s.planning())
    plan_load(network);
  else
    load_checkpoint(*s.directory, name, network, s.config, sections);
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

namespace {
// The multiplier of mass, from samples of what will be tuned: the base with its guidance and labels.
finetune::DivergenceTilt tilt_of(Session& s, const data::Dataset& data, const finetune::Reward& reward) {
  const Config& c = s.config;
  const FDivergenceConfig& f = c.reward.f_divergence;
  constexpr std::int64_t slice = 1024;  // rows in memory at a time
  const sde::Field field =
      finetune::guided(finetune::field_of(load_network(s, data, base_checkpoint, base_sections)), c.finetune.guidance);
  const std::int64_t steps = s.sampler_steps(c.sampler.steps);
  const sde::Chain chain = make_chain(c, steps);
  const Tensor labels = make_labels(c.finetune.labels, f.samples, data, "finetune.labels", s.device);
  std::vector<double> rewards;
  s.begin("base rewards", f.samples);
  for (std::int64_t first = 0; first < f.samples; first += slice) {
    const std::int64_t rows = std::min(slice, f.samples - first);
    Tensor x;
    s.rounds(steps, c.sampler.steps, [&] {
      x = sde::sample(field, chain, item_shape(data), rows, sde::rows_of(labels, first, rows),
                      {seed_of(c, Purpose::f_divergence), static_cast<std::uint64_t>(first)}, DType::f32, s.device);
    });
    const finetune::Reward::Scores scores = reward.scores(x, false);
    if (s.planning()) continue;
    const std::vector<double> values = scores.value.to_doubles();
    for (std::int64_t i = 0; i < rows; ++i)
      if (scores.valid.empty() || scores.valid[i]) rewards.push_back(values[i]);
    s.step(first + rows, "");
  }
  const finetune::FDivergence divergence = finetune::f_divergence(f.kind, f.alpha);
  const double temperature = f.temperature > 0 ? f.temperature : 1 / c.reward.multiplier;
  if (s.planning()) return {.divergence = divergence, .temperature = temperature, .floor = f.floor, .ceiling = f.ceiling};
  try {
    const finetune::DivergenceTilt tilt =
        finetune::divergence_tilt(divergence, rewards, {.temperature = temperature, .floor = f.floor, .ceiling = f.ceiling});
    s.end("multiplier " + short_number(tilt.lambda) + " +- " + short_number(tilt.standard_error) + ", E r " +
          short_number(tilt.mean_reward) + ", D_f " + short_number(tilt.divergence_value) + ", " +
          short_number(tilt.effective_samples) + " effective samples");
    return tilt;
  } catch (const Error& e) {
    fail(e.fault(), {"reward.f_divergence: ", e.what()});
  }
}
}  // namespace

finetune::Reward load_plain_reward(Session& s, const data::Dataset& data) {
  const RewardConfig& c = s.config.reward;
  std::vector<nn::Classifier> classifiers;
  if (c.kind == "classifier")
    for (std::int64_t i = 0; i < c.ensemble.members; ++i)
      classifiers.push_back(load_classifier(s, data, member_config(s.config.reward_classifier, i), member_checkpoint(i),
                                            classifier_sections));
  return counted(make_reward(c, data, classifiers), s.counter);
}

LoadedReward load_reward_with_tilt(Session& s, const data::Dataset& data) {
  const RewardConfig& c = s.config.reward;
  LoadedReward out;
  out.raised = out.plain = load_plain_reward(s, data);
  if (c.f_divergence.kind == "none") return out;
  out.tilt = tilt_of(s, data, out.plain);
  out.raised = finetune::f_divergence_reward(out.plain, *out.tilt, 1 / c.multiplier);
  return out;
}

finetune::Reward load_reward(Session& s, const data::Dataset& data) { return load_reward_with_tilt(s, data).raised; }

finetune::Reward load_gold(Session& s, const data::Dataset& data, const nn::Classifier& judge) {
  const RewardConfig& c = s.config.gold;
  return c.kind == "none" ? finetune::Reward{} : make_reward(c, data, {&judge, 1}, "gold");
}

std::string numbered(const std::string& checkpoint, std::int64_t step) {
  char digits[24];
  std::snprintf(digits, sizeof digits, "_%06lld", static_cast<long long>(step));
  const std::size_t dot = checkpoint.rfind('.');
  return checkpoint.substr(0, dot) + digits + checkpoint.substr(dot);
}

}  // namespace costate::cli
