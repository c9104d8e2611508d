// Fine-tuning from the base checkpoint, by any objective.
#include <costate/finetune/network_field.h>
#include <costate/sde/memoryless.h>

#include "loaded_model.h"
#include "objectives/objectives.h"
#include "stages/initial_law.h"
#include "stages/train.h"

namespace costate::cli {

namespace {

// Of the reward's classifier, for objectives that look at them.
std::function<Tensor(const Tensor&)> reward_features(Session& s, const data::Dataset& data) {
  if (!reads_features(s.config)) return {};
  const nn::Classifier classifier =
      load_classifier(s, data, s.config.reward_classifier, reward_checkpoint, classifier_sections);
  return [classifier](const Tensor& x) { return classifier.features(Var(x)).value(); };
}

}  // namespace

void finetune_stage(Session& s) {
  const Config& c = s.config;
  const RunData data = load_run_data(c, s.planning());
  const finetune::Reward reward = load_reward(s, data.model);
  // The tuned network, made from it, computes its blocks again as the base does.
  const nn::Network base =
      finetune::guided(load_network(s, data.model, base_checkpoint, base_sections), c.finetune.guidance)
          .recompute_blocks(c.finetune.recompute == "blocks");
  const bool lora = c.finetune.lora.rank > 0;
  nn::Network tuned =
      lora ? nn::Network(nn::Adapters{nn::with_lora(base, lora_options(c))}) : nn::clone(base);
  const sde::Chain chain = make_chain(c);
  finetune::ControlProblem problem{.chain = chain,
                                   .base = finetune::field_of(base),
                                   .sample_shape = item_shape(data.model),
                                   .reward = reward,
                                   .reward_multiplier = c.reward.multiplier,
                                   .device = s.device};
  for (const std::int64_t l : c.finetune.labels) {
    require(l < data.model.classes, "finetune.labels: found ", l, ", but the classes of the data are 0 to ",
            data.model.classes - 1);
    problem.labels.push_back(static_cast<std::int32_t>(l));
  }
  learn_initial_law(s, data.model, problem);
  const std::unique_ptr<finetune::Objective> trainer =
      objective(c.finetune.objective).make({c, std::move(problem), base, std::move(tuned), reward_features(s, data.model)});
  const Json described = network_json(c, data.model);
  const auto keep = [&](const std::string& name, const nn::Network& network, std::int64_t step) {
    if (lora)
      save_adapters(*s.directory, name, network, c, "finetune", step);
    else
      save_checkpoint(*s.directory, name, network, c, described, "finetune", step);
  };
  if (s.progress && !s.planning()) {
    const sde::Memory memory = sde::memory_of(chain);
    if (!memory.memoryless || !memory.convertible) s.progress->note("note: " + memory.sentence);
  }
  train(s, *trainer, tuned_file(c), {.keep = keep});
  if (s.planning()) return;
  s.directory->write(data_file, data_facts(data.model).dump(2) + "\n");
  // Of the model that was replaced.
  s.directory->remove({lora ? tuned_checkpoint : adapters_checkpoint});
}

}  // namespace costate::cli
