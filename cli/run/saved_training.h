// Trainings that can go on: what is kept of one while it runs, and what is found when it starts again.
//
// A folder RUN/checkpoints/STAGE/step_000123 (tensor/folder.h: all of it or nothing, with checksums) holds
//   state.safetensors   everything that the next updates depend on (finetune/training_state.h)
//   progress.json       the stage, the updates made, the configuration, counts of evaluations and operations, time and peak
#pragma once
#include <costate/finetune/training_state.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "stages/stages.h"

namespace costate::cli {

inline const std::string trainings_folder = "checkpoints";

// The one that a path names, or the newest of a stage that is whole; none. Damaged ones are passed over with a note each, and
// refused with Fault::data where they are named. Throws Fault::argument naming the first key where `config` differs from what
// the training was started with.
SavedTraining read_saved_training(const std::string& path, const Config& config);
std::optional<SavedTraining> newest_saved_training(const RunDirectory& directory, const std::string& stage,
                                                   const Config& config, std::vector<std::string>& notes);
// Removes those of a stage; or those beyond an update, and others of that one than the named one.
void remove_saved_trainings(const RunDirectory& directory, const std::string& stage);
void remove_saved_trainings_beyond(const RunDirectory& directory, const SavedTraining& training);

// What a training loop calls.
class TrainingSaves {
 public:
  using Walk = finetune::StateVisitor::Walk;
  TrainingSaves(Session& session, std::string stage, Walk walk);
  ~TrainingSaves() { session_.saving = false; }
  TrainingSaves(const TrainingSaves&) = delete;
  TrainingSaves& operator=(const TrainingSaves&) = delete;

  // The updates that were made before: 0, or those of the training that the session goes on with, whose state is given back.
  std::int64_t restore();
  // After update `done` of `total`: saves where that is due. Throws Interrupted, having saved, where the run is asked to stop.
  void after(std::int64_t done, std::int64_t total);
  double seconds() const;  // of training, earlier lives included

 private:
  void save(std::int64_t done);
  Session& session_;
  std::string stage_;
  Walk walk_;
  std::chrono::steady_clock::time_point start_, last_save_;
  double earlier_ = 0;
};

}  // namespace costate::cli
