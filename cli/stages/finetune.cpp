// Adjoint matching from the base checkpoint.
#include <costate/finetune/network_field.h>
#include <costate/sde/memoryless.h>

#include <chrono>

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
  finetune::AdjointMatching trainer(finetune::field_of(base), std::move(tuned), chain,
                                    item_shape(data.model), reward, adjoint_matching_options(c), s.device);
  if (!c.finetune.labels.empty()) {
    std::vector<std::int32_t> labels;
    for (const std::int64_t l : c.finetune.labels) {
      require(l < data.model.classes, "finetune.labels: found ", l, ", but the classes of the data are 0 to ",
              data.model.classes - 1);
      labels.push_back(static_cast<std::int32_t>(l));
    }
    trainer.set_labels(std::move(labels));
  }
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
  finetune::AdjointMatchingMetrics sum;
  double rows = 0;
  s.rounds(total, c.finetune.iterations, [&] {
    for (std::int64_t n = 1; n <= total; ++n) {
      const finetune::AdjointMatchingMetrics m = trainer.step();
      sum.loss += m.loss, sum.reward += m.reward, sum.control_cost += m.control_cost,
          sum.costate_norm += m.costate_norm;
      sum.clipped += m.clipped, sum.gradient_norm += m.gradient_norm, rows += 1;
      if (n % c.finetune.log_every == 0 || n == total) {
        const double seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        s.log("finetune", n,
              {{"loss", sum.loss / rows},
               {"gradient_norm", sum.gradient_norm / rows},
               {"lr", m.lr},
               {"reward", sum.reward / rows},
               {"control_cost", sum.control_cost / rows},
               {"costate_norm", sum.costate_norm / rows},
               {"clipped", sum.clipped / rows}},
              seconds);
        s.step(n, "loss " + short_number(sum.loss / rows) + "  reward " + short_number(sum.reward / rows) +
                      "  KL " + short_number(sum.control_cost / rows));
        if (n < total) sum = {}, rows = 0;
      }
      if (s.checkpoint_due(n, c.finetune.checkpoint_every, c.finetune.iterations)) {
        const nn::Network average = trainer.average();
        if (!s.planning()) keep(numbered(tuned_file(c), n), average, n);
      }
    }
  });
  const nn::Network average = trainer.average();
  if (s.planning()) return;
  keep(tuned_file(c), average, total);
  s.directory->remove({lora ? tuned_checkpoint : adapters_checkpoint});  // of the model that was replaced
  s.end("reward " + short_number(sum.reward / rows) + ", control cost " +
        short_number(sum.control_cost / rows));
}

}  // namespace costate::cli
