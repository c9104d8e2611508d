// The commands of the program.
#pragma once
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "config/read.h"
#include "stages/stages.h"

namespace costate::cli {

enum class Stage : unsigned char { pretrain, finetune, sample, evaluate };

struct RunOptions {
  std::string config;
  std::vector<std::string> settings;  // --set, and what --seed, --threads, --device and --out stand for
  std::string mem_limit;              // "512MiB": settings of fine-tuning are chosen so that every stage's peak fits
  std::string resume;                 // "": a new run; auto or the path of a saved training: one that is there goes on
  bool overwrite = false, quiet = false, json = false;
  std::vector<std::string> argv;
};

// Runs stages in a run directory and prints the result to `out`.
void run_command(const RunOptions& options, const std::vector<Stage>& stages, std::ostream& out);
void plan_command(const RunOptions& options, std::ostream& out);
// What is in a safetensors file, a sharded set, a pretrained checkpoint or a run directory.
void inspect_command(const std::string& path, bool json, std::ostream& out);

struct ConvertOptions {
  std::string from, to;                    // a file, an index or a folder; a .safetensors file or a folder
  std::string dialect, dtype, max_shard;   // "": as it is
  bool overwrite = false, lenient_trailing = false;
};
// Writes the checkpoint again; what is not asked to change keeps its bytes. Returns what a user must know, above all
// where numbers change.
std::vector<std::string> convert_command(const ConvertOptions& options, std::ostream& out);

struct DiffOptions {
  std::string a, b;
  double rtol = 0, atol = 0;  // |x - y| <= atol + rtol max(|x|, |y|)
  bool json = false;
};
// Compares names, types, shapes and values; whether they agree within the tolerance.
bool diff_command(const DiffOptions& options, std::ostream& out);

struct StudyOptions {
  std::string config;
  std::vector<std::string> settings;  // --set, top-level keys
  bool plan = false, overwrite = false, quiet = false, json = false;
};
// Compares adjoint methods as the file says (study/study.h): a table, study.csv, study.json, figures and report.html.
void study_command(const StudyOptions& options, std::ostream& out);

struct CompareOptions {
  std::vector<std::string> runs;    // run directories
  std::vector<std::string> ignore;  // keys that do not tell settings apart
  std::string out;                  // where compare.csv, compare.json and report.html go; "": nowhere
  bool overwrite = false, json = false;
};
// Compares runs (compare/compare.h): a table. Returns sentences about runs that were left out.
std::vector<std::string> compare_command(const CompareOptions& options, std::ostream& out);

struct CheckGradOptions {
  std::string config;
  std::vector<std::string> settings;  // as of RunOptions
  std::string model = "base";         // or "tuned", of the run directory
  std::vector<std::string> processes{"chain", "reversible_heun"};  // a solver's name may end in ":SIGMA"
  std::int64_t steps = 0, rows = 4, directions = 4;                // steps 0: min(sampler.steps, 16)
  std::optional<std::uint64_t> seed;  // of the noise and the directions; the configuration's by default
  bool control_cost = false, quiet = false, json = false;
};
// Compares every adjoint method, and central differences, on the problem of a run (check_grad/check.h): a table. Throws
// Error(numerical) with one sentence about the first gradient that is wrong, after printing.
void check_grad_command(const CheckGradOptions& options, std::ostream& out);

// One self-contained HTML page about the run in this directory (run_report/report.h), into `file`, or its report.html if "".
void report_command(const std::string& directory, const std::string& file, std::ostream& out);
// What this machine computes with: instruction set, threads, CUDA devices, versions, and measured rates; where there is no
// CUDA device, the sentence that says why.
void doctor_command(bool json, std::ostream& out);

// The stages on the meta device.
std::vector<StageRecord> plan(const Config& config, const std::vector<Stage>& stages);

}  // namespace costate::cli
