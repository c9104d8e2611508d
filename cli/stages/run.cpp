// The stages one after the other, and what is written about them.
#include <costate/tensor/backend.h>
#include <costate/tensor/flops.h>
#include <costate/tensor/parallel.h>

#include <algorithm>
#include <chrono>
#include <fstream>

#include "bytes.h"
#include "commands.h"
#include "config/fields.h"
#include "control/control.h"
#include "distributed/ranks.h"
#include "stages/evaluation.h"
#include "stages/initial_law.h"
#include "run/lock.h"
#include "run/saved_training.h"
#include "run/stop.h"
#include "stages/mem_limit.h"
#include "stages/resume.h"

namespace costate::cli {
namespace {

struct Part {
  const char* name;
  void (*run)(Session&);
  std::vector<std::string> outputs, rows;  // files and metrics that it makes
  bool shared = true;                      // by several ranks; otherwise the first one does it
};

// A control problem has neither a base model to train nor samples to look at.
std::vector<Part> control_parts(const std::vector<Stage>& stages) {
  std::vector<Part> parts;
  for (const Stage stage : stages) {
    if (stage == Stage::finetune) parts.push_back({"finetune", control_finetune_stage, {tuned_checkpoint}, {"finetune"}});
    if (stage == Stage::evaluate)
      parts.push_back({"evaluate", control_evaluate_stage, {"evaluation.json"}, {"evaluate"}, false});
  }
  require(!parts.empty(), "control.problem: a control problem has no base model to train and no samples to draw; use run, ",
          "finetune or evaluate");
  return parts;
}

std::vector<Part> parts_of(const Config& c, const std::vector<Stage>& stages) {
  if (is_control(c)) return control_parts(stages);
  std::vector<Part> parts;
  for (const Stage stage : stages) switch (stage) {
      case Stage::pretrain:
        // A pretrained network is the base model as it is.
        if (c.network.kind != "pretrained")
          parts.push_back({"pretrain", pretrain_stage, {base_checkpoint}, {"pretrain"}});
        if (c.reward.kind == "classifier" || c.data.held_out > 0) {
          Part part{
              "classifiers", classifier_stage, {reward_checkpoint, judge_checkpoint}, {"reward_classifier", "judge"}, false};
          for (std::int64_t i = 1; i < c.reward.ensemble.members; ++i) {
            part.outputs.push_back(member_checkpoint(i));
            part.rows.push_back(sentence({"reward_classifier_", i + 1}));
          }
          parts.push_back(std::move(part));
        }
        break;
      case Stage::finetune:
        parts.push_back({"finetune",
                         finetune_stage,
                         {tuned_checkpoint, adapters_checkpoint, noise_value_checkpoint, noise_control_checkpoint},
                         {"finetune", "noise_value", "noise_control"}});
        break;
      case Stage::sample:
        parts.push_back({"sample", sample_stage, {"samples"}, {"sample"}});
        break;
      case Stage::evaluate:
        parts.push_back({"evaluate", evaluate_stage, {"evaluation.json", "curve.csv"}, {"evaluate"}, false});
        break;
    }
  return parts;
}

StageNames names_of(const std::vector<Part>& parts, const std::vector<Stage>& stages) {
  StageNames out{{}, stages.front() == Stage::pretrain};
  for (const Part& part : parts) out.names.emplace_back(part.name);
  return out;
}

// Every part starts from nothing live, so that its peak is its own.
void run_part(Session& session, const Part& part) {
  const ArithmeticScope arithmetic(session.config);
  session.counter = std::make_shared<Counter>();
  session.assumed_flops = 0;
  session.earlier = {};
  session.others_flops = 0;
  memory::reset_peak();
  session.flops_start = flops();
  const auto start = std::chrono::steady_clock::now();
  part.run(session);
  const memory::Usage peak = memory::peak();
  session.records.push_back(
      {part.name, peak.total > session.earlier.peak.total ? peak : session.earlier.peak, session.counter->now(),
       flops() - session.flops_start + session.assumed_flops + session.others_flops + session.earlier.flops,
       std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() + session.earlier.seconds});
}

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) {
      const std::size_t colon = line.find(": ");
      if (colon != std::string::npos) return line.substr(colon + 2);
    }
  return "unknown";
}

