#include "run/saved_training.h"

#include <costate/tensor/error.h>
#include <costate/tensor/folder.h>
#include <costate/tensor/safetensors_stream.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>

#include "distributed/ranks.h"
#include "run/stop.h"

namespace costate::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
constexpr const char *state_file = "state.safetensors", *progress_file = "progress.json";
constexpr std::string_view step_prefix = "step_";

std::string folder_of_stage(const std::string& stage) { return trainings_folder + "/" + stage; }

// step_000123: 123; -1 for other names.
std::int64_t step_of(const std::string& name) {
  std::int64_t step = 0;
  if (!name.starts_with(step_prefix)) return -1;
  const char *begin = name.data() + step_prefix.size(), *end = name.data() + name.size();
  const auto [after, bad] = std::from_chars(begin, end, step);
  return bad == std::errc() && after == end && begin != end && step >= 0 ? step : -1;
}

// Newest first.
std::vector<std::string> saved_in(const RunDirectory& directory, const std::string& stage) {
  std::vector<std::string> names;
  const std::string folder = directory.file(folder_of_stage(stage));
  if (!fs::is_directory(folder)) return names;
  for (const auto& entry : fs::directory_iterator(folder))
    if (std::string name = entry.path().filename().string(); step_of(name) >= 0) names.push_back(std::move(name));
  std::sort(names.begin(), names.end(), [](const auto& a, const auto& b) { return step_of(a) > step_of(b); });
  for (std::string& name : names) name = folder + "/" + name;
  return names;
}

memory::Usage usage_of(const Json& json) {
  memory::Usage u;
  u.total = json.at("bytes").get<std::int64_t>();
  for (int i = 0; i < memory::tag_count; ++i)
    u.by_tag[static_cast<std::size_t>(i)] = json.at("by_tag").value(std::string(memory::name(static_cast<memory::Tag>(i))),
                                                                    std::int64_t{0});
  return u;
}

}  // namespace

SavedTraining read_saved_training(const std::string& path, const Config& config) {
  check_folder(path);
  const std::string name = path + "/" + progress_file;
  const auto bytes = read_file(name, std::uint64_t{16} << 20);
  SavedTraining saved{path, "", 0, {}, {}, 0, 0};
  try {
    const Json progress = parse_json(as_text(bytes), "'" + name + "'");
    saved.stage = progress.at("stage").get<std::string>(), saved.step = progress.at("step").get<std::int64_t>();
    const Json& e = progress.at("evaluations");
    saved.evaluations = {e.at("plain").get<std::int64_t>(), e.at("state").get<std::int64_t>(),
                         e.at("parameters").get<std::int64_t>(), e.at("rewards").get<std::int64_t>()};
    saved.peak = usage_of(progress.at("peak"));
    saved.flops = progress.at("flops").get<std::int64_t>(), saved.seconds = progress.at("seconds").get<double>();
    check_same_configuration(progress.at("config"), config, path);
  } catch (const Json::exception& e) {
    fail(Fault::data, {"'", name, "' does not say where a training stands: ", e.what()});
  }
  return saved;
}

std::optional<SavedTraining> newest_saved_training(const RunDirectory& directory, const std::string& stage,
                                                   const Config& config, std::vector<std::string>& notes) {
  for (const std::string& path : saved_in(directory, stage)) try {
      return read_saved_training(path, config);
    } catch (const Error& e) {
      if (e.fault() != Fault::data && e.fault() != Fault::io) throw;
      notes.push_back(std::string("passed over: ") + e.what());
    }
  return {};
}

void remove_saved_trainings(const RunDirectory& directory, const std::string& stage) {
  for (const std::string& path : saved_in(directory, stage)) remove_folder(path);
  std::error_code not_empty;
  fs::remove(directory.file(folder_of_stage(stage)), not_empty);
}
void remove_saved_trainings_beyond(const RunDirectory& directory, const SavedTraining& training) {
  std::error_code not_there;
  for (const std::string& path : saved_in(directory, training.stage))
    if (step_of(fs::path(path).filename().string()) >= training.step && !fs::equivalent(path, training.path, not_there))
      remove_folder(path);
}

TrainingSaves::TrainingSaves(Session& session, std::string stage, Walk walk)
    : session_(session), stage_(std::move(stage)), walk_(std::move(walk)), start_(Clock::now()), last_save_(start_) {
  session_.saving = !session_.planning();
}

std::int64_t TrainingSaves::restore() {
  if (session_.planning() || !session_.resumed || session_.resumed->stage != stage_) return 0;
  const SavedTraining& from = *session_.resumed;
  finetune::StateVisitor::restore(SafetensorsFile(from.path + "/" + state_file), session_.device, walk_);
  earlier_ = from.seconds;
  // What this life has counted on the way here was counted before.
  session_.counter->restore(from.evaluations);
  session_.earlier = {from.peak, from.flops, from.seconds};
  session_.flops_start = flops(), session_.others_flops = 0;
  return from.step;
}

double TrainingSaves::seconds() const { return earlier_ + std::chrono::duration<double>(Clock::now() - start_).count(); }

void TrainingSaves::after(std::int64_t done, std::int64_t total) {
  if (session_.planning() || done >= total) return;
  const ResumeConfig& r = session_.config.resume;
  const double since = std::chrono::duration<double>(Clock::now() - last_save_).count();
  // Ranks hear of signals, and see their clocks, at different updates: what one of them asks for, all do.
  const auto [stop, late] = any_rank({stop_requested(), r.minutes > 0 && since >= 60 * r.minutes});
  if (stop || late || (r.every > 0 && done % r.every == 0)) save(done);
  if (stop)
    throw Interrupted("stopped after update " + std::to_string(done) + " of " + std::to_string(total) + " of " + stage_ +
                      "; --resume auto goes on from there");
}

void TrainingSaves::save(std::int64_t done) {
  const RunDirectory& directory = *session_.directory;
  last_save_ = Clock::now();
  if (!directory.writes()) return;  // the state of all ranks is one, and the first keeps it
  session_.metrics->flush(true);  // rows up to here are on the disk before anything says that they are
  const memory::Usage peak = memory::peak();
  const Json progress{{"stage", stage_},
                      {"step", done},
                      {"version", COSTATE_VERSION},
                      {"config", checkpoint_config(session_.config)},
                      {"seconds", seconds()},
                      {"evaluations", evaluations_json(session_.counter->now())},
                      {"flops", flops() - session_.flops_start + session_.others_flops + session_.earlier.flops},
                      {"peak", usage_json(peak.total > session_.earlier.peak.total ? peak : session_.earlier.peak)}};
  const std::vector<NamedTensor> state = finetune::StateVisitor::collect(walk_);
  char name[32];
  std::snprintf(name, sizeof name, "step_%06lld", static_cast<long long>(done));
  const std::string folder = directory.file(folder_of_stage(stage_)), path = folder + "/" + name;
  directory.make_folder(folder_of_stage(stage_));
  write_folder_atomically(
      path, {{state_file, [&](const WriteBytes& write) { write_safetensors(write, state); }},
             {progress_file, [&](const WriteBytes& write) { write(as_bytes(progress.dump(2) + "\n")); }}});
  // The older ones go once this one has been read back whole.
  check_folder(path);
  const std::vector<std::string> saved = saved_in(directory, stage_);
  for (std::size_t i = static_cast<std::size_t>(std::max<std::int64_t>(1, session_.config.resume.keep)); i < saved.size(); ++i)
    remove_folder(saved[i]);
  last_save_ = Clock::now();
}

}  // namespace costate::cli
