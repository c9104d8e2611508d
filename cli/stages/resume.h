// Where a run that is there already goes on (--resume).
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "commands.h"
#include "run/directory.h"

namespace costate::cli {

// Stages of a run in their order, by name, and whether the first one makes the run directory.
struct StageNames {
  std::vector<std::string> names;
  bool from_the_beginning = false;
};

struct GoingOn {
  std::size_t first = 0;                  // stages before it are done
  std::optional<SavedTraining> training;  // of that stage
  bool fresh = true;                      // there is nothing to go on from: the run begins
  std::vector<std::string> notes;         // for people: what was passed over, where it goes on
};

// `how`: "auto", the newest training that is whole, or the path of one, later ones being removed. Removes what a killed process
// left half done. Throws Fault::argument where the run in the directory has another configuration.
GoingOn go_on(const std::string& how, const Config& config, const RunDirectory& directory, const StageNames& stages);
// The same by several ranks: the first one finds out, and removes; all read what it found.
GoingOn go_on_together(const std::string& how, const Config& config, const RunDirectory& directory, const StageNames& stages);

}  // namespace costate::cli
