#include "loaded_model.h"

#include <costate/finetune/network_field.h>
#include <costate/sde/memoryless.h>
#include <costate/tensor/hooks.h>
#include <costate/tensor/precision.h>

#include <cmath>
#include <filesystem>

#include "config/read.h"
#include "control/control.h"
#include "stages/initial_law.h"

namespace costate::cli {

Json data_facts(const data::Dataset& d) {
  return {{"item_shape", d.item_shape},
          {"classes", d.classes},
          {"scale", d.scale},
          {"offset", d.offset},
          {"description", d.description}};
}

data::Dataset without_items(const Json& facts, const std::string& what) {
  data::Dataset d;
  try {
    facts.at("item_shape").get_to(d.item_shape);
    facts.at("classes").get_to(d.classes);
    facts.at("scale").get_to(d.scale), facts.at("offset").get_to(d.offset);
    facts.at("description").get_to(d.description);
  } catch (const Json::exception& e) {
    fail(Fault::data, {what, " does not hold item_shape, classes, scale, offset and description of the data: ", e.what()});
  }
  std::int64_t size = 1;
  bool good = !d.item_shape.empty() && d.classes >= 0 && std::isfinite(d.scale) && d.scale != 0 && std::isfinite(d.offset);
  constexpr std::int64_t most = std::int64_t{1} << 31;
  for (const std::int64_t n : d.item_shape) good = good && n >= 1 && n <= most && (size *= n) <= most;
  if (!good) fail(Fault::data, {what, " holds ", facts.dump(), ", which is no shape, number of classes and scale of data"});
  return d;
}

LoadedModel::LoadedModel(const std::string& directory, std::string_view which) : which_(which) {
  require(which == "base" || which == "tuned", "model: found '", which, "', expected base or tuned");
  const RunDirectory files(directory);
  config_ = read_config(files.file("config.resolved.json"), {}).config;
  require(!is_control(config_), "'", directory, "' is the run of a control problem, which has no samples");
  const std::string facts = files.file(data_file);
  if (!std::filesystem::exists(facts))
    fail(Fault::io, {"'", facts, "' does not exist; costate pretrain and costate finetune write it"});
  data_ = without_items(files.read_json(data_file), "'" + facts + "'");

  Session session(config_);
  session.device = Device::cpu;
  session.directory = &files;
  network_ = which == "base" ? load_network(session, data_, base_checkpoint, base_sections) : load_tuned(session, data_);
  if (which == "tuned") initial_ = load_initial_law(session, data_);
  if (config_.reward.kind != "none") reward_ = load_plain_reward(session, data_);
}

namespace {
Precision precision_of(const Config& c) {
  return c.precision == "bf16_products" ? Precision::bf16_products : Precision::f32;
}
}  // namespace

std::vector<float> LoadedModel::sample(const Request& r) const {
  require(r.count >= 1, "sample: ", r.count, " samples were asked for");
  require(r.steps >= 0 && r.steps <= 1000000, "sample: found ", r.steps,
          " steps, expected 1 to 1000000, or 0 for those of the run");
  require(r.labels.empty() || static_cast<std::int64_t>(r.labels.size()) == r.count, "sample: ", r.labels.size(),
          " labels for ", r.count, " samples");
  require(r.labels.empty() || config_.network.conditional, "sample: the network of this run has no classes");
  for (const std::int32_t l : r.labels)
    require(l >= 0 && l < data_.classes, "sample: found the label ", l, ", but the classes of the data are 0 to ",
            data_.classes - 1);
  const PrecisionScope precision(precision_of(config_));
  const double guidance = r.guidance.value_or(config_.sample.guidance);
  require(std::isfinite(guidance) && guidance >= 0, "sample: the guidance is ", guidance, ", expected 0 or more");
  const sde::Field field = finetune::guided(finetune::field_of(network_), guidance);
  const Tensor labels = r.labels.empty() ? Tensor() : Tensor::from(r.labels, {r.count});
  const sde::NoiseKey key{r.seed, r.first};
  const std::int64_t steps = r.steps > 0 ? r.steps : r.ode ? ode_steps(config_) : config_.sampler.steps;
  const sde::Chain chain = r.ode ? make_ode_chain(config_, steps) : make_chain(config_, steps);
  if (which_ == "tuned")
    if (const sde::Verdict verdict = sde::may_sample_with(make_chain(config_), chain); !verdict)
      log(Severity::note, {verdict.sentence});
  Tensor x;
  if (r.ode)
    x = sample_ode(config_, field, steps, item_shape(data_), r.count, labels, key, Device::cpu);
  else if (initial_)
    x = sample_from(initial_->draw(r.count, key, labels).x, field, chain, labels, key);
  else
    x = sde::sample(field, chain, item_shape(data_), r.count, labels, key);
  std::vector<float> values = data::original(data_, x.values<float>());
  for (const float v : values)
    if (!std::isfinite(v)) fail(Fault::numerical, {"sample: the samples of the ", which_, " model are not all finite"});
  return values;
}

void LoadedModel::score(std::span<const float> rows, std::int64_t count, std::span<float> values,
                        std::span<float> gradients) const {
  require(has_reward(), "score: the run has no reward (reward.kind is \"none\")");
  const std::int64_t size = item_size();
  require(count >= 1 && static_cast<std::int64_t>(rows.size()) == count * size, "score: ", rows.size(), " numbers are not ",
          count, " rows of ", size);
  const PrecisionScope precision(precision_of(config_));
  std::vector<float> inside(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i)
    inside[i] = static_cast<float>((static_cast<double>(rows[i]) - data_.offset) / data_.scale);
  const finetune::Reward::Scores s =
      reward_.scores(Tensor::from(inside, item_shape(data_).with_front(count)), !gradients.empty());
  std::copy_n(s.value.values<float>().begin(), count, values.begin());
  if (gradients.empty()) return;
  const auto g = s.gradient.values<float>();
  for (std::size_t i = 0; i < g.size(); ++i) gradients[i] = static_cast<float>(static_cast<double>(g[i]) / data_.scale);
}

}  // namespace costate::cli
