// Run directories as `costate compare` reads them, and which of them are seeds of one setting.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/json.h"
#include "run/csv_columns.h"

namespace costate::cli {

struct ComparedRun {
  std::string path, name, objective;
  std::int64_t seed = 0;
  Json setting;                                      // the configuration without what may differ between seeds of one setting
  std::map<std::string, double> numbers;             // by the keys of measures(); those that are not known are not there
  std::optional<CsvColumns> metrics;                 // of fine-tuning and the other stages
  std::optional<CsvColumns> curve;                   // of intermediate checkpoints
  std::vector<std::pair<double, double>> best_of_n;  // divergence and reward of the best of 1, 2, 4, ... of the base
  std::string unfinished;                            // why it is left out, a sentence; "": it is whole
};

// One number of a run. The better of two, where that can be said at all.
struct Measure {
  std::string key, title;
  enum class Better : unsigned char { neither, higher, lower } better = Better::neither;
};
// In the order of tables: reward, gold, path KL, objective, gap to log Z, diversity, distances, cost.
const std::vector<Measure>& measures();

// Throws Error(io) where there is no such directory, Error(argument) where it is no run directory, Error(data) for damaged
// files. A run that was not fine-tuned or not evaluated is `unfinished`.
ComparedRun read_run(const std::string& path);

// Runs whose configurations agree in everything but name, seed, threads, out, limits of memory, and what is sampled for
// pictures.
struct ComparedGroup {
  std::string label;  // the keys that tell the settings apart, or the runs' name
  std::vector<ComparedRun> runs;
};
// Over the runs of a group that have the number.
struct Spread {
  std::int64_t runs = 0;
  double mean = 0, standard_error = 0, low = 0, high = 0;  // standard_error NaN for one run
};
std::optional<Spread> spread(const ComparedGroup& group, const std::string& key);
std::optional<Spread> spread_of(const std::vector<double>& values);  // none of none

// What fine-tuning on one reward does to the others.
struct CrossRewards {
  std::vector<std::string> rewards;  // columns: the rewards that runs were trained on, then the gold ones
  // By setting and reward, over the seeds of the setting; none where it cannot be said.
  std::vector<std::vector<std::optional<Spread>>> cells;
  std::vector<std::string> notes;  // why rewards or samples are missing, sentences
};

struct Comparison {
  std::vector<ComparedGroup> groups;  // in the order in which they were given
  CrossRewards cross;
  std::vector<std::string> left_out;  // sentences
  std::vector<std::string> ignored;   // keys and sections in which runs of one setting may differ, too
};
// Reads all. Throws Error(argument) unless at least one run is whole, and for a key in `ignored` that no run has. A run that
// repeats seed and setting of another one is left out: it is no further sample.
Comparison compare_runs(const std::vector<std::string>& paths, const std::vector<std::string>& ignored = {});

}  // namespace costate::cli