// 0: none.
std::int64_t mem_limit(const RunOptions& options) {
  return options.mem_limit.empty() ? 0 : static_cast<std::int64_t>(bytes_of(options.mem_limit, "--mem-limit"));
}

// Plans of the cpu are exact, and were looked at. On another device, whose libraries work in room of their own, requests
// beyond the limits fail while this stands.
class MemoryLimit {
 public:
  MemoryLimit(Device device, std::int64_t bytes, double mib) {
    if (device == Device::cpu) return;
    const auto configured = static_cast<std::int64_t>(mib * 1024 * 1024);
    memory::set_limit(bytes > 0 && configured > 0 ? std::min(bytes, configured) : std::max(bytes, configured));
  }
  ~MemoryLimit() { memory::set_limit(0); }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;
};

// "cuda:0 (NVIDIA H200)"
std::string device_text(Device device) {
  if (device.kind != DeviceKind::cuda) return to_string(device);
  DeviceProperties properties;
  backend_of(device).properties(device.index, &properties);
  return sentence({to_string(device), " (", static_cast<const char*>(properties.name), ")"});
}

std::string summary(const Config& c, const RunDirectory& directory, const Json& record, bool markdown) {
  std::string out = markdown ? "# " + c.name + "\n\n" : "";
  Table table({"stage", "time", "peak memory", "FLOPs", "network rows"});
  for (const auto& [name, stage] : record["stages"].items()) {
    const Json& e = stage["evaluations"];
    table.row({name, duration_text(stage["seconds"].get<double>()),
               bytes_text(stage["peak"]["bytes"].get<std::int64_t>()),
               stage.contains("flops") ? flops_text(stage["flops"].get<std::int64_t>()) : "",
               std::to_string(e["plain"].get<std::int64_t>() + e["state"].get<std::int64_t>() +
                              e["parameters"].get<std::int64_t>())});
  }
  out += table.text(markdown);
  const Json evaluation = directory.read_json("evaluation.json");
  if (!evaluation.empty()) out += "\n" + evaluation_text(evaluation, markdown);
  return out;
}

}  // namespace

std::vector<StageRecord> plan(const Config& config, const std::vector<Stage>& stages) {
  const finetune::CommunicatorScope alone(nullptr);  // every rank plans for itself, as if it were alone
  use_threads(config.threads);
  Session session(config);
  for (const Part& part : parts_of(config, stages)) run_part(session, part);
  return session.records;
}

namespace {

// What every process must have been asked for.
std::string request_of(const RunOptions& options, const std::vector<Stage>& stages) {
  std::string text = options.overwrite ? "overwrite " : "";
  if (!options.resume.empty()) text += "resume " + options.resume + " ";
  for (const Stage stage : stages) text += std::to_string(static_cast<int>(stage));
  return text;
}

// What is known of a run before anything is written.
struct Prepared {
  Config config;
  Device device = Device::cpu;
  std::int64_t limit = 0;
  std::vector<StageRecord> planned;
};

Prepared prepare(const RunOptions& options, const std::vector<Stage>& stages) {
  Prepared p;
  Config& config = p.config;
  config = read_config(options.config, options.settings).config;
  if (config.out.empty()) config.out = "runs/" + config.name;
  p.device = use_device(config);  // what cannot be had is said before anything is planned
  const std::int64_t limit = p.limit = mem_limit(options);
  if (limit > 0) {
    const MemoryFit fit = fit_to_memory(config, stages, limit);
    config = fitted(config, fit, limit);
    if (fit.chosen >= 0 && !options.quiet && first_rank())
      Progress(false).note("note: --mem-limit " + options.mem_limit + ": " + fit.best().settings() +
                           (fit.best().same_bits ? ", the same bits" : ", the same law in other bits"));
  }
  check_shared(config, stages, finetune::communicator().size());
  p.planned = plan(config, stages);  // finds what is wrong before anything is written
  for (const StageRecord& r : p.planned)
    if (const double most = config.memory_limit * 1024 * 1024; most > 0 && static_cast<double>(r.peak.total) > most)
      fail(Fault::memory, {"memory_limit: ", r.name, " will need ", r.peak.total, " bytes, but the limit is ",
                           config.memory_limit, " MiB; costate plan shows for what"});
  require(options.resume.empty() || !options.overwrite, "--resume goes on with a run, and --overwrite begins it again; give one");
  return p;
}

}  // namespace

