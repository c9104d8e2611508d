// The commands of the program.
#pragma once
#include <ostream>
#include <string>
#include <vector>

#include "config/read.h"
#include "stages/stages.h"

namespace costate::cli {

enum class Stage : unsigned char { pretrain, finetune, sample, evaluate };

struct RunOptions {
  std::string config;
  std::vector<std::string> settings;  // --set, and what --seed, --threads and --out stand for
  bool overwrite = false, quiet = false, json = false;
  std::vector<std::string> argv;
};

// Runs stages in a run directory and prints the result to `out`.
void run_command(const RunOptions& options, const std::vector<Stage>& stages, std::ostream& out);
void plan_command(const RunOptions& options, std::ostream& out);
void inspect_command(const std::string& path, bool json, std::ostream& out);

// The stages on the meta device.
std::vector<StageRecord> plan(const Config& config, const std::vector<Stage>& stages);

}  // namespace costate::cli
