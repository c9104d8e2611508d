// A study of adjoint methods: networks x processes x steps x methods, each predicted on the meta device, then run and
// compared with the prediction and with the stored gradient in double precision.
#pragma once
#include <costate/sde/adjoint/adjoint.h>

#include <ostream>
#include <string>
#include <vector>

#include "config/config.h"
#include "config/json.h"
#include "progress.h"
#include "report/html.h"
#include "study/problem.h"

namespace costate::cli {

struct StudyNetwork {
  std::string name;
  std::int64_t batch = 16;
  bool recompute = false;  // the blocks of the network are computed again in the sweep
  Config config;  // data (for the shape of an item), path, prediction, network, sampler; the rest is not looked at
};
struct StudyMethod {
  sde::AdjointOptions options;
  std::string label() const;  // "binomial(8)"
};

struct StudyConfig {
  std::string name = "study", out;
  std::int64_t seed = 0, threads = 0, rounds = 3;
  bool reference = true;  // the stored gradient in double precision is computed too, for the errors
  std::vector<std::int64_t> steps{16, 64};
  std::vector<StudyProcess> processes;
  std::vector<StudyMethod> methods;
  std::vector<StudyNetwork> networks;
};
// Strict as the run's configuration; throws Fault::argument naming the key. Settings as of --set, top-level keys only.
StudyConfig read_study(const std::string& path, const std::vector<std::string>& settings);
StudyConfig study_of(const Json& json);
Json to_json(const StudyConfig& study);

struct StudyRow {
  std::string network, process, method;
  std::int64_t steps = 0;
  std::string refusal;  // why this cell is empty; the rest is then 0
  struct Numbers {
    memory::Usage peak;  // the parameters, and all that the gradient asked for
    sde::Work work;
    std::int64_t flops = 0;
  } planned, measured;
  double seconds = 0;  // median of the rounds
  double error = 0;    // |g - g64|/|g64| over all gradients; NaN without reference
  bool exact = false;  // the gradient has the bits of store_all in the same precision
};

// `planning`: predictions alone.
std::vector<StudyRow> run_study(const StudyConfig& study, bool planning, Progress& progress);
// What a row promises and does not hold: "" if it does. Predicted and measured numbers are equal, and replayed gradients have
// the bits of the stored one.
std::string broken_promise(const StudyRow& row);

// Tables and pictures of a study.
std::string study_table(const std::vector<StudyRow>& rows, bool planning);
Json to_json(const std::vector<StudyRow>& rows, bool planning);
std::string study_csv(const std::vector<StudyRow>& rows, bool planning);
report::Report study_report(const StudyConfig& study, const std::vector<StudyRow>& rows);

}  // namespace costate::cli