void run_command(const RunOptions& options, const std::vector<Stage>& stages, std::ostream& out) {
  Prepared prepared;
  together([&] { prepared = prepare(options, stages); });
  const Config& config = prepared.config;
  const std::vector<StageRecord>& planned = prepared.planned;
  const bool first = first_rank();
  if (several_ranks()) {
    check_alike(config, request_of(options, stages));
    finetune::communicator().reduction =
        config.distributed.reduction == "fast" ? finetune::Reduction::fast : finetune::Reduction::ordered;
    if (config.threads == 0) set_threads(threads_of_rank());
  }
  const RunDirectory directory(config.out, first);
  std::optional<RunLock> lock;
  together([&] {
    if (first) lock.emplace(config.out);
  });
  const std::vector<Part> parts = parts_of(config, stages);
  GoingOn from;
  if (!options.resume.empty()) from = go_on_together(options.resume, config, directory, names_of(parts, stages));
  std::vector<std::string> outputs, rows;
  std::map<std::string, std::int64_t> kept_until;
  if (from.training) kept_until[from.training->stage] = from.training->step;
  for (std::size_t i = from.first; i < parts.size(); ++i) {
    outputs.insert(outputs.end(), parts[i].outputs.begin(), parts[i].outputs.end());
    if (i > from.first || !from.training) rows.insert(rows.end(), parts[i].rows.begin(), parts[i].rows.end());
  }
  const std::string resolved = to_json(config).dump(2) + "\n";
  together([&] {
    if (from.fresh && stages.front() == Stage::pretrain) {
      directory.create(options.overwrite);
      if (lock) lock->take();
      directory.write("config.resolved.json", resolved);
    } else if (from.fresh) {
      directory.resume(outputs, options.overwrite);
    }
  });

  const StopOnSignals signals(several_ranks());
  Json record = first ? directory.read_json("run.json") : Json::object();
  if (record.contains("stages")) {  // what is made again is not done
    for (std::size_t i = from.first; i < parts.size(); ++i) record["stages"].erase(parts[i].name);
    directory.write("run.json", record.dump(2) + "\n");
  }
  directory.remove({"report.html"});  // of the run before
  Metrics metrics(first ? directory.path() : "", rows, config.log.tensorboard, kept_until);
  Progress progress(options.quiet || !first);
  for (const std::string& note : from.notes) progress.note("note: " + note);
  Session session(config, directory, metrics, progress);
  const MemoryLimit held(prepared.device, prepared.limit, config.memory_limit);
  record["name"] = config.name;
  record["version"] = COSTATE_VERSION;
  record["compiler"] = COSTATE_COMPILER;
  record["cpu"] = processor();
  record["device"] = device_text(prepared.device);
  record["threads"] = threads();
  record["seed"] = config.seed;
  record["argv"] = options.argv;
  record["ranks"] = finetune::communicator().size();
  for (std::size_t i = from.first; i < parts.size(); ++i) {
    session.resumed = i == from.first ? from.training : std::nullopt;
    const std::int64_t sent_before = finetune::communicator().bytes_sent;
    if (parts[i].shared)
      run_part(session, parts[i]);
    else
      by_first_rank([&] { run_part(session, parts[i]); });
    finetune::barrier();  // the others read what the first has written
    if (!first) continue;
    metrics.flush(true);
    // The directory's configuration is that of its models; what samples and numbers were made with is kept
    // beside them.
    if (stages.front() == Stage::finetune) {
      directory.write("config.resolved.json", resolved);
      for (const char* stale : {"sample", "evaluate"}) {
        record["stages"].erase(stale);
        tensorboard::empty_events(directory.file("tensorboard/" + std::string(stale)));
      }
      directory.remove({"samples", "evaluation.json", "curve.csv"});  // of the model that was replaced
    }
    const StageRecord& r = session.records.back();
    record["stages"][r.name] = {{"seconds", r.seconds},
                                {"peak", usage_json(r.peak)},
                                {"planned_peak", usage_json(planned[i].peak)},
                                {"evaluations", evaluations_json(r.evaluations)},
                                {"flops", r.flops}};
    if (several_ranks()) record["stages"][r.name]["sent_bytes"] = finetune::communicator().bytes_sent - sent_before;
    for (const char* section : {"reward", "gold", "sampler", "sample", "evaluate"})
      if (r.name == "sample" || r.name == "evaluate")
        record["stages"][r.name]["settings"][section] = to_json(config)[section];
    std::int64_t largest = 0;
    for (const auto& [name, stage] : record["stages"].items())
      largest = std::max(largest, stage["peak"]["bytes"].get<std::int64_t>());
    record["peak_bytes"] = largest;
    directory.write("run.json", record.dump(2) + "\n");
    remove_saved_trainings(directory, r.name);
  }
  if (!first) return;
  directory.write("summary.md", summary(config, directory, record, true));
  if (options.json) {
    Json result = {{"out", directory.path()}, {"run", record}};
    const Json evaluation = directory.read_json("evaluation.json");
    if (!evaluation.empty()) result["evaluation"] = evaluation;
    out << result.dump(2) << "\n";
  } else {
    out << summary(config, directory, record, false) << "\nwritten to " << directory.path() << "\n";
  }
}

