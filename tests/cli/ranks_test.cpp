// Runs by several processes under mpirun: the files of one process, refusals, and what becomes of a rank that fails or dies.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "distributed/ranks.h"
#include "config/json.h"
#include "config/read.h"
#include "commands.h"
#include "program.h"

namespace costate::cli::testing {
namespace {

const std::string shared_points = R"({
  "name": "tiny",
  "data": {"kind": "mixture", "count": 300, "mixture": {"means": [[-1, 0], [1, 0.5]], "deviations": [0.3, 0.4]}},
  "network": {"hidden": 16, "depth": 2, "time_frequencies": 3},
  "pretrain": {"iterations": 6, "batch": 35, "micro_batch": 8, "log_every": 2, "checkpoint_every": 4},
  "reward": {"kind": "quadratic", "coefficients": [1, 0], "precision": [[0.5, 0.5]]},
  "sampler": {"steps": 6},
  "finetune": {"iterations": 4, "batch": 40, "micro_batch": 9, "early_steps": 2, "late_steps": 2, "log_every": 2},
  "sample": {"count": 70},
  "evaluate": {"count": 90, "projections": 8}
})";

Config config_with(const std::vector<std::string>& settings) {
  return read_config_text(shared_points, "test", settings).config;
}

TEST(Ranks, WhatIsNotSharedIsRefusedInASentence) {
  const std::vector<Stage> all{Stage::pretrain, Stage::finetune, Stage::sample, Stage::evaluate};
  EXPECT_NO_THROW(check_shared(config_with({}), all, 5));
  const std::string no_early = "finetune.early_steps=0", no_late = "finetune.late_steps=0", whole = "finetune.micro_batch=0";
  EXPECT_NO_THROW(check_shared(config_with({"finetune.objective=draft", no_early, no_late}), all, 2));
  EXPECT_NO_THROW(check_shared(config_with({"finetune.objective=ddpo_is", no_early, no_late}), all, 3));
  const auto refused = [&](const std::vector<std::string>& settings, int ranks, const std::string& begin) {
    try {
      check_shared(config_with(settings), all, ranks);
      ADD_FAILURE() << begin;
    } catch (const Error& e) {
      EXPECT_EQ(e.fault(), Fault::argument);
      EXPECT_TRUE(std::string(e.what()).starts_with(begin)) << e.what();
    }
    EXPECT_NO_THROW(check_shared(config_with(settings), all, 1));
  };
  refused({}, 6, "pretrain.micro_batch: found 8, but 6 processes share the micro-batches of an update, and 35 samples are 5 of "
                 "them; expected 1 to 5");
  refused({"finetune.micro_batch=0"}, 2, "finetune.micro_batch: found 0, but 2 processes");
  refused({"finetune.objective=socm", whole, no_early}, 2,
          "finetune.objective: found socm, which 2 processes cannot share: its path weights are divided by a mean over the "
          "whole batch; expected");
  refused({"finetune.objective=pi_ft", whole}, 2,
          "finetune.objective: found pi_ft, which 2 processes cannot share: its value network is fitted to the whole "
          "batch; expected");
  refused({"finetune.objective=ddpo_is", no_early, no_late}, 4, "finetune.micro_batch: found 9, but 4 processes share the "
                                                                "micro-batches of an update, and 20 samples are 3 of them");
  refused({"finetune.objective=score_as_action", no_early, no_late}, 2,
          "finetune.policy_gradient.critic.skip: found true, which 2 processes cannot share in score_as_action: every process "
          "would ask for the rewards of all its estimates; expected false, or one process");
  refused({"finetune.objective=hrf", no_early, no_late, "finetune.micro_batch=8",
           "finetune.policy_gradient.window.kind=dynamic"},
          2, "finetune.policy_gradient.window.kind: found dynamic, which 2 processes cannot share in hrf");
  refused({"finetune.micro_batch=0", "finetune.regression.replay.size=80"}, 2, "finetune.regression.replay.size: found 80");
}

TEST(Ranks, TheLaunchIsReadFromTheEnvironment) {
  EXPECT_EQ(launch_of_environment().size, 1);
  ::setenv("SLURM_NTASKS", "4", 1);  // of a batch script, which is one process
  ::setenv("SLURM_PROCID", "0", 1);
  EXPECT_EQ(launch_of_environment().size, 1);
  ::setenv("SLURM_STEP_NUM_TASKS", "4", 1);
  ::setenv("SLURM_PROCID", "3", 1);
  EXPECT_EQ(launch_of_environment().by, "srun");
  EXPECT_EQ(launch_of_environment().rank, 3);
  ::setenv("SLURM_PROCID", "three", 1);
  EXPECT_EQ(launch_of_environment().size, 1);
  for (const char* name : {"SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"}) ::unsetenv(name);
}

