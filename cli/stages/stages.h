// The stages of a run. Each is a function of a Session and runs either for real, on files in a run directory,
// or as a plan: the same code on the meta device with a few iterations, which touches no file but those of
// the data.
#pragma once
#include <costate/tensor/flops.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "build.h"
#include "progress.h"
#include "run/counter.h"
#include "run/directory.h"
#include "run/metrics.h"

namespace costate::cli {

struct StageRecord {
  std::string name;
  memory::Usage peak;
  Evaluations evaluations;
  std::int64_t flops = 0;  // matrix products, convolutions, attention: see tensor/flops.h
  double seconds = 0;
};

// What was kept of a training that can go on (run/saved_training.h).
struct SavedTraining {
  std::string path, stage;  // its folder; pretrain or finetune
  std::int64_t step = 0;    // updates made
  Evaluations evaluations;  // by then, of the stage
  memory::Usage peak;
  std::int64_t flops = 0;
  double seconds = 0;
};
Json usage_json(const memory::Usage& usage);
Json evaluations_json(const Evaluations& evaluations);

class Session {
 public:
  // For real, on the configuration's device.
  Session(const Config& c, const RunDirectory& d, Metrics& m, Progress& p)
      : config(c), device(use_device(c)), directory(&d), metrics(&m), progress(&p) {}
  // A plan.
  explicit Session(const Config& c) : config(c), device(Device::meta) {}

  const Config& config;
  Device device = Device::cpu;
  const RunDirectory* directory = nullptr;
  Metrics* metrics = nullptr;
  Progress* progress = nullptr;
  std::shared_ptr<Counter> counter = std::make_shared<Counter>();
  std::vector<StageRecord> records;
  std::int64_t assumed_flops = 0;  // of what a plan counts without doing it

  std::optional<SavedTraining> resumed;  // what the stage that runs goes on from
  struct {
    memory::Usage peak;
    std::int64_t flops = 0;
    double seconds = 0;
  } earlier;                     // what that took
  std::int64_t flops_start = 0;   // the count of operations where this life's part of the stage began
  std::int64_t others_flops = 0;  // since then, of other ranks at what they shared (distributed/ranks.h)
  bool saving = false;           // a training loop runs, which stops by itself when it is asked to
  // Whether the stage goes on from a training that has left what comes before it in the stage.
  bool goes_on(std::string_view stage) const { return resumed && resumed->stage == stage; }

  bool planning() const { return directory == nullptr; }
  // A plan needs few iterations to meet every request for memory: the first makes the optimiser's moments and
  // the averages, the others find them there.
  std::int64_t iterations(std::int64_t wanted) const {
    return planning() ? std::min<std::int64_t>(wanted, 3) : wanted;
  }
  // Whether a checkpoint is due after `done` updates; a plan that has any makes one after its second update.
  bool checkpoint_due(std::int64_t done, std::int64_t every, std::int64_t total) const {
    if (every == 0 || every >= total) return false;
    return planning() ? done == 2 : done % every == 0 && done < total;
  }
  // Steps of a sampler whose states are not kept: in a plan, all of them ask for the same memory.
  std::int64_t sampler_steps(std::int64_t wanted) const { return iterations(wanted); }
  // Runs body(), which does `made` rounds; in a plan it counts as `wanted` of them.
  template <class Body>
  void rounds(std::int64_t made, std::int64_t wanted, const Body& body) {
    const Evaluations before = counter->now();
    const std::int64_t flops_before = flops() + assumed_flops;
    body();
    if (!planning()) return;
    counter->repeat(before, made, wanted);
    assumed_flops += more(flops() + assumed_flops - flops_before, made, wanted);
  }

  void log(std::string_view stage, std::int64_t step, const Values& values, double seconds) {
    if (metrics) metrics->row(stage, step, values, seconds);
  }
  // Shown by TensorBoard, if the configuration asks for it.
  void log_picture(std::string_view stage, const std::string& name, const Raster& picture) {
    if (metrics) metrics->picture(stage, 0, name, picture);
  }
  void log_distribution(std::string_view stage, const std::string& name, std::span<const double> values) {
    if (metrics) metrics->distribution(stage, 0, name, values);
  }
  void begin(std::string_view stage, std::int64_t steps) {
    if (progress) progress->begin(stage, steps);
    stop_if_asked();
  }
  void step(std::int64_t done, const std::string& detail) {
    if (progress) progress->step(done, detail);
    stop_if_asked();
  }
  void end(const std::string& summary) {
    if (progress) progress->end(summary);
  }

 private:
  // Throws Interrupted: what is not a training begins again when the run goes on.
  void stop_if_asked() const;
};

// Pretraining, and the classifiers that the configuration asks for.
void pretrain_stage(Session& session);
void classifier_stage(Session& session);
void finetune_stage(Session& session);
void sample_stage(Session& session);
void evaluate_stage(Session& session);

// What a stage reads: fresh parameters of the right shapes, filled from the checkpoint; in a plan the same
// requests are made and nothing is read.
nn::Network load_network(Session& session, const data::Dataset& data, const std::string& name,
                         const std::vector<std::string>& sections);
// Fills a network of the right shapes from a checkpoint, or plans to.
void read_network(Session& session, nn::Network& network, const std::string& name, const std::vector<std::string>& sections);
// The tuned network: its checkpoint, or the base with the adapters of the run. `step`: the intermediate one after so many
// updates; 0: the last.
nn::Network load_tuned(Session& session, const data::Dataset& data, std::int64_t step = 0);
nn::Classifier load_classifier(Session& session, const data::Dataset& data, const ClassifierConfig& config,
                               const std::string& name, const std::vector<std::string>& sections);
// What fine-tuning raises: after the f-divergence, whose multiplier is estimated from samples of the base drawn here. It is the
// same in every stage, as the noise of those samples is.
finetune::Reward load_reward(Session& session, const data::Dataset& data);
struct LoadedReward {
  finetune::Reward raised, plain;  // the same without an f-divergence
  std::optional<finetune::DivergenceTilt> tilt;
};
LoadedReward load_reward_with_tilt(Session& session, const data::Dataset& data);
// That of the configuration without an f-divergence.
finetune::Reward load_plain_reward(Session& session, const data::Dataset& data);
// The gold reward, empty for the kind `none`. `judge` is looked at for the classifier.
finetune::Reward load_gold(Session& session, const data::Dataset& data, const nn::Classifier& judge);

inline const std::string base_checkpoint = "checkpoints/base.safetensors";
inline const std::string tuned_checkpoint = "checkpoints/tuned.safetensors";
inline const std::string adapters_checkpoint = "checkpoints/tuned.lora.safetensors";
inline const std::string& tuned_file(const Config& c) {
  return c.finetune.lora.rank > 0 ? adapters_checkpoint : tuned_checkpoint;
}
inline const std::string reward_checkpoint = member_checkpoint(0);
inline const std::string judge_checkpoint = "checkpoints/judge.safetensors";
// The keys that must not change from stage to stage of one run.
inline const std::vector<std::string> base_sections{"seed",       "data",    "path",
                                                    "prediction", "network", "pretrain"};
inline const std::vector<std::string> tuned_sections{"seed",    "data",     "path",   "prediction",
                                                     "network", "pretrain", "reward", "finetune"};
inline const std::vector<std::string> classifier_sections{"seed", "data", "classifiers"};

// A checkpoint's name with the number of updates in it.
std::string numbered(const std::string& checkpoint, std::int64_t step);

}  // namespace costate::cli