void plan_command(const RunOptions& options, std::ostream& out) {
  Config config = read_config(options.config, options.settings).config;
  using Stages = std::vector<Stage>;
  const Stages stages = config.reward.kind == "none" && !is_control(config)
                            ? Stages{Stage::pretrain}
                            : Stages{Stage::pretrain, Stage::finetune, Stage::sample, Stage::evaluate};
  const auto start = std::chrono::steady_clock::now();
  const std::int64_t limit = mem_limit(options);
  MemoryFit fit;
  if (limit > 0) {
    fit = fit_to_memory(config, stages, limit);
    // Nothing fits: the candidates are shown before the error says so.
    if (!options.json) out << memory_fit_text(fit, limit) << "\n" << std::flush;
    config = fitted(config, fit, limit);
  }
  const std::vector<StageRecord> records = plan(config, stages);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::int64_t largest = 0;
  for (const StageRecord& r : records) largest = std::max(largest, r.peak.total);
  if (options.json) {
    Json list = Json::object();
    for (const StageRecord& r : records)
      list[r.name] = {{"peak", usage_json(r.peak)}, {"evaluations", evaluations_json(r.evaluations)}, {"flops", r.flops}};
    Json result{{"stages", list}, {"peak_bytes", largest}, {"threads", threads()}};
    if (limit > 0) result["mem_limit"] = memory_fit_json(fit, limit);
    out << result.dump(2) << "\n";
    return;
  }
  Table table({"stage", "peak bytes", "FLOPs", "network rows", "differentiated by x", "by parameters", "at the peak"});
  for (const StageRecord& r : records)
    table.row({r.name, std::to_string(r.peak.total), flops_text(r.flops), std::to_string(r.evaluations.total()),
               std::to_string(r.evaluations.state), std::to_string(r.evaluations.parameters),
               memory::to_string(r.peak)});
  out << table.text(false) << "\npeak of the whole: " << largest << " bytes (" << bytes_text(largest) << "), "
      << threads() << " threads; planned in " << duration_text(seconds) << "\n";
}

}  // namespace costate::cli