#ifdef COSTATE_MPIRUN
constexpr const char* mpirun = COSTATE_MPIRUN " --oversubscribe --allow-run-as-root";

// A line of the shell, in `folder`.
Result shell(const Folder& folder, const std::string& line) {
  const std::string whole = "cd '" + folder.path() + "' && export OMPI_MCA_rmaps_base_oversubscribe=1 && { " + line +
                            "; } > '" + folder / ".out" + "' 2> '" + folder / ".err" + "' < /dev/null";
  const int status = std::system(whole.c_str());
  return {status < 0 ? -1 : WEXITSTATUS(status), contents(folder / ".out"), contents(folder / ".err")};
}
std::string by_ranks(int ranks, const std::string& arguments) {
  return std::string(mpirun) + " -np " + std::to_string(ranks) + " '" COSTATE_PROGRAM "' " + arguments + " --threads 1";
}
// To the ranks of the mpirun whose process is $job: all, or the last.
std::string signal_ranks(const std::string& signal, bool all) {
  return "kill -" + signal + " $(cat /proc/[0-9]*/stat 2>/dev/null | "
                             "awk -v job=$job '$4 == job && $2 == \"(costate)\" { print $1 }'" + (all ? ")" : " | tail -n 1)");
}
std::int64_t count(const std::string& text, const std::string& word) {
  std::int64_t n = 0;
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++n;
  return n;
}

// Names of the files of a run that do not depend on time or on the number of processes.
std::set<std::string> lasting_files(const std::string& run) {
  std::set<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(run)) {
    const std::string name = fs::relative(entry.path(), run).string();
    if (entry.is_regular_file() && name != "run.json" && name != "timing.csv" && name != "summary.md" &&
        name != "config.resolved.json")
      files.insert(name);
  }
  return files;
}
void expect_same_files(const std::string& run, const std::string& as) {
  const std::set<std::string> files = lasting_files(as);
  EXPECT_GT(files.size(), 8u);
  EXPECT_EQ(lasting_files(run), files);
  for (const std::string& name : files) EXPECT_EQ(contents(run + "/" + name), contents(as + "/" + name)) << name;
}
void expect_same_counts(const std::string& run, const std::string& as) {
  const Json record = Json::parse(contents(run + "/run.json")), alone = Json::parse(contents(as + "/run.json"));
  for (const auto& [stage, numbers] : alone["stages"].items()) {
    EXPECT_EQ(record["stages"][stage]["evaluations"], numbers["evaluations"]) << stage;
    EXPECT_EQ(record["stages"][stage]["flops"], numbers["flops"]) << stage;
  }
}

TEST(Ranks, OneTwoAndFourLeaveTheFilesOfOneProcess) {
  const Folder folder;
  folder.file("config.json", shared_points);
  ASSERT_EQ(costate(folder, {"run", "config.json", "--quiet", "--threads", "1", "--out", "alone"}).code, 0);
  for (const int ranks : {1, 2, 4}) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks");
    const std::string out = "run" + std::to_string(ranks);
    const Result r = shell(folder, by_ranks(ranks, "run config.json --quiet --out " + out));
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(count(r.out, "tuned sde"), 1) << r.out;  // the first rank alone speaks
    expect_same_files(folder / out, folder / "alone");
    expect_same_counts(folder / out, folder / "alone");
    const Json record = Json::parse(contents(folder / (out + "/run.json")));
    EXPECT_EQ(record["ranks"], ranks);
    EXPECT_EQ(record["stages"]["finetune"].contains("sent_bytes"), ranks > 1);
  }
}

TEST(Ranks, TheOtherLoopsLeaveTheFilesOfOneProcess) {
  // A policy gradient with groups, whose paths and updates are shared, and the gradient of the reward itself.
  for (const std::string objective : {"flow_grpo", "draft_k"}) {
    SCOPED_TRACE(objective);
    const Folder folder;
    folder.file("config.json", shared_points);
    const std::string settings = " --set finetune.objective=" + objective +
                                 (objective == "flow_grpo" ? " --set finetune.micro_batch=8 --set finetune.batch=64" : "") +
                                 " --set finetune.early_steps=0 --set finetune.late_steps=0";
    ASSERT_EQ(shell(folder, "'" COSTATE_PROGRAM "' run config.json --quiet --threads 1 --out alone" + settings).code, 0);
    for (const int ranks : {2, 4}) {
      SCOPED_TRACE(std::to_string(ranks) + " ranks");
      const std::string out = "run" + std::to_string(ranks);
      const Result r = shell(folder, by_ranks(ranks, "run config.json --quiet --out " + out + settings));
      ASSERT_EQ(r.code, 0) << r.err;
      expect_same_files(folder / out, folder / "alone");
      expect_same_counts(folder / out, folder / "alone");
    }
  }
}

