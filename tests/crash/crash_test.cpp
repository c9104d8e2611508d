// Runs that are killed at random moments and within calls that change the disk, that meet errors of the disk, and that are
// asked to stop: going on leaves the bits of a run that was never stopped, and no state of a training is ever unreadable.
//
// COSTATE_CRASH_KILLS: random kills of all objectives together, 200 by default. COSTATE_CRASH_POINTS: one call in so many is a
// point of death, 151 by default; 1: every one. scripts/crash_test.sh sets them.
#include <gtest/gtest.h>

#include <costate/tensor/error.h>
#include <costate/tensor/random.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "crash/program.h"

namespace costate::crash {
namespace {

namespace fs = std::filesystem;

int number(const char* variable, int otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::atoi(text) : otherwise;
}

struct Reference {
  std::map<std::string, std::string> results;
  double seconds = 0;                // of processor time
  std::vector<std::string> calls;  // that change the disk
};

std::vector<std::string> run(const std::string& config, bool resume) {
  std::vector<std::string> arguments{"run", config, "--out", "run", "--quiet"};
  if (resume) arguments.insert(arguments.end(), {"--resume", "auto"});
  return arguments;
}
std::map<std::string, std::string> faults(const Folder& folder) {
  return {{"LD_PRELOAD", COSTATE_FAULTS_PRELOAD},
          {"COSTATE_FAULTS_FOLDER", folder / "run"},
          {"ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=0"}};
}

class Crash : public ::testing::TestWithParam<std::string> {
 protected:
  // The run that is never stopped.
  Reference reference(int updates) {
    config_ = configuration(folder_, GetParam(), updates);
    Reference r;
    auto environment = faults(folder_);
    environment["COSTATE_FAULTS_LOG"] = folder_ / "calls";
    const End logged = live(folder_, {.arguments = run(config_, true), .environment = environment});
    EXPECT_TRUE(logged.done()) << logged.errors;
    const std::string lines = contents(folder_ / "calls");
    for (std::size_t at = 0; at < lines.size(); at = lines.find('\n', at) + 1)
      r.calls.push_back(lines.substr(at, lines.find('\n', at) - at));
    r.results = results(folder_ / "run");
    fs::remove_all(folder_ / "run");
    const End plain = live(folder_, {.arguments = run(config_, false)});
    EXPECT_TRUE(plain.done()) << plain.errors;
    r.seconds = plain.seconds;
    EXPECT_EQ(difference(r.results, results(folder_ / "run")), "");
    fs::remove_all(folder_ / "run");
    return r;
  }
  // Goes on until the run is done, and compares.
  void finish(const Reference& r, const std::string& after) {
    const End end = live(folder_, {.arguments = run(config_, true)});
    EXPECT_TRUE(end.done()) << after << ": " << end.code << ", " << end.errors;
    EXPECT_EQ(difference(r.results, results(folder_ / "run")), "") << after;
    fs::remove_all(folder_ / "run");
  }
  void expect_whole_states(const std::string& after) {
    try {
      check_states(folder_ / "run");
    } catch (const Error& e) {
      ADD_FAILURE() << after << ": " << e.what();
    }
  }
  Folder folder_;
  std::string config_;
};

// Lives of a random length, up to what the whole run takes, until the run is done; and again until there were enough.
TEST_P(Crash, RandomKillsChangeNoBit) {
  const Reference r = reference(14);
  const int kills = (number("COSTATE_CRASH_KILLS", 200) + 3) / static_cast<int>(objectives().size());
  const Philox random{static_cast<std::uint64_t>(std::hash<std::string>()(GetParam())), Stream::user};
  int killed = 0, finished = 0;
  for (std::uint64_t life = 0; killed < kills; ++life) {
    // Most lives are long enough to come to something; a run that makes no way at all would not end.
    const double length = r.seconds * random.uniform(life, 0, 0);
    const End end = live(folder_, {.arguments = run(config_, true), .kill_after = length});
    expect_whole_states("kill " + std::to_string(killed));
    if (end.signal == SIGKILL) {
      ++killed;
      continue;
    }
    ASSERT_TRUE(end.done()) << end.code << ", " << end.errors;
    EXPECT_EQ(difference(r.results, results(folder_ / "run")), "") << "after " << killed << " kills";
    fs::remove_all(folder_ / "run");
    ++finished;
  }
  finish(r, "the last kill");
  RecordProperty("kills", killed);
  RecordProperty("finished_runs", finished + 1);
  std::cout << GetParam() << ": " << killed << " kills, " << finished + 1 << " finished runs\n";
}

// Within calls that change the disk: of the first state, of others, of those that are pruned, of everything else a run writes.
TEST_P(Crash, DyingWithinACallThatChangesTheDiskChangesNoBit) {
  const Reference r = reference(7);
  const auto stride = static_cast<std::size_t>(std::max(1, number("COSTATE_CRASH_POINTS", 151)));
  ASSERT_GT(r.calls.size(), 100u);
  int points = 0;
  for (const char* death : {"killed", "power", "power_in_order"})
    for (std::size_t n = points % stride; n < r.calls.size(); n += stride) {
      auto environment = faults(folder_);
      environment["COSTATE_FAULTS_CALL"] = std::to_string(n), environment["COSTATE_FAULTS_DO"] = death;
      const std::string at = std::string(death) + " in call " + std::to_string(n) + ", " + r.calls[n];
      const End end = live(folder_, {.arguments = run(config_, true), .environment = environment});
      EXPECT_EQ(end.code, 137) << at << ": " << end.errors;
      expect_whole_states(at);
      finish(r, at);
      ++points;
      if (HasFatalFailure()) return;
    }
  RecordProperty("points", points);
  std::cout << GetParam() << ": " << points << " points of " << r.calls.size() << " calls in 3 ways\n";
}

// A call fails once, or from then on: the program says what and where, with exit code 6, and everything before is intact.
TEST_P(Crash, ErrorsOfTheDiskLeaveWhatWasThere) {
  const Reference r = reference(7);
  const auto stride = static_cast<std::size_t>(std::max(1, number("COSTATE_CRASH_POINTS", 151)));
  int points = 0, failed = 0;
  for (const char* reason : {"28", "5", "28+", "5+"})  // ENOSPC, EIO
    for (std::size_t n = points % stride; n < r.calls.size(); n += stride) {
      auto environment = faults(folder_);
      environment["COSTATE_FAULTS_CALL"] = std::to_string(n), environment["COSTATE_FAULTS_DO"] = reason;
      const std::string at = std::string(reason) + " in call " + std::to_string(n) + ", " + r.calls[n];
      const End end = live(folder_, {.arguments = run(config_, true), .environment = environment});
      // What is of no consequence may go by: opening a folder to flush it, removing what is not there.
      if (!end.done()) {
        EXPECT_EQ(end.code, 6) << at << ": " << end.errors;
        EXPECT_NE(end.errors.find(reason[0] == '2' ? "No space left on device" : "Input/output error"), std::string::npos)
            << at << ": " << end.errors;
        EXPECT_NE(end.errors.find("run"), std::string::npos) << end.errors;
        ++failed;
      }
      expect_whole_states(at);
      finish(r, at);
      ++points;
    }
  EXPECT_GT(failed, points / 2);
  std::cout << GetParam() << ": " << points << " failing calls, " << failed << " refusals\n";
}

// The second request ends it at once, as a kill does.
TEST_P(Crash, AskedTwiceItStops) {
  const Reference r = reference(14);
  int stopped = 0;
  for (int life = 0; life < 4; ++life) {
    const End end = live(folder_, {.arguments = run(config_, true), .kill_after = r.seconds * (0.5 + 0.1 * life),
                                   .signal = SIGTERM, .twice = true});
    expect_whole_states("two requests");
    // Two signals that wait together are one.
    if (end.code >= 0) EXPECT_TRUE(end.code == 75 || end.done()) << end.errors;
    else EXPECT_EQ(end.signal, SIGTERM);
    if (end.done()) fs::remove_all(folder_ / "run");
    ++stopped;
  }
  finish(r, "two requests");
}

TEST_P(Crash, AskedToStopItSavesAndGoesOn) {
  const Reference r = reference(14);
  const Philox random{7, Stream::user};
  int stopped = 0;
  for (std::uint64_t life = 0; life < 40 && stopped < 6; ++life) {
    const End end = live(folder_, {.arguments = run(config_, true),
                                   .kill_after = r.seconds * random.uniform(life, 0, 0),
                                   .signal = life % 2 ? SIGTERM : SIGINT});
    expect_whole_states("a request");
    if (end.done()) fs::remove_all(folder_ / "run");
    // Before the handler is there, the signal ends the program as it ends any.
    if (end.done() || end.signal != 0) continue;
    EXPECT_EQ(end.code, 75) << end.errors;
    EXPECT_NE(end.errors.find("--resume auto"), std::string::npos) << end.errors;
    ++stopped;
  }
  EXPECT_GE(stopped, 3);
  finish(r, "requests");
}

std::string plain(const ::testing::TestParamInfo<std::string>& info) { return info.param; }
INSTANTIATE_TEST_SUITE_P(Objectives, Crash, ::testing::ValuesIn(objectives()), plain);

TEST(Resume, AnotherConfigurationIsRefused) {
  const Folder folder;
  const std::string config = configuration(folder, "adjoint_matching", 6);
  ASSERT_TRUE(live(folder, {.arguments = run(config, false)}).done());
  auto other = run(config, true);
  other.insert(other.end(), {"--set", "finetune.batch=17"});
  const End refused = live(folder, {.arguments = other});
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.errors.find("finetune.batch: found 17"), std::string::npos) << refused.errors;
  auto threads = run(config, true);  // what no bit depends on may change
  threads.insert(threads.end(), {"--set", "threads=2", "--set", "resume.every=3"});
  const End done = live(folder, {.arguments = threads});
  EXPECT_TRUE(done.done()) << done.errors;
  auto both = run(config, true);
  both.emplace_back("--overwrite");
  EXPECT_EQ(live(folder, {.arguments = both}).code, 2);
}

// The newest state is damaged: the one before it serves. A named one is that one or none.
TEST(Resume, DamagedStatesArePassedOver) {
  const Folder folder;
  const std::string config = configuration(folder, "adjoint_matching", 9);
  ASSERT_TRUE(live(folder, {.arguments = run(config, false)}).done());
  const auto whole = results(folder / "run");
  const std::string states = folder / "run/checkpoints/finetune/";
  const auto stop_late = [&] {  // dies in the first call of the last save
    fs::remove_all(folder / "run");
    auto environment = faults(folder);
    environment["COSTATE_FAULTS_LOG"] = folder / "calls";
    ASSERT_TRUE(live(folder, {.arguments = run(config, true), .environment = environment}).done());
    fs::remove_all(folder / "run");
    const std::string lines = contents(folder / "calls");
    const auto at = lines.find("rename " + states + "step_000008");
    ASSERT_NE(at, std::string::npos) << lines;
    const auto call = std::count(lines.begin(), lines.begin() + static_cast<std::ptrdiff_t>(at), '\n') + 2;
    environment["COSTATE_FAULTS_CALL"] = std::to_string(call);
    environment["COSTATE_FAULTS_DO"] = "killed";
    ASSERT_EQ(live(folder, {.arguments = run(config, true), .environment = environment}).code, 137);
    ASSERT_TRUE(fs::exists(states + "step_000008/manifest"));
    ASSERT_TRUE(fs::exists(states + "step_000006/manifest"));
  };
  stop_late();
  fs::resize_file(states + "step_000008/state.safetensors", 100);
  const End end = live(folder, {.arguments = {"run", config, "--out", "run", "--resume", "auto"}});
  EXPECT_TRUE(end.done()) << end.errors;
  EXPECT_NE(end.errors.find("passed over: '"), std::string::npos) << end.errors;
  EXPECT_NE(end.errors.find("goes on after update 6 of finetune"), std::string::npos) << end.errors;
  EXPECT_EQ(difference(whole, results(folder / "run")), "");

  stop_late();
  std::vector<std::string> named{"run", config, "--out", "run", "--resume", "run/checkpoints/finetune/step_000006"};
  EXPECT_TRUE(live(folder, {.arguments = named}).done());
  EXPECT_EQ(difference(whole, results(folder / "run")), "");
  stop_late();
  fs::remove(states + "step_000006/progress.json");
  const End refused = live(folder, {.arguments = named});
  EXPECT_EQ(refused.code, 6) << refused.errors;
  EXPECT_NE(refused.errors.find("step_000006"), std::string::npos) << refused.errors;
}

}  // namespace
}  // namespace costate::crash
