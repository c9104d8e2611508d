// Fine-tuning from the base checkpoint, by any objective.
#include <costate/finetune/network_field.h>
#include <costate/sde/memoryless.h>

#include <chrono>
#include <cmath>

#include "objectives/objectives.h"
#include "stages/stages.h"

namespace costate::cli {

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
  const std::unique_ptr<finetune::Objective> trainer =
      objective(c.finetune.objective).make({c, std::move(problem), base, std::move(tuned)});
  const Json described = network_json(c, data.model);
  const auto keep = [&](const std::string& name, const nn::Network& network, std::int64_t step) {
    if (lora)
      save_adapters(*s.directory, name, network, c, "finetune", step);
    else
      save_checkpoint(*s.directory, name, network, c, described, "finetune", step);
  };
  const std::int64_t total = s.iterations(c.finetune.iterations);
  s.begin("finetune", total);
  if (s.progress && !s.planning()) {
    const sde::Memory memory = sde::memory_of(chain);
    if (!memory.memoryless || !memory.convertible) s.progress->note("note: " + memory.sentence);
  }
  const auto start = std::chrono::steady_clock::now();
  // Means over the iterations since the last row; lr is the last one.
  std::vector<finetune::Metrics::Entry> mean;
  double rows = 0;
  const auto value = [&](std::string_view name) {
    for (const auto& m : mean)
      if (m.name == name) return m.value;
    return std::nan("");
  };
  s.rounds(total, c.finetune.iterations, [&] {
    for (std::int64_t n = 1; n <= total; ++n) {
      const finetune::Metrics metrics = trainer->step();
      rows += 1;
      if (rows == 1) mean = metrics.entries();
      for (std::size_t i = 0; rows > 1 && i < mean.size(); ++i) {
        const double v = metrics.entries()[i].value;
        mean[i].value = mean[i].name == "lr" ? v : mean[i].value + (v - mean[i].value) / rows;
      }
      if (n % c.finetune.log_every == 0 || n == total) {
        const double seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        Values row;
        for (const auto& m : mean) row.emplace_back(m.name, m.value);
        s.log("finetune", n, row, seconds);
        s.step(n, "loss " + short_number(value("loss")) + "  reward " + short_number(value("reward")) + "  KL " +
                      short_number(value("control_cost")));
        rows = 0;
      }
      if (s.checkpoint_due(n, c.finetune.checkpoint_every, c.finetune.iterations)) {
        const nn::Network average = trainer->average();
        if (!s.planning()) keep(numbered(tuned_file(c), n), average, n);
      }
    }
  });
  const nn::Network average = trainer->average();
  if (s.planning()) return;
  keep(tuned_file(c), average, total);
  s.directory->remove({lora ? tuned_checkpoint : adapters_checkpoint});  // of the model that was replaced
  s.end("reward " + short_number(value("reward")) + ", control cost " + short_number(value("control_cost")));
}

}  // namespace costate::cli