TEST(Ranks, TheLawOfX0IsLearntByTheFirstAndReadByTheOthers) {
  const Folder folder;
  folder.file("config.json", shared_points);
  const std::string settings = " --set finetune.objective=elegant --set finetune.early_steps=0 --set finetune.late_steps=0"
                               " --set finetune.initial_law.iterations=4 --set finetune.initial_law.batch=16";
  const Result one = shell(folder, "'" COSTATE_PROGRAM "' run config.json --quiet --threads 1 --out alone" + settings);
  ASSERT_EQ(one.code, 0) << one.err;
  const Result r = shell(folder, by_ranks(2, "run config.json --quiet --out run" + settings));
  ASSERT_EQ(r.code, 0) << r.err;
  expect_same_files(folder / "run", folder / "alone");
  expect_same_counts(folder / "run", folder / "alone");
}

TEST(Ranks, WhatIsWrongIsSaidOnceBeforeTheRunBegins) {
  const Folder folder;
  folder.file("config.json", shared_points);
  const Result few = shell(folder, by_ranks(2, "run config.json --out run --set pretrain.micro_batch=0"));
  EXPECT_EQ(few.code, 2);
  EXPECT_EQ(count(few.err, "costate: pretrain.micro_batch: found 0"), 1) << few.err;
  EXPECT_FALSE(fs::exists(folder / "run"));
  const Result inspect = shell(folder, std::string(mpirun) + " -np 2 '" COSTATE_PROGRAM "' objectives");
  EXPECT_EQ(inspect.code, 2);
  EXPECT_EQ(count(inspect.err, "costate: mpirun started 2 processes, but they share run"), 1) << inspect.err;
  const Result differ = shell(folder, by_ranks(1, "run config.json --out run") + " : -np 1 '" COSTATE_PROGRAM
                                          "' run config.json --out run --threads 1 --seed 5");
  EXPECT_NE(differ.code, 0);
  EXPECT_EQ(count(differ.err, "the processes differ in their configuration"), 1) << differ.err;
  const Result other = shell(folder, by_ranks(1, "run config.json --out run") + " : -np 1 '" COSTATE_PROGRAM
                                         "' run config.json --out run --threads 1 --resume auto");
  EXPECT_NE(other.code, 0);
  EXPECT_EQ(count(other.err, "the processes differ in their command"), 1) << other.err;
  EXPECT_FALSE(fs::exists(folder / "run"));
  const Result without = shell(folder, "COSTATE_MPI_PLUGIN=none.so " + by_ranks(2, "run config.json --out run"));
  EXPECT_EQ(without.code, 1);
  EXPECT_EQ(count(without.err, "costate: mpirun started 2 processes, but none.so could not be loaded"), 1) << without.err;
}

TEST(Ranks, AnErrorOfOneRankEndsAllWithItsName) {
  // The second rank works elsewhere and does not find what the first has written.
  const Folder folder;
  folder.file("config.json", shared_points);
  fs::create_directory(folder / "elsewhere");
  fs::copy(folder / "config.json", folder / "elsewhere/config.json");
  const Result r = shell(folder, by_ranks(1, "run config.json --quiet --out run") + " : -np 1 -wdir '" + folder / "elsewhere" +
                                     "' '" COSTATE_PROGRAM "' run config.json --quiet --out run --threads 1");
  EXPECT_EQ(r.code, 6) << r.err;
  EXPECT_EQ(count(r.err, "costate: rank 1 of 2: 'run/checkpoints/base.safetensors' does not exist"), 1) << r.err;
  EXPECT_EQ(count(r.err, "this ends all ranks, and the checkpoints are as they were"), 1) << r.err;
  EXPECT_EQ(costate(folder, {"finetune", "config.json", "--quiet", "--out", "run"}).code, 0);
}

