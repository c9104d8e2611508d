// Flow matching, and the classifiers.
#include <chrono>

#include "distributed/ranks.h"
#include "loaded_model.h"
#include "run/saved_training.h"
#include "stages/stages.h"

namespace costate::cli {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void train_one(Session& s, const std::string& stage, const std::string& checkpoint,
               const ClassifierConfig& config, const data::Dataset& data, const data::Dataset* test) {
  finetune::ClassifierOptions options = classifier_options(config);
  options.iterations = s.iterations(config.iterations);
  s.begin(stage, options.iterations);
  const auto start = Clock::now();
  double loss = 0;
  std::int64_t averaged = 0, first_flops = 0;
  const finetune::TrainedClassifier trained =
      finetune::train_classifier(data, test, options, s.device, [&](std::int64_t n, double value) {
        loss += value, ++averaged;
        // The accuracy is judged once, whatever the number of iterations.
        if (n == 0) first_flops = flops();
        else if (s.planning() && n + 1 == options.iterations)
          s.assumed_flops += (flops() - first_flops) / n * (config.iterations - options.iterations);
        if ((n + 1) % config.log_every != 0 && n + 1 != options.iterations) return;
        loss /= static_cast<double>(averaged);
        s.log(stage, n + 1, {{"loss", loss}, {"lr", options.lr(n)}}, since(start));
        s.step(n + 1, "loss " + short_number(loss));
        loss = 0, averaged = 0;
      });
  if (s.planning()) return;
  s.log(stage, options.iterations, {{"accuracy", trained.accuracy}}, since(start));
  save_checkpoint(*s.directory, checkpoint, trained.classifier, s.config, stage, options.iterations);
  s.end("accuracy " + short_number(trained.accuracy) +
        (test ? " on data of the other classifier" : " on its own data"));
}

}  // namespace

void classifier_stage(Session& s) {
  const bool wanted = s.config.reward.kind == "classifier", judged = s.config.data.held_out > 0;
  if (!wanted && !judged) return;
  const RunData data = load_run_data(s.config, s.planning());
  if (wanted)
    for (std::int64_t i = 0; i < s.config.reward.ensemble.members; ++i)
      train_one(s, i == 0 ? "reward_classifier" : sentence({"reward_classifier_", i + 1}), member_checkpoint(i),
                member_config(s.config.reward_classifier, i), data.model, judged ? &data.judge : nullptr);
  if (judged) train_one(s, "judge", judge_checkpoint, s.config.judge, data.judge, &data.model);
}

void pretrain_stage(Session& s) {
  const Config& c = s.config;
  const RunData data = load_run_data(c, s.planning());
  const nn::Network network = counted(make_network(c, data.model, s.device), s.counter);
  finetune::FlowMatching trainer(network, data.model, c.network.conditional, flow_matching_options(c),
                                 s.device);
  const Json described = network_json(c, data.model);
  const std::int64_t total = s.iterations(c.pretrain.iterations);
  double loss = 0, norm = 0;
  std::int64_t averaged = 0;
  TrainingSaves saves(s, "pretrain", [&](finetune::StateVisitor& v) {
    v("training", trainer), v("loss", loss), v("norm", norm), v("averaged", averaged);
  });
  s.begin("pretrain", total);
  const std::int64_t done = saves.restore();
  s.rounds(total, c.pretrain.iterations, [&] {
    for (std::int64_t n = done + 1; n <= total; ++n) {
      finetune::FlowMatchingMetrics m{};
      count_shared(s, [&] { m = trainer.step(); });
      loss += m.loss, norm += m.gradient_norm, ++averaged;
      if (n % c.pretrain.log_every == 0 || n == total) {
        const auto k = static_cast<double>(averaged);
        s.log("pretrain", n, {{"loss", loss / k}, {"gradient_norm", norm / k}, {"lr", m.lr}}, saves.seconds());
        s.step(n, "loss " + short_number(loss / k));
        if (n < total) loss = norm = 0, averaged = 0;
      }
      if (s.checkpoint_due(n, c.pretrain.checkpoint_every, c.pretrain.iterations)) {
        const nn::Network average = trainer.average();
        if (!s.planning())
          save_checkpoint(*s.directory, numbered(base_checkpoint, n), average, c, described, "pretrain", n);
      }
      saves.after(n, total);
    }
  });
  const nn::Network average = trainer.average();
  if (s.planning()) return;
  s.directory->write(data_file, data_facts(data.model).dump(2) + "\n");
  save_checkpoint(*s.directory, base_checkpoint, average, c, described, "pretrain", total);
  s.end("loss " + short_number(loss / static_cast<double>(averaged)));
}

}  // namespace costate::cli