// A run that is long enough to be stopped in its middle, when the shell's `condition` holds: `signal` goes to the ranks, all or
// one. What has not ended a minute later is killed, with a word about it on stderr.
Result stopped(const Folder& folder, const std::string& command, const std::string& condition, const std::string& signal,
               bool all) {
  return shell(folder, command + " & job=$!; (n=0; while [ $n -lt 600 ] && kill -0 $job 2>/dev/null; do sleep 0.1; "
                       "n=$((n + 1)); done; kill -0 $job 2>/dev/null && { echo 'it hangs' >&2; " + signal_ranks("KILL", true) + "; kill -9 $job; }) & "
                       "until " + condition + " || ! kill -0 $job 2>/dev/null; do sleep 0.02; done; " +
                       signal_ranks(signal, all) + "; wait $job");
}
// Updates enough that a run lasts until it is stopped: with a state after each, they take some ten milliseconds.
const std::string long_tuning = " --set finetune.iterations=90 --set finetune.log_every=15";
const std::string often = " --set resume.every=1 --set resume.keep=1000";
const std::string third_state = "[ -e run/checkpoints/finetune/step_000003 ]";
void make_reference(const Folder& folder) {
  folder.file("config.json", shared_points);
  const Result r = shell(folder, "'" COSTATE_PROGRAM "' run config.json --quiet --threads 1 --out alone" + long_tuning);
  ASSERT_EQ(r.code, 0) << r.err;
}

TEST(Ranks, AskedToStopTheyStopTogetherAndGoOnToTheSameBits) {
  const Folder folder;
  make_reference(folder);
  const Result asked =
      stopped(folder, by_ranks(2, "run config.json --quiet --out run" + long_tuning + often), third_state, "TERM", true);
  EXPECT_EQ(asked.code, 75) << asked.err;
  EXPECT_EQ(count(asked.err, "of 90 of finetune; --resume auto goes on from there"), 1) << asked.err;
  EXPECT_EQ(count(asked.err, "it hangs"), 0);
  // And once more, by way of mpirun.
  const Result again = shell(folder, by_ranks(2, "run config.json --resume auto --out run" + long_tuning) +
                                         " & job=$!; until grep -q 'goes on after update' .err || ! kill -0 $job; do "
                                         "sleep 0.02; done; kill -USR1 $job; wait $job");
  EXPECT_EQ(again.code, 75) << again.err;
  const Result on = shell(folder, by_ranks(2, "run config.json --resume auto --out run" + long_tuning));
  ASSERT_EQ(on.code, 0) << on.err;
  EXPECT_EQ(count(on.err, "goes on after update"), 1) << on.err;
  expect_same_files(folder / "run", folder / "alone");
  expect_same_counts(folder / "run", folder / "alone");
}

TEST(Ranks, ARankThatIsKilledEndsTheJobAndAnyNumberGoesOn) {
  const Folder folder;
  make_reference(folder);
  const Result killed =
      stopped(folder, by_ranks(2, "run config.json --quiet --out run" + long_tuning + often), third_state, "KILL", false);
  EXPECT_NE(killed.code, 0);
  EXPECT_EQ(count(killed.err, "it hangs"), 0) << killed.err;
  EXPECT_NE(killed.err.find("signal 9"), std::string::npos) << killed.err;  // mpirun names the rank and the signal
  EXPECT_EQ(contents(folder / "run/checkpoints/base.safetensors"), contents(folder / "alone/checkpoints/base.safetensors"));
  // Four go on, and one alone after them.
  const Result four = stopped(folder, by_ranks(4, "run config.json --resume auto --out run" + long_tuning),
                              "grep -q 'goes on after update' .err", "TERM", true);
  EXPECT_EQ(four.code, 75) << four.err;
  EXPECT_EQ(count(four.err, "it hangs"), 0);
  const Result one =
      shell(folder, "'" COSTATE_PROGRAM "' run config.json --quiet --threads 1 --resume auto --out run" + long_tuning);
  ASSERT_EQ(one.code, 0) << one.err;
  expect_same_files(folder / "run", folder / "alone");
  expect_same_counts(folder / "run", folder / "alone");
}

TEST(Ranks, AStageOfTheFirstRankStopsAll) {
  const Folder folder;
  folder.file("config.json", shared_points);
  const std::string long_judge = " --set data.held_out=0.3 --set classifiers.judge.iterations=1000000"
                                 " --set classifiers.judge.log_every=1";
  const Result r = stopped(folder, by_ranks(2, "pretrain config.json --quiet --out run" + long_judge),
                           "[ -e run/checkpoints/base.safetensors ]", "TERM", true);
  EXPECT_EQ(r.code, 75) << r.err;
  EXPECT_EQ(count(r.err, "costate: stopped before the end of a stage, which begins again with --resume auto"), 1) << r.err;
  EXPECT_EQ(count(r.err, "it hangs"), 0);
}
#else
TEST(Ranks, RunUnderMpirun) {
  GTEST_SKIP() << "MPI was not found when this was configured: no run by several processes to look at";
}
#endif

}  // namespace
}  // namespace costate::cli::testing
